"""Faults from outside, done to processes of the driver: each costs one clear line and nothing else.

"Nothing else" is to the bit: `--resume` ends as a run does that nothing happened to. Who is killed,
stopped or sent a signal is a forked process, `fresh` ones are `python run_experiments.py`; who has
an error to tell, or goes on, may be the tests' own. A fault that the machine would not give at a
chosen moment is prepared in the process itself, before the driver's main begins: what fills the
disk, kills or raises then does so for real.
"""

import csv
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from bdb import BdbQuit
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.rollout import Collector, SerialEnvs
from baselines_tf2.ddpg.agent import DDPGAgent
from baselines_tf2.runs.checkpoint import Checkpoints
from baselines_tf2.runs.logger import CsvTable, Events
from envs import ConfigError, RobotEnsemble
from tests.forks import fork, here
from tests.toys import Corridor

ROOT = Path(__file__).parent.parent
PATIENCE = 300  # seconds after which a process counts as hanging

NETWORKS = [
    f"--set=agent.{name}_network.{field}"
    for name in ("actor", "critic")
    for field in ("num_hidden=8", "num_layers=1")
]
SMALL = [
    *NETWORKS, "--set=agent.critic_network.layer_norm=false", "--set=agent.nb_rollout_steps=50",
    "--set=train.nb_epoch_cycles=1", "--set=agent.nb_train_steps=1", "--set=agent.batch_size=16",
    "--set=train.random_steps=100", "--set=train.eval_episodes=1", "--checkpoint_every=100",
]  # fmt: skip
PENDULUM = [*SMALL, "--exp=ddpg_pendulum", "--eager", "--num_timesteps=1000",
            "--set=train.eval_interval=600"]  # fmt: skip


class Outcome(NamedTuple):
    """How a process ended, and what its user read."""

    status: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line that says what was wrong, which is the last one."""
        assert self.status == 1 and "Traceback" not in self.err, self
        *others, last = self.err.splitlines()
        assert last.startswith("error: ") and not any("error" in line for line in others), self
        return last

    def succeeded(self) -> "Outcome":
        assert self.status == 0 and "Traceback" not in self.err, self
        return self


class Run:
    """One process of the driver."""

    def __init__(self, output, flags, fault, fresh):
        self._output = output
        output.mkdir()
        if fresh:
            command = [sys.executable, "run_experiments.py", *flags]
            with open(output / "out", "w") as out, open(output / "err", "w") as err:
                self._process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err)
        else:
            self._process = fork(output, flags, fault)
        self._fresh = fresh

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def status(self) -> int | None:
        return self._process.poll() if self._fresh else self._process.exitcode

    def err(self) -> str:
        return (self._output / "err").read_text() if (self._output / "err").exists() else ""

    def until(self, condition) -> None:
        """Waits for what this process is to bring about."""
        for _ in self._patiently():
            if condition():
                return
            assert self.status() is None, self.outcome()

    def outcome(self) -> Outcome:
        """Waits for its end."""
        for _ in self._patiently():
            if self.status() is not None:
                break
        return Outcome(self.status(), (self._output / "out").read_text(), self.err())

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        assert self.outcome().status == -signal.SIGKILL

    def pause(self) -> None:
        """Returns once it stands still."""
        self.signal(signal.SIGSTOP)
        for _ in self._patiently():
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state in "TZX":
                return

    def end(self) -> None:
        if self.status() is None:
            self.signal(signal.SIGKILL)
            self.outcome()

    def _patiently(self):
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            yield
            time.sleep(0.0005)
        pytest.fail(f"hangs: {self.err()}")


class Driver:
    """Starts processes and sees to their end."""

    def __init__(self, folder: Path):
        self._folder, self._runs = folder, []

    def start(self, logdir, *flags, fault=None, fresh=False) -> Run:
        output = self._folder / f"output_{len(self._runs)}"
        self._runs.append(Run(output, arguments(logdir, flags), fault, fresh))
        return self._runs[-1]

    def run(self, *args, **kwargs) -> Outcome:
        return self.start(*args, **kwargs).outcome()

    def here(self, logdir, *flags, fault=None) -> Outcome:
        """The same in the tests' own process, whose faults end with it."""
        try:
            if fault is not None:
                fault()
            return Outcome(*here(arguments(logdir, flags)))
        finally:
            while REPLACED:
                setattr(*REPLACED.pop())

    def end(self) -> None:
        for run in self._runs:
            run.end()


