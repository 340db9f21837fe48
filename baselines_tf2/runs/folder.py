"""One run and its folder: whose it is, what it holds, and all of the run in it."""

import bdb
import dataclasses
import json
import platform
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from baselines_tf2.common.errors import Interrupted, TrainingError
from baselines_tf2.common.files import read_json, remove_partial_files, write_json
from baselines_tf2.common.threads import threads
from baselines_tf2.runs.checkpoint import Checkpoints
from baselines_tf2.runs.experiment import MOVED, Chosen, Progress, RunFunction, defaults, flatten
from envs.errors import ConfigError

PACKAGES = (
    "tensorflow", "keras", "numpy", "scipy", "gymnasium", "mujoco", "pybullet",
    "pybullet_envs_gymnasium", "tensorflow-probability",
)  # fmt: skip
# Files of a run folder.
CONFIG, FINISHED, LOCK, WEIGHTS = "config.json", "finished.json", ".lock", "weights.npz"
FAILURE, VIDEOS = "failed.json", "videos"
LOGGED = ("metrics.csv", "eval.csv", "events.out.tfevents.*")  # while it runs
# How the names begin of what --mode=evaluate leaves; of weights that change when the run goes on.
SWEEP = "sweep"
# Of config.json: `set` and `preset` are in the settings.
NOT_COMPARED = ("set", "preset")
MAX_SHOWN = 4  # differences that a message lists


def do_run(
    chosen: Chosen,
    progress: Progress,
    checkpoints: Checkpoints,
    *,
    overwrite: bool = False,
    resume: bool = False,
    video: bool = False,
    patience: float = 0.0,
) -> dict[str, str]:
    """Does a run, or what is left of it; returns its summary, {name: text}.

    patience: seconds to wait for another process to leave the folder. Raises ConfigError,
    TrainingError, Interrupted and OSError.
    """
    if overwrite and resume:
        raise ConfigError("--overwrite starts anew and --resume goes on: leave one out")
    experiment, folder, flags, settings = chosen
    run = experiment.prepared(settings, flags["seed"], video=video)
    with locked(folder, patience=patience):
        for text in open_folder(folder, flags, settings, overwrite=overwrite, resume=resume):
            progress.tell(f"warning: {text}")
        if is_finished(folder) and finished_summary(folder):
            progress.tell(f"{folder} is finished: nothing is left to do")
        progress.start(settings.train.num_timesteps)
        try:
            return carry_out(run, folder, progress, checkpoints) | {"folder": str(folder)}
        except Interrupted:
            raise
        except (KeyboardInterrupt, bdb.BdbQuit):
            how = " before the first checkpoint: what was logged is kept, --overwrite starts anew"
            if checkpoints.exist():
                how = ": --resume goes on from the latest checkpoint"
            raise Interrupted(f"interrupted{how}") from None


