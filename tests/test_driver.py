"""The driver as a person uses it: in a process of its own, wrong flags included."""

import csv
import json
import os
import signal
import subprocess
import sys
import tempfile
from functools import partial
from importlib.abc import MetaPathFinder
from pathlib import Path

import numpy as np
import pytest

import run_experiments
from baselines_tf2.runs.experiment import make_settings
from tests.forks import fork, here

ROOT = Path(__file__).parent.parent
SHORT = [
    "--num_timesteps=600", "--set=train.eval_episodes=1", "--set=train.random_steps=100",
    "--set=agent.actor_network.num_layers=1", "--set=agent.critic_network.num_layers=1",
]  # fmt: skip


class Block(MetaPathFinder):
    """Lets a package be missing that the driver has not loaded."""

    def __init__(self, blocked):
        assert blocked not in sys.modules
        self.blocked = blocked

    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == self.blocked:
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)


def block(package):
    sys.meta_path.insert(0, Block(package))


def drive(*flags, fault=None):
    with tempfile.TemporaryDirectory() as folder:
        process = fork(Path(folder), flags, fault)
        process.join()
        out, err = ((Path(folder) / name).read_text() for name in ("out", "err"))
        return subprocess.CompletedProcess(flags, process.exitcode, out, err)


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("logs")
    result = drive("--exp=diffcritic_cheetah", f"--logdir={logdir}", "--seed=3", *SHORT)
    return result, logdir / "diffcritic_cheetah" / "mujoco" / "seed_3"


def test_a_run_leaves_all_it_promises(run):
    result, folder = run
    assert result.returncode == 0, result.stderr
    names = {path.name for path in folder.iterdir()}
    assert {"config.json", "metrics.csv", "eval.csv", "weights.npz", "curves.png"} <= names
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert str(folder) in result.stdout and "600 steps" in result.stdout
    assert result.stderr == ""  # no notices, no progress bar where there is no terminal


def test_the_tables_hold_the_run(run):
    _, folder = run
    metrics = table(folder / "metrics.csv")
    assert next(iter(metrics[0])) == "step" and metrics[-1]["step"] == "600"
    columns = set(metrics[0])
    assert {"time/elapsed", "time/steps_per_second"} == {c for c in columns if "time" in c}
    assert {"eval/return_inside", "eval/return_outside", "diagnostics/robot_share"} <= columns
    evaluations = table(folder / "eval.csv")
    masses = {float(row["physics/torso_mass"]) for row in evaluations}
    assert min(masses) < 3 and max(masses) > 9 and len(masses) == 9
    assert {row["length"] for row in evaluations} == {"1000"}


def test_config_json_can_repeat_the_run(run):
    _, folder = run
    config = json.loads((folder / "config.json").read_text())
    assert (config["exp"], config["backend"], config["seed"]) == ("diffcritic_cheetah", "mujoco", 3)
    assert config["settings"]["agent"]["critic"] in ("concat", "antisymmetric", "additive")
    assert config["settings"]["env"]["ensemble"] == "torso_mass:6,1.5,3,9"
    assert {"tensorflow", "mujoco", "gymnasium"} <= set(config["versions"])


def test_a_finished_run_acts_from_python(run):
    actions = run_experiments.load_run(run[1]).predict(np.zeros((3, 17)))
    assert actions.shape == (3, 6) and (np.abs(actions) <= 1).all()