def arguments(logdir, flags):
    named = "--exp" in " ".join(flags)
    return [*(() if named else PENDULUM), *flags, f"--logdir={logdir}"]


@pytest.fixture
def driver(tmp_path):
    driver = Driver(tmp_path)
    yield driver
    driver.end()


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("reference")
    Driver(folder).here(folder).succeeded()
    return run_of(folder)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The logdir of a run that was killed after step 800, its latest four checkpoints kept."""
    logdir = tmp_path_factory.mktemp("killed")
    fault = partial(dies_after, 800)
    outcome = Driver(logdir).run(logdir, "--keep_checkpoints=4", fault=fault)
    assert outcome.status == -signal.SIGKILL
    assert steps(run_of(logdir)) == [500, 600, 700, 800]
    return logdir


@pytest.fixture
def stopped(killed, tmp_path):
    """A copy of that logdir."""
    return shutil.copytree(killed, tmp_path / "stopped")


@pytest.fixture
def disk(tmp_path):
    """A file system of its own, of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    mounted = subprocess.run(command, check=False, capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting is not permitted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def run_of(logdir, exp="ddpg_pendulum", backend="classic"):
    return logdir / exp / backend / "seed_0"


def steps(folder):
    """Of the checkpoints."""
    paths = sorted((folder / "checkpoints").glob("step_*.json"))
    return [int(path.stem.removeprefix("step_")) for path in paths]


def go_back(folder):
    """Leaves the checkpoint at step 500 alone."""
    for path in (folder / "checkpoints").glob("step_*[678]00.json"):
        path.unlink()


def torn(folder):
    """Whether a checkpoint's file is being written."""
    return any((folder / "checkpoints").glob(".*.partial"))


def table(path):
    """The rows without the clock's columns."""
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: x for name, x in row.items() if not name.startswith("time/")} for row in rows]


def assert_same(folder, reference):
    """That both runs are finished and their results equal to the bit, and nothing else is left."""
    for name in ("metrics.csv", "eval.csv"):
        assert table(folder / name) == table(reference / name)
    weights, expected = (np.load(path / "weights.npz") for path in (folder, reference))
    assert weights.files == expected.files
    for name in expected.files:
        np.testing.assert_array_equal(weights[name], expected[name], err_msg=name)
    kinds = ("config.json", "curves.png", "eval.csv", "finished.json", "metrics.csv", "weights.npz")
    names = {path.name for path in folder.iterdir() if "tfevents" not in path.name}
    assert names == {".lock", *kinds}


def filled(rows):
    """Without the cells that are empty, of columns that come with a later row."""
    return [{name: x for name, x in row.items() if x} for row in rows]


def latest_row(folder):
    """Its step; 0 before the first one."""
    path = folder / "metrics.csv"
    text = path.read_text() if path.exists() else ""
    rows = text.split("\n")[1:-1]  # without one that is being written
    return int(rows[-1].split(",")[0]) if rows else 0


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# Faults, prepared in the process that is to suffer them ------------------------------------------


REPLACED = []  # owner, name and value of what is not as it was


def instead(owner, name, new):
    """Has new(original, self, ...) called for a method."""
    original = getattr(owner, name)
    REPLACED.append((owner, name, original))
    setattr(owner, name, lambda self, *args, **kwargs: new(original, self, *args, **kwargs))