@contextmanager
def locked(folder: Path, *, patience: float = 0.0) -> Iterator[None]:
    """Makes the folder, and keeps other processes from running in it until this one ends.

    Raises ConfigError if another one still is after `patience` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder / LOCK, timeout=patience, poll_interval=0.5).acquire()
    except Timeout:
        raise ConfigError(
            f"another process is running in {folder}, or judges its run: wait for its end, or choose "
            "another folder"
        ) from None
    with lock:
        yield


def open_folder(
    folder: Path, run: Mapping[str, Any], settings: Any, *, overwrite: bool, resume: bool
) -> list[str]:
    """Makes a locked folder ready for a run: new, or with `resume` one to go on with.

    run: the flags that go into its config.json; of `overwrite` and `resume` at most one is true.
    Returns warnings. Raises ConfigError if the folder holds a run and neither is said, or another
    run than this one.
    """
    remove_partial_files(folder)
    holds_run = any(path.name != LOCK for path in folder.iterdir())
    if holds_run and resume:
        return check_config(folder, run, settings)
    if holds_run and not overwrite:
        raise ConfigError(f"{folder} already holds {_what_it_holds(folder)}")
    (folder / FINISHED).unlink(missing_ok=True)  # first: what is left by a kill is not finished
    remove([path for path in folder.iterdir() if path.name != LOCK])
    write_config(folder, run, settings)
    return []


def _what_it_holds(folder: Path) -> str:
    """The state of the run in it, and what may be done about it."""
    cure = "--overwrite to replace it"
    if is_finished(folder):
        state = "a finished run"
    elif (error := failure(folder)) is not None:
        state, cure = f"a run that failed ({error})", _again(folder)
    elif (folder / WEIGHTS).exists() and not Checkpoints(folder).exist():
        state = "a run that was stopped before its first checkpoint"
    else:
        state, cure = "a run", f"--resume to go on with it, {cure}"
    return f"{state}: add {cure}, or choose another --seed or --logdir"


def _again(folder: Path) -> str:
    if Checkpoints(folder).exist():
        return "--resume to try again from its latest checkpoint, --overwrite to start anew"
    return "--overwrite to start anew"


def is_finished(folder: Path) -> bool:
    """Whether the run in it came to its end."""
    return (folder / FINISHED).exists()


def finished_summary(folder: Path) -> dict[str, str]:
    """What a finished run said in the end; ConfigError if that is damaged."""
    try:
        summary = read_json(folder / FINISHED)
    except ConfigError:
        summary = None
    if not isinstance(summary, dict) or not summary:
        raise ConfigError(
            f"{folder / FINISHED} is damaged: use the run's tables and weights as they are, or "
            "start it again with --overwrite"
        )
    return summary


def failure(folder: Path) -> str | None:
    """What stopped the run at its latest start, other than the user or the machine."""
    if not (folder / FAILURE).exists():
        return None
    try:
        return str(read_json(folder / FAILURE)["error"])
    except (ConfigError, KeyError, TypeError):
        return f"{FAILURE} does not say why"


def is_left(run: Chosen) -> bool:
    """Whether anything is left to do of a run, whose folder may not be there yet.

    Raises TrainingError if nothing can be done: it failed at its latest start, which it would do
    again, or its files are damaged. Raises ConfigError if the folder holds another run.
    """
    folder, finished = run.folder, is_finished(run.folder)
    exists = (folder / CONFIG).exists()
    try:
        if exists:
            read_config(folder)
        if finished:
            finished_summary(folder)
    except ConfigError as damage:
        raise TrainingError(f"{damage}, alone") from None
    if exists:
        check_config(folder, run.flags, run.settings)
    if (error := failure(folder)) is not None:
        raise TrainingError(f"failed before: {error} (alone, add {_again(folder)})")
    return not finished


def start_anew(run: Chosen) -> None:
    """Empties the folder of a run."""
    with locked(run.folder):
        open_folder(run.folder, run.flags, run.settings, overwrite=True, resume=False)


def remove(paths: Iterable[Path]) -> None:
    """Removes files, links and whole folders, and nothing that a link leads to."""
    for path in paths:
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def carry_out(
    run: RunFunction, folder: Path, progress: Progress, checkpoints: Checkpoints
) -> dict[str, str]:
    """The summary of a run that is finished; any other one goes on, or starts, and ends.

    A finished run keeps no checkpoints. Of one that fails `failure` tells why.
    """
    if is_finished(folder):
        summary = finished_summary(folder)
        checkpoints.remove()  # those of a run that was killed when it had just finished
        return summary
    remove_partial_files(folder)
    remove(folder.glob(f"{VIDEOS}/.video-*"))
    if not checkpoints.exist():
        _remove_what_was_logged(folder, checkpoints)
    remove(folder.glob(f"{SWEEP}[._]*"))  # what `--mode=evaluate` left
    before = failure(folder)
    (folder / FAILURE).unlink(missing_ok=True)
    try:
        summary = run(folder, progress, checkpoints)
    except (TrainingError, ConfigError) as error:
        # Refused, as where no checkpoint is sound, it has not begun: it failed as before, if so.
        why = str(error) if isinstance(error, TrainingError) else before
        if why is not None:
            with suppress(OSError):  # what stopped the run matters more
                write_json(folder / FAILURE, {"error": why})
        raise
    write_json(folder / FINISHED, summary)
    checkpoints.remove()
    return summary


def _remove_what_was_logged(folder, checkpoints):
    """It will be logged again: the run died before its first checkpoint."""
    if (folder / WEIGHTS).exists():
        why = f", since its run failed ({error})" if (error := failure(folder)) else ""
        raise ConfigError(
            f"{folder} holds weights and no checkpoint to go on from{why}: keep it as it is, or "
            "start again with --overwrite"
        )
    logged = [path for name in LOGGED for path in folder.glob(name)]
    if logged:
        checkpoints.tell(f"{folder} has no checkpoint yet: it starts from the beginning")
    remove(logged)


def write_config(folder: Path, run: Mapping[str, Any], settings: Any) -> None:
    """Writes config.json: the run's flags, all settings, the versions and threads that ran them."""
    write_json(folder / CONFIG, _config(run, settings))