def test_a_second_run_stops_before_touching_the_first(run):
    _, folder = run
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    logdir = folder.parents[2]
    text = mistake("--exp=diffcritic_cheetah", f"--logdir={logdir}", "--seed=3", *SHORT)
    assert "already holds a finished run: add --overwrite" in text
    assert before == {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.parametrize(
    "experiment, flags",
    [
        (
            "ddpg_pendulum",
            ["--set=train.overlap=true", "--set=agent.noise_type=adaptive-param_0.2", *SHORT[2:]],
        ),
        pytest.param(
            "omd_cartpole",
            ["--set=agent.batch_size=16", "--set=agent.hidden_dim=8", SHORT[2]],
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_same_seed_gives_the_same_bits(tmp_path, experiment, flags):
    flags = [*flags, f"--exp={experiment}", "--num_timesteps=400", SHORT[1]]
    runs = []
    for name in ("a", "b"):
        assert drive(*flags, f"--logdir={tmp_path / name}").returncode == 0
        folder = tmp_path / name / experiment / "classic" / "seed_0"
        rows = table(folder / "metrics.csv")
        for row in rows:
            del row["time/elapsed"], row["time/steps_per_second"]
        runs.append((rows, table(folder / "eval.csv"), dict(np.load(folder / "weights.npz"))))
    assert runs[0][:2] == runs[1][:2]
    for name, weights in runs[0][2].items():
        np.testing.assert_array_equal(weights, runs[1][2][name])


def test_pybullet_runs_without_mujoco(tmp_path):
    flags = ["--exp=ddpg_hopper", "--backend=pybullet", f"--logdir={tmp_path}", "--eager"]
    short = ["--num_timesteps=150", "--set=train.random_steps=50", "--set=train.eval_episodes=1"]
    fault = partial(block, "mujoco")
    result = drive(*flags, *short, "--set=agent.nb_train_steps=2", fault=fault)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "ddpg_hopper" / "pybullet" / "seed_0" / "weights.npz").exists()


def mistake(*flags):
    """What the driver says of one."""
    status, out, err = here(flags)
    assert (status, out) == (1, "")
    return err.removesuffix("\n")


@pytest.mark.parametrize(
    "flags, message",
    [
        ([], "name an experiment with --exp"),
        (["cheetah"], "unexpected argument 'cheetah'"),
        (["--exp=diffcritic_cheeta"], "did you mean 'diffcritic_cheetah'"),
        (["--exp=ddpg_ant", "--backend=bullet"], "did you mean 'pybullet'"),
        (["--exp=ddpg_pendulum", "--backend=mujoco"], "known: classic"),
        (["--exp=ddpg_ant", "--preset=orig"], "did you mean 'original'"),
        (["--exp=ddpg_ant", "--set=agent.gama=1"], "did you mean 'agent.gamma'"),
        (["--exp=ddpg_ant", "--set=agent.critic=conkat"], "did you mean 'concat'"),
        (["--exp=ddpg_ant", "--num_timesteps=9", "--set=train.num_timesteps=9"], "given twice"),
        (["--exp=ddpg_ant", "--num_timesteps=5e3"], "train.random_steps=10000 leaves nothing"),
        (["--exp=ddpg_ant", "--set=env.task=hopper"], "'env.task' follows from --exp"),
        (["--exp=ddpg_ant", "--backend="], "unknown backend"),
        (["--exp=ddpg_ant", "--logdir="], "--logdir is empty"),
        (["--exp=ddpg_pendulum", "--set=agent.replay_size=1000000000000000"], "not enough memory"),
        (["--exp=ddpg_ant", "--num_timesteps=0"], "num_timesteps must be at least 1"),
        (["--exp=ddpg_cheetah", "--set=env.physics=torso_mass=-1"], "torso_mass"),
        (["--exp=ddpg_cheetah", "--set=env.physics=torso_mass=0"], "torso_mass"),
        (["--exp=ddpg_cheetah", "--set=env.physics=torso_mass=nan"], "torso_mass"),
        (["--exp=ddpg_cheetah", "--set=env.physics=torso_mas=1"], "did you mean 'torso_mass'"),
        (["--exp=ddpg_cheetah", "--set=env.physics=mass/tors=1"], "did you mean 'mass/torso'"),
        (["--exp=ddpg_ensemble_ant", "--set=env.ensemble=torso_mass:6,1.5"], "torso_mass"),
        (["--exp=ddpg_pendulum", "--logdir=/proc/no"], "/proc/no"),
        (["--mode=reprot"], "did you mean 'report'"),
        (["--mode=report"], "--runs"),
        (["--mode=report", "--runs=/nowhere/*"], "/nowhere/* matches nothing"),
        (["--exp=tabular_bounds", "--set=projection=leef"], "did you mean 'leaf'"),
        (["--exp=omd_cartpole", "--set=agent.solver.name=gauss"], "unknown solver: 'gauss'"),
        (["--exp=omd_cartpole", "--set=agent.solver.ridge=-1"], "ridge must be a finite number"),
        (["--exp=omd_cheetah", "--set=agent.solver.ridge=1"], "ridge_relative exclude each other"),
        (["--exp=mle_cartpole", "--set=agent.solver.name=cg"], "solves no linear system"),
        (["--exp=omd_cartpole", "--set=env.action_noise=0.1"], "actions are discrete"),
        (["--exp=omd_cartpole", "--set=agent.cycle_steps=3"], "must divide 1000"),
    ],
)
def test_a_mistake_is_one_clear_line(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    text = mistake(*flags)
    assert text.startswith("error: ") and "\n" not in text
    assert message in text
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--exp=ddpg_ant", "--grid=mass=1"], "--grid does nothing with --mode=train, it is for "),
        (["--exp=ddpg_ant", "--out=x"], "--out does nothing with --mode=train, it is for "),
        (["--mode=report", "--seed=1"], "it is for --mode=train and --mode=evaluate: leave it out"),
        (["--mode=evaluate", "--run=x", "--set=a=1"], "--set does nothing with --mode=evaluate"),
        (["--mode=evaluate", "--run=x", "--resume"], "--resume does nothing with --mode=evaluate"),
        (
            ["--mode=study", "--study=x", "--smoke", "--overwrite"],
            "--overwrite does nothing with --smoke",
        ),
        (
            ["--mode=study", "--study=x", "--smoke", "--collect"],
            "--smoke does nothing with --collect",
        ),
        (
            ["--mode=study", "--study=x", "--collect", "--overwrite"],
            "nothing with --collect, it is",
        ),
        (["--mode=report", "--runs=x", "--seeds=0"], "--seeds does nothing with --mode=report"),
        (
            ["--list", "--exp=ddpg_ant"],
            "--exp does nothing with --list, it is for --mode=train: leave",
        ),
    ],
)
def test_a_flag_of_another_mode_is_refused(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    assert message in mistake(*flags)
    assert list(tmp_path.iterdir()) == []


def test_every_flag_belongs_to_a_mode():
    defined = run_experiments.FLAGS.flags_by_module_dict()["run_experiments"]
    read = set().union(*run_experiments.FLAGS_OF.values())
    assert {flag.name for flag in defined} == read | {"mode", "list"}


def test_evaluating_what_is_no_run(tmp_path):
    text = mistake("--mode=evaluate", f"--run={tmp_path / 'no'}")
    assert text.startswith(f"error: there is no run in {tmp_path / 'no'}: name the folder")


def test_another_solver_runs_where_its_failures_do_not_stop():
    chosen = make_settings(
        run_experiments.EXPERIMENTS["omd_cartpole"], "default", None, ["agent.solver.name=minres"]
    )
    assert (chosen.agent.solver.name, chosen.agent.solver.on_failure) == ("minres", "identity")


@pytest.mark.parametrize(
    "flags, blocked",
    [
        (["--exp=ddpg_cheetah"], "mujoco"),
        (["--exp=ddpg_cheetah", "--backend=pybullet"], "pybullet"),
    ],
)
def test_a_missing_backend_is_one_clear_line(tmp_path, flags, blocked):
    fault = partial(block, blocked)
    result = drive(*flags, f"--logdir={tmp_path / 'runs'}", fault=fault)
    assert result.returncode == 1
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1
    assert "pip install" in result.stderr
    assert not (tmp_path / "runs").exists()


def test_omd_that_diverges_keeps_its_last_sound_weights(tmp_path):
    result = drive("--exp=omd_cartpole", f"--logdir={tmp_path}", "--num_timesteps=2000", "--eager",
                   "--set=agent.batch_size=8", "--set=agent.inner_lr=1e30",
                   "--set=agent.solver.name=identity")  # fmt: skip
    assert result.returncode == 1
    assert result.stderr.startswith("error: learning diverged (try smaller learning rates): train/")
    assert result.stderr.count("\n") == 1
    folder = tmp_path / "omd_cartpole" / "classic" / "seed_0"
    assert [row["step"] for row in table(folder / "metrics.csv")] == ["1000"]
    assert np.isfinite(np.load(folder / "weights.npz")["state"]).all()


def test_a_report_of_a_run(run, tmp_path):
    result = drive("--mode=report", f"--runs={run[1]}", f"--out={tmp_path / 'out'}")
    assert result.returncode == 0, result.stderr
    assert "diffcritic_cheetah" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.parametrize(
    "flag",
    [
        "--seed=-1",
        "--sed=1",
        "--eager=maybe",
        "--checkpoint_every=1.5",
        "--num_timesteps=many",
        "--keep_checkpoints=x",
    ],
)
def test_a_flag_that_cannot_be_read_is_one_line_too(capsys, flag):
    with pytest.raises(SystemExit) as exit_:
        run_experiments._parse_flags(["run_experiments.py", flag])
    assert exit_.value.code.startswith("error: ") and "\n" not in exit_.value.code


def test_a_count_may_be_written_with_an_exponent():
    run_experiments.FLAGS(["run_experiments.py", "--checkpoint_every=2e3"])
    assert run_experiments.FLAGS.checkpoint_every == 2000
    assert run_experiments.FLAGS["checkpoint_every"].serialize() == "--checkpoint_every=2000"
    run_experiments.FLAGS["checkpoint_every"].unparse()


def test_the_list_from_anywhere_names_every_experiment(tmp_path):
    """In a process of its own, as `python run_experiments.py` is."""
    command = [sys.executable, ROOT / "run_experiments.py", "--list"]
    result = subprocess.run(command, check=True, cwd=tmp_path, capture_output=True, text=True)
    lines = result.stdout.splitlines()
    assert len(lines) == len(run_experiments.EXPERIMENTS)
    assert lines[0].startswith("ddpg_cheetah") and result.stderr == ""
    assert any(x.startswith("ddpg_ensemble_walker ") and "EPOpt" in x for x in lines)
    assert list(tmp_path.iterdir()) == []


def read_by_nobody():
    """As where `| head` is gone."""
    reader, writer = os.pipe()
    os.close(reader)
    os.dup2(writer, 1)


def test_who_reads_a_part_of_the_list_sees_no_error():
    gone = drive("--list", fault=read_by_nobody)
    assert gone.stderr == "" and gone.returncode == -signal.SIGPIPE