def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def dies_after(step):
    """kill -9 once this step's cycle is over, its checkpoint written."""

    def after_cycle(original, self, now, *args):
        original(self, now, *args)
        if now == step:
            die()

    instead(Checkpoints, "after_cycle", after_cycle)


def dies_instead_of(owner, name):
    """kill -9 where this method would have been called."""
    instead(owner, name, die)


def dies_while_it_replaces():
    """kill -9 where the former run's checkpoints would have been removed."""
    instead(shutil, "rmtree", die)


WRITES = {
    "events": (Events, "add"),
    "checkpoint": (Checkpoints, "save"),
    "metrics.csv": (CsvTable, "append"),
    "weights.npz": (DDPGAgent, "save"),
}


def disk_fills(disk, what):
    """From the first checkpoint on the disk has next to no room whenever `what` is written."""
    owner, name = WRITES[what]

    def write(original, self, *args, **kwargs):
        other_table = owner is CsvTable and self.path.name != what
        if other_table or not list(disk.glob("**/step_*.json")):
            return original(self, *args, **kwargs)
        fill(disk, room=8192 if what in ("checkpoint", "weights.npz") else 0)
        result = original(self, *args, **kwargs)
        make_room(disk)
        return result

    instead(owner, name, write)


def fill(disk, room=0):
    with open(disk / "ballast", "wb", buffering=0) as file:
        free = os.statvfs(disk)
        file.write(bytes(free.f_bavail * free.f_frsize - room))


def make_room(disk):
    (disk / "ballast").unlink()


def environment_fails(how, call, at, training=True):
    """At the at-th call of the training or the evaluation environment's step or reset."""
    count = 0

    def failing(original, self, *args, **kwargs):
        nonlocal count
        result = original(self, *args, **kwargs)
        count += self._training == training
        if count != at or self._training != training:
            return result
        if how == "raises":
            raise RuntimeError("the bridge to the robot\nis down")
        obs, reward, *others = result
        return (obs * np.nan, reward, *others) if how == "nan" else (obs, np.nan, *others)

    instead(RobotEnsemble, call, failing)


def environment_hangs(at, sign):
    """For ever, in its at-th step; the file `sign` tells."""
    count = 0

    def step(original, self, action):
        nonlocal count
        count += 1
        if count == at:
            sign.touch()
            while True:
                time.sleep(1)
        return original(self, action)

    instead(RobotEnsemble, "step", step)


def without(folder, package):
    """The package cannot be imported."""
    (folder / f"{package}.py").write_text(f"raise ImportError('No module named {package}')\n")
    sys.path.insert(0, str(folder))


# kill -9 -----------------------------------------------------------------------------------------


def kill_within_a_checkpoint(run, folder):
    """Kills while a checkpoint's file is half there; False if the run ends before."""
    while run.status() is None:
        if torn(folder):
            run.pause()
            if run.status() is None and torn(folder):
                run.kill()
                assert torn(folder)
                return True
            run.signal(signal.SIGCONT)
        time.sleep(0.0001)
    return False


def test_a_run_that_is_killed_again_and_again_ends_with_the_same_bits(driver, tmp_path, reference):
    """Before it has begun, within a checkpoint, after one, in its last moments, just finished."""
    folder = run_of(tmp_path)
    folder.mkdir(parents=True)
    (folder / ".config.json.12345.partial").write_text("{")  # as of a kill within its writing
    assert kill_within_a_checkpoint(driver.start(tmp_path, "--resume"), folder)
    run, before = driver.start(tmp_path, "--resume"), steps(folder)
    run.until(lambda: steps(folder)[-1:] > before[-1:])
    run.kill()
    run = driver.start(tmp_path, "--resume")
    run.until((folder / "weights.npz").exists)
    run.kill()
    assert not (folder / "finished.json").exists()
    fault = partial(dies_instead_of, Checkpoints, "remove")
    assert driver.run(tmp_path, "--resume", fault=fault).status == -signal.SIGKILL
    assert steps(folder)
    assert "is finished" in driver.here(tmp_path, "--resume").succeeded().err
    assert_same(folder, reference)


