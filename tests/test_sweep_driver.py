"""A sweep on a Ray cluster of this machine, whose worker is killed in the middle."""

import os
import re
import signal
import sys
from pathlib import Path
from threading import Thread

import pytest

from tests.forks import here
from tests.launch_toys import wait_for
from tests.tiny import assert_same_result, result

RUN = (
    "--exp=ddpg_pendulum", "--eager", "--num_timesteps=1000", "--checkpoint_every=100",
    *(f"--set={text}" for text in (
        "train.random_steps=100", "train.eval_interval=1000", "train.eval_episodes=1",
        "agent.batch_size=16", "agent.nb_rollout_steps=50", "agent.nb_train_steps=1",
        "agent.actor_network.num_layers=1", "agent.critic_network.num_layers=1",
    )),
)  # fmt: skip


def folder(logdir, seed):
    return logdir / "ddpg_pendulum" / "classic" / f"seed_{seed}"


def holder(path):
    """The process that has the file open."""
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == str(path):
                return int(link.parts[2])
        except OSError:  # it has ended meanwhile
            continue
    return None


def kill_the_worker(run):
    wait_for(run / "checkpoints" / "step_000000000200.json", seconds=240)
    os.kill(holder(run / ".lock"), signal.SIGKILL)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker in /proc")
def test_a_sweep_survives_its_workers_and_changes_no_bit(ray_address, tmp_path):
    for logdir, seed in ((tmp_path, 0), (tmp_path / "alone", 1)):
        assert here([*RUN, f"--logdir={logdir}", f"--seed={seed}"])[0] == 0
    sweep = [*RUN, f"--logdir={tmp_path}", "--seeds=0-1", f"--ray_address={ray_address}"]
    killer = Thread(target=kill_the_worker, args=[folder(tmp_path, 1)])
    killer.start()
    status, out, err = here(sweep)
    killer.join()
    assert status == 0, out + err
    assert "finished before: 1 of 2" in out and "seed 1: retried, its worker or node died" in out
    for seed in (0, 1):
        assert re.search(rf"^seed {seed}: -?\d+.* mean.*; 1 episodes", out, re.MULTILINE)
    assert_same_result(result(folder(tmp_path, 1)), result(folder(tmp_path / "alone", 1)))
    status, out, _ = here(sweep)
    assert status == 0 and "finished before: 2 of 2" in out
    for mistake, text in {
        "--set=agent.tau=x": "'agent.tau=x': the value must be a number",
        "--keep_checkpoints=0": "keep_checkpoints must be at least 1",
        "--set=env.physics=mas=1": "did you mean 'mass'",
        "--set=agent.replay_size=1000000000000000": "not enough memory",  # as the agent is made
    }.items():
        status, _, err = here([*sweep, "--overwrite", mistake])
        assert status == 1 and text in err
        assert (folder(tmp_path, 0) / "weights.npz").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--seed=0"], "give --seed or --seeds, not both"),
        (["--set=agent.gama=1"], "did you mean 'agent.gamma'"),
        (["--cpus_per_run=1000"], "no node has the 1000 CPUs"),
    ],
)
def test_what_cannot_be_swept_is_said_in_one_line(ray_address, tmp_path, capfd, flags, message):
    where = [f"--logdir={tmp_path}", f"--ray_address={ray_address}"]
    status, out, err = here([*RUN, *where, "--seeds=0-1", *flags])
    assert status == 1
    assert message in err and len(err.splitlines()) == 1, err
    assert (out, *capfd.readouterr()) == ("", "", "")
    assert not list(tmp_path.rglob("config.json"))
