"""A sweep on two Ray nodes of this machine, one of whose workers is killed in the middle."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.ray_nodes import cluster, second_node
from tests.tiny import assert_same_result, result

ROOT = Path(__file__).parent.parent
RUN = (
    "--exp=ddpg_pendulum",
    "--num_timesteps=8000",
    "--checkpoint_every=500",
    "--set=train.random_steps=200",
    "--set=train.eval_interval=4000",
    "--set=train.eval_episodes=1",
    "--set=agent.batch_size=16",
)


def start(*flags):
    command = [sys.executable, "run_experiments.py", *RUN, *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **pipes)


def finish(process):
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


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


def wait_for(path, seconds=240):
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="finds the worker in /proc")
def test_a_sweep_survives_its_workers_and_changes_no_bit(tmp_path):
    alone = start(f"--logdir={tmp_path / 'alone'}", "--seed=1")
    assert finish(alone)[0] == 0
    with cluster() as address, second_node(address):
        flags = (f"--logdir={tmp_path}", "--seeds=0-1", f"--ray_address={address}")
        sweep = start(*flags)
        wait_for(folder(tmp_path, 1) / "checkpoints" / "step_000000001000.json")
        os.kill(holder(folder(tmp_path, 1) / ".lock"), signal.SIGKILL)
        status, out, err = finish(sweep)
        assert status == 0, out + err
        assert "seed 1: retried, its worker or node died" in out
        assert re.search(r"^seed 0: -?\d+.* mean.*; 1 episodes", out, re.MULTILINE)
        again = finish(start(*flags))
    assert_same_result(result(folder(tmp_path, 1)), result(folder(tmp_path / "alone", 1)))
    assert again[0] == 0 and "finished before: 2 of 2" in again[1]
    refused = finish(start(f"--logdir={tmp_path}", "--seeds=0-1", "--overwrite", "--set=tau=x"))
    assert refused[0] == 1 and (folder(tmp_path, 0) / "weights.npz").exists()


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--seeds=0-1", "--seed=0"], "give --seed or --seeds, not both"),
        (["--seeds=0-1", "--set=agent.gama=1"], "did you mean 'agent.gamma'"),
        (["--seeds=0-1", "--cpus_per_run=1000"], "no node has the 1000 CPUs"),
    ],
)
def test_what_cannot_be_swept_is_said_in_one_line(tmp_path, flags, message):
    status, _, err = finish(start(f"--logdir={tmp_path}", *flags))
    assert status == 1
    assert message in err and len(err.splitlines()) == 1, err
    assert not list(tmp_path.rglob("config.json"))