def test_a_run_that_was_killed_while_it_was_replaced_is_not_finished(driver, stopped):
    (run_of(stopped) / "finished.json").write_text("{}")
    outcome = driver.run(stopped, "--overwrite", fault=dies_while_it_replaces)
    assert outcome.status == -signal.SIGKILL
    assert not (run_of(stopped) / "finished.json").exists()


@pytest.mark.slow
def test_twenty_kills_in_a_row_change_nothing(driver, tmp_path):
    flags = [*SMALL, "--exp=ddpg_pendulum", "--num_timesteps=4000",
             "--set=train.eval_interval=1000"]  # fmt: skip
    start = time.monotonic()
    driver.run(tmp_path / "reference", *flags, fresh=True).succeeded()
    seconds, moments = time.monotonic() - start, random.Random(time.time_ns())
    reference, kills, runs = run_of(tmp_path / "reference"), 0, 0
    while True:
        logdir = tmp_path / str(runs)
        run = driver.start(logdir, *flags, "--resume", fresh=True)
        if kills % 2 and kills < 20:
            kill_within_a_checkpoint(run, run_of(logdir))
        elif kills < 20:
            moment = time.monotonic() + moments.uniform(0, seconds)
            while run.status() is None and time.monotonic() < moment:
                time.sleep(0.001)
            if run.status() is None:
                run.signal(signal.SIGKILL)
        outcome = run.outcome()
        if outcome.status == -signal.SIGKILL:
            kills += 1
            continue
        outcome.succeeded()  # before its kill came, or after the last one
        assert_same(run_of(logdir), reference)
        runs += 1
        if kills == 20:
            return


# Signals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_that_is_stopped_saves_its_state_and_goes_on(driver, stopped, reference, fresh):
    folder, done = run_of(stopped), 500
    go_back(folder)
    for number in (signal.SIGINT, signal.SIGTERM):
        run = driver.start(stopped, "--resume", "--checkpoint_every=500", fresh=fresh)
        run.until(lambda run=run: "going on" in run.err())
        run.until(lambda done=done: latest_row(folder) > done)
        run.signal(number)
        outcome = run.outcome()
        step = int(re.search(r"interrupted at step (\d+): --resume goes on", outcome.error)[1])
        assert steps(folder)[-1] == step and done < step < 1000
        assert (folder / "weights.npz").exists()
        done = step
    outcome = driver.here(stopped, "--resume").succeeded()
    assert outcome.err == f"going on from step {done}\n"
    assert_same(folder, reference)


def test_a_second_signal_stops_at_once(driver, stopped, tmp_path, reference):
    sign = tmp_path / "hangs"
    run = driver.start(stopped, "--resume", fault=partial(environment_hangs, 130, sign))
    run.until(sign.exists)
    run.signal(signal.SIGINT)
    run.until(lambda: "once more stops at once" in run.err())
    run.signal(signal.SIGTERM)
    assert "interrupted: --resume goes on from the latest checkpoint" in run.outcome().error
    driver.here(stopped, "--resume").succeeded()
    assert_same(run_of(stopped), reference)


def test_two_signals_before_the_first_checkpoint_promise_none(driver, tmp_path):
    sign = tmp_path / "hangs"
    run = driver.start(
        tmp_path, "--checkpoint_every=1e3", fault=partial(environment_hangs, 230, sign)
    )
    run.until(sign.exists)
    run.signal(signal.SIGINT)
    run.until(lambda: "once more stops at once" in run.err())
    run.signal(signal.SIGINT)
    assert "interrupted before the first checkpoint" in run.outcome().error
    assert "--overwrite" in driver.here(tmp_path, "--resume").error