def _config(run, settings):
    versions = {"python": platform.python_version(), "platform": platform.platform()}
    versions |= threads() | {"commit": _commit()}
    for package in PACKAGES:
        versions[package] = "not installed"
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {**run, "settings": dataclasses.asdict(settings), "versions": versions}


def read_config(folder: Path) -> Any:
    """What config.json holds, each setting where it is now.

    Raises ConfigError, with a cure, if it is missing or damaged.
    """
    try:
        config = read_json(folder / CONFIG)
    except ConfigError as error:
        raise ConfigError(f"{error}: put it back, or start again with --overwrite") from None
    with suppress(KeyError, TypeError, AttributeError):  # no agent's, or damaged: readers say so
        for old, new in MOVED.items():
            (group, name), (new_group, new_name) = old.split("."), new.split(".")
            if name in config["settings"][group]:
                config["settings"][new_group][new_name] = config["settings"][group].pop(name)
    return config


def check_config(folder: Path, run: Mapping[str, Any], settings: Any) -> list[str]:
    """Compares with config.json; returns warnings: versions and threads that differ.

    A setting that config.json lacks was as its class has it. Raises ConfigError, naming each flag
    and setting that differs.
    """
    usual, now = json.loads(json.dumps([defaults(settings), _config(run, settings)]))  # no tuples
    saved = {f"settings.{name}": value for name, value in usual.items()}
    saved, now = saved | flatten(read_config(folder)), flatten(now)
    warnings, errors = [], []
    for name in dict.fromkeys((*saved, *now)):
        if saved.get(name) == now.get(name) or name in NOT_COMPARED:
            continue
        text = f"{name.removeprefix('settings.')} was {saved.get(name)} and is {now.get(name)}"
        if name.startswith("versions."):
            warnings.append(f"{text}: what follows may differ in the last bits")
        else:
            errors.append(text)
    if errors:
        more = [f"and {len(errors) - MAX_SHOWN} more"] if len(errors) > MAX_SHOWN else []
        shown = "; ".join(errors[:MAX_SHOWN] + more)
        which = "another run, finished" if is_finished(folder) else "another run"
        raise ConfigError(
            f"{folder} holds {which}, to be resumed as it was: {shown}; give it the same flags, "
            "or choose another --seed or --logdir"
        )
    return warnings


@cache
def _commit() -> str:
    """Of the code that runs, with a plus if it was changed since; "" where Git does not know it."""

    def git(*words):
        command = ["git", "-C", str(Path(__file__).parent), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with suppress(OSError, subprocess.CalledProcessError):
        git("ls-files", "--error-unmatch", Path(__file__).name)  # refuses an installed copy
        return git("rev-parse", "--short=12", "HEAD") + "+" * bool(git("diff", "HEAD", ":/*.py"))
    return ""