def test_a_signal_while_tensorflow_loads_shows_no_traceback(driver, tmp_path):
    run = driver.start(tmp_path / "runs", fresh=True)
    maps = Path(f"/proc/{run.pid}/maps")
    run.until(lambda: "libtensorflow" in maps.read_text())
    run.signal(signal.SIGINT)
    outcome = run.outcome()
    assert outcome.status != 0 and "Traceback" not in outcome.err
    assert not (tmp_path / "runs").exists()


# Damage ------------------------------------------------------------------------------------------


def truncate(path):
    os.truncate(path, path.stat().st_size // 2)


def empty(path):
    os.truncate(path, 0)


def flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_damaged_checkpoints_give_way_to_the_one_before(driver, stopped, reference):
    folder = run_of(stopped)
    for step, damage in ((800, truncate), (700, flip_a_bit), (600, empty)):
        damage(folder / "checkpoints" / f"step_{step:012d}.npz")
    outcome = driver.here(stopped, "--resume").succeeded()
    *warnings, going_on = outcome.err.splitlines()
    for step, warning in zip((800, 700, 600), warnings, strict=True):
        name = f"step_{step:012d}"
        assert warning.startswith(f"warning: checkpoint {name} is damaged, trying the one before: ")
        assert f"{name}.npz is not as it was written" in warning
    assert going_on == "going on from step 500"
    assert_same(folder, reference)


@pytest.mark.slow
@pytest.mark.parametrize("damage", [truncate, flip_a_bit, empty, Path.unlink])
@pytest.mark.parametrize("name", ["step_*800.json", "step_*800.npz", "replay_*800.npz"])
def test_any_damaged_file_is_named(driver, stopped, reference, damage, name):
    folder = run_of(stopped)
    (path,) = (folder / "checkpoints").glob(name)
    damage(path)
    *warnings, going_on = driver.here(stopped, "--resume").succeeded().err.splitlines()
    manifest_is_gone = damage is Path.unlink and path.suffix == ".json"
    assert len(warnings) == (0 if manifest_is_gone else 1)
    assert all("step_000000000800 is damaged" in x and path.name in x for x in warnings)
    assert going_on == "going on from step 700"
    assert_same(folder, reference)


def test_without_a_sound_checkpoint_nothing_is_touched(driver, stopped):
    folder = run_of(stopped)
    for path in (folder / "checkpoints").glob("step_*.npz"):
        flip_a_bit(path)
    (folder / "weights.npz").write_text("of an earlier stop")
    before = digests(folder)
    outcome = driver.here(stopped, "--resume")
    assert "is sound: start again with --overwrite" in outcome.error
    assert outcome.err.count("warning: ") == 4
    after = {path: x for path, x in digests(folder).items() if "tfevents" not in path.name}
    assert after.items() <= before.items() and len(after) == len(before) - 1


def test_a_damaged_table_is_named(driver, stopped):
    path = run_of(stopped) / "metrics.csv"
    path.write_bytes(b"\xff\xfe" + path.read_bytes())
    before = path.read_bytes()
    assert "metrics.csv" in driver.here(stopped, "--resume").error
    assert path.read_bytes() == before


# The disk ----------------------------------------------------------------------------------------


def test_a_full_disk_loses_nothing(driver, disk, stopped, reference):
    folder = run_of(disk)
    for what in (None, *WRITES, None):  # None: already full at the start
        before = steps(folder)
        if what is None:
            fill(disk)
        outcome = driver.here(disk, "--resume", fault=what and partial(disk_fills, disk, what))
        assert outcome.error.startswith("error: No space left on device"), what
        assert "make room; --resume then goes on" in outcome.error
        make_room(disk)
        assert steps(folder) >= before and not torn(folder)
        for events in folder.glob("events.*"):
            list(tf.data.TFRecordDataset(str(events)))  # raises at half a record
        if not before:
            shutil.copytree(stopped, disk, dirs_exist_ok=True)
            go_back(folder)
    assert before[-1] >= 900
    outcome = driver.here(disk, "--resume").succeeded()
    assert outcome.err == f"going on from step {before[-1]:,}\n"
    assert_same(folder, reference)


def test_a_kill_at_resume_loses_nothing(driver, stopped, reference):
    outcome = driver.run(stopped, "--resume", fault=partial(dies_instead_of, CsvTable, "_write"))
    assert outcome.status == -signal.SIGKILL
    driver.here(stopped, "--resume").succeeded()
    assert_same(run_of(stopped), reference)


def test_a_read_only_disk_is_one_line(driver, disk, stopped):
    logdir = shutil.copytree(stopped, disk / "runs")
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    before = digests(disk)
    for flags in ([disk / "new"], [logdir, "--resume"]):
        error = driver.here(*flags).error
        assert "Read-only file system" in error and "choose another folder" in error
    assert digests(disk) == before


@pytest.mark.parametrize("logdir", ["file", "file/in/the/way", "/proc/no"])
def test_a_folder_that_cannot_be_is_one_line(driver, tmp_path, logdir):
    (tmp_path / "file").write_text("mine")
    error = driver.here(tmp_path / logdir).error
    assert logdir.split("/")[0] in error and "choose another folder" in error
    assert (tmp_path / "file").read_text() == "mine"


# Another run, another machine --------------------------------------------------------------------


def test_a_changed_config_is_refused_with_the_names_that_differ(driver, stopped):
    before = digests(stopped)
    changes = ["--set=agent.gamma=0.5", "--set=agent.tau=0.2", "--num_timesteps=2000"]
    flags = [flag for flag in PENDULUM if "num_timesteps" not in flag]
    error = driver.here(stopped, "--resume", *flags, *changes).error
    assert "agent.gamma was 0.99 and is 0.5" in error
    assert "agent.tau was 0.01 and is 0.2" in error
    assert "train.num_timesteps was 1000 and is 2000" in error
    assert error.count(" was ") == 3
    assert digests(stopped) == before


def test_a_run_without_its_config_is_refused(driver, stopped):
    (run_of(stopped) / "config.json").unlink()
    before = digests(stopped)
    assert "config.json" in driver.here(stopped, "--resume").error
    assert digests(stopped) == before


def test_a_backend_that_is_gone_at_resume_costs_nothing(driver, tmp_path):
    flags = [*SMALL, "--exp=ddpg_cheetah", "--eager", "--num_timesteps=300"]
    folder = run_of(tmp_path, "ddpg_cheetah", "mujoco")
    outcome = driver.run(tmp_path, *flags, fault=partial(dies_after, 200))
    assert outcome.status == -signal.SIGKILL
    before = digests(folder)
    (tmp_path / "packages").mkdir()
    gone = partial(without, tmp_path / "packages", "mujoco")
    error = driver.run(tmp_path, *flags, "--resume", fault=gone).error
    assert "mujoco is not installed" in error and "pip install 'gymnasium[mujoco]'" in error
    assert digests(folder) == before
    outcome = driver.here(tmp_path, *flags, "--resume").succeeded()
    assert outcome.err == "going on from step 200\n"
    assert table(folder / "metrics.csv")[-1]["step"] == "300"


def test_a_second_process_on_a_run_is_refused(driver, stopped, reference):
    folder = run_of(stopped)
    first = driver.start(stopped, "--resume")
    first.until(lambda: "going on" in first.err())
    first.pause()
    before = digests(folder)
    for flag in ("--resume", "--overwrite"):
        assert f"another process is running in {folder}" in driver.here(stopped, flag).error
    assert digests(folder) == before
    first.signal(signal.SIGCONT)
    first.outcome().succeeded()
    assert_same(folder, reference)


# What the environment and the learner do ---------------------------------------------------------

RAISED = "RuntimeError: the bridge to the robot is down (test_faults.py, line "
FAULTS = [  # one run's, from its start on; each is resumed with the next one
    (("raises", "step", 230), RAISED, 229),
    (("nan", "step", 130), "the environment's observation is nan", 329),
    (("nan reward", "step", 130), "the environment's reward is nan", 429),
    (("raises", "reset", 2), RAISED, 600),
    (("raises", "step", 100, False), RAISED, 600),
    (("raises", "reset", 1, False), RAISED, 600),
    (("nan reward", "step", 100, False), "episode of 200 steps returned nan", 600),
]


def test_a_failing_environment_is_named_and_costs_nothing(driver, tmp_path, reference):
    folder, whole = run_of(tmp_path), table(reference / "metrics.csv")
    for fault, text, step in FAULTS:
        outcome = driver.here(tmp_path, "--resume", fault=partial(environment_fails, *fault))
        assert text in outcome.error
        assert f" at step {step}: training stops, and what was logged is kept" in outcome.error
        assert ("evaluation" in outcome.error) == (len(fault) > 3)
        if text is RAISED:
            assert f"error: robots/pendulum-classic-v0's {fault[1]} raised" in outcome.error
        last = (step - 1) // 50  # rows before the one of this step
        assert filled(table(folder / "metrics.csv")) == filled(whole[:last])
        assert steps(folder)[-1] == 100 * ((step - 1) // 100)
    driver.here(tmp_path, "--resume").succeeded()
    assert_same(folder, reference)


def test_a_first_reset_that_fails_is_one_line(driver, tmp_path):
    outcome = driver.here(tmp_path, fault=partial(environment_fails, "raises", "reset", 1))
    assert "RuntimeError: the bridge to the robot is down" in outcome.error
    assert outcome.err.count("\n") == 1


class Raising(Corridor):
    """Its third step raises what it was given."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def step(self, action):
        if self.time == 2:
            raise self.error
        return super().step(action)


def test_from_python_an_environments_own_error_is_the_cause():
    def collect(error):
        envs = SerialEnvs([Raising(error)])
        Collector(envs, [], np.random.default_rng(0), seed=0).collect(None, 5)

    cause = ZeroDivisionError("float division by zero")
    with pytest.raises(TrainingError, match="Raising's step raised ZeroDivisionError") as raised:
        collect(cause)
    assert raised.value.__cause__ is cause
    for passing in (ConfigError("mine"), MemoryError(), BdbQuit(), KeyboardInterrupt()):
        with pytest.raises(type(passing)) as raised:
            collect(passing)
        assert raised.value is passing


def test_a_learner_that_diverges_does_so_again_and_keeps_its_log(driver, tmp_path):
    flags = ["--set=agent.critic_optimizer=sgd", "--set=agent.critic_lr=1e30"]
    outcomes = [driver.here(tmp_path, *PENDULUM, *flags, "--checkpoint_every=50")]
    folder = run_of(tmp_path)
    rows, left = table(folder / "metrics.csv"), steps(folder)
    # The first update, at step 150, finds finite weights; what was logged before the second stays.
    assert [row["step"] for row in rows] == ["50", "100", "150"] and left
    outcomes.append(driver.here(tmp_path, *PENDULUM, *flags, "--resume", "--checkpoint_every=50"))
    assert re.match(
        r"error: learning diverged .*: train/\w+ is (nan|inf) at step \d+: ", outcomes[0].error
    )
    assert outcomes[0].err == f"{outcomes[0].error}\n"
    assert outcomes[1].err == f"going on from step {left[-1]}\n{outcomes[0].error}\n"
    assert (table(folder / "metrics.csv"), steps(folder)) == (rows, left)
    assert not (folder / "finished.json").exists()
    failed = json.loads((folder / "failed.json").read_text())["error"]
    assert outcomes[0].error == f"error: {failed}"
    config = json.loads((folder / "config.json").read_text())
    assert config["settings"]["agent"]["critic_lr"] == 1e30
