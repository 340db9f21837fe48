"""Many runs at once: which a sweep consists of, which are left to do, and the doing of them."""

import hashlib
import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import tensorflow as tf

from baselines_tf2.common.errors import Interrupted, TrainingError
from baselines_tf2.runs.experiment import Chosen
from baselines_tf2.runs.folder import finished_summary, is_left, start_anew
from baselines_tf2.sweeps.launch import launch
from envs.errors import ConfigError

MAX_SEED = 2**31 - 1
MAX_SEEDS = 10_000  # of a sweep; its runs are planned in memory
MAX_NAME = 150  # characters of a folder; file systems take 255
Runs = Mapping[str, Chosen]  # by what tells a run from the others


def parse_seeds(text: str) -> list[int]:
    """Reads "0-9" or "0,3,5-7"; ConfigError for what is no seed, or is named twice."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match:
            raise ConfigError(f"cannot read seeds '{text}': write --seeds=0-9 or --seeds=0,3,5-7")
        low, high = int(match[1]), int(match[2] or match[1])
        if not low <= high <= MAX_SEED:
            raise ConfigError(f"seeds {part.strip()} must rise, and end at {MAX_SEED} at most")
        if high - low >= MAX_SEEDS:
            raise ConfigError(f"seeds {part.strip()} are more than {MAX_SEEDS:,}: name fewer")
        seeds += range(low, high + 1)
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds '{text}' name one twice: leave it out")
    return seeds


def variants(overrides: Sequence[str]) -> list[tuple[str, tuple[str, ...]]]:
    """Every combination of the values of settings that are given more than once.

    overrides: "path.to.field=value" each. Returns the name of each one's folder, which is what
    tells it from the others ("" of the only one), and its overrides. Raises ConfigError where a
    value is given twice.
    """
    values: dict[str, list[str]] = defaultdict(list)
    for text in overrides:
        given = values[text.partition("=")[0]]
        if text in given:
            raise ConfigError(f"override '{text}' is given twice: leave one out")
        given.append(text)
    fixed = {given[0] for given in values.values() if len(given) == 1}
    every = itertools.product(*values.values())
    return [(folder_name([x for x in texts if x not in fixed]), texts) for texts in every]


def folder_name(overrides: Sequence[str]) -> str:
    """The texts as the name of a folder."""
    text = ",".join(overrides)
    name = re.sub(r"[^\w.=,+-]", "_", text)
    if len(name) <= MAX_NAME:
        return name
    return f"{name[:MAX_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def command_line(run: Chosen, more: Sequence[str] = ()) -> list[str]:
    """The flags that go on with a run; more: those that its config.json has not."""
    values = {**run.flags, "logdir": run.folder.parents[2]}  # of exp, backend and seed
    texts = [f"--set={text}" for text in values.pop("set")]
    return [*(f"--{flag}={value}" for flag, value in values.items()), "--resume", *texts, *more]


def left_to_do(runs: Runs) -> tuple[Runs, dict[str, str]]:
    """The runs that are not finished, and {name: error} of those that nothing can be done for.

    Raises ConfigError if a folder holds another run.
    """
    left, failed = {}, {}
    for name, run in runs.items():
        try:
            if is_left(run):
                left[name] = run
        except TrainingError as error:
            failed[name] = str(error)
    return left, failed


def do_sweep(
    runs: Runs, entry: str, more: Sequence[str], *, overwrite: bool, video: bool = False, **where
) -> None:
    """Does the runs that are left, or all anew, and prints what came of each.

    more: flags of all of them. video: whether they record. entry, where: as `launch` takes them.
    Raises TrainingError if a run failed, and ConfigError.
    """
    left, failed = (runs, {}) if overwrite else left_to_do(runs)
    here = where.get("address") is None  # a cluster draws elsewhere
    check_prepared(left.values(), video=video and here)
    if finished := len(runs) - len(left) - len(failed):
        print(f"finished before: {finished} of {len(runs)}")

    def empty_folders():  # once nothing that is asked for can be refused any more
        for run in runs.values() if overwrite else ():
            start_anew(run)

    failed |= launch_runs(left, entry, overwrite, more, before=empty_folders, **where)
    for name, run in runs.items():
        if name not in failed:
            print(f"{name}: {next(iter(finished_summary(run.folder).values()))}  {run.folder}")
    errors = {name: f"{failed[name]}  {run.folder}" for name, run in runs.items() if name in failed}
    check_failed(errors, len(runs))


def check_prepared(runs: Iterable[Chosen], *, video: bool = False) -> None:
    """ConfigError for what the runs would refuse as they begin, before a folder is emptied."""
    with suppress(RuntimeError):  # of a process in which TensorFlow has begun
        tf.config.set_visible_devices([], "GPU")  # whose memory is the runs'
    for run in {(run.experiment.name, run.settings): run for run in runs}.values():
        run.experiment.prepared(run.settings, run.flags["seed"], video=video)


def check_apart(runs: Iterable[Chosen]) -> None:
    """ConfigError if two runs would have the same folder."""
    for folder, count in Counter(run.folder for run in runs).items():
        if count > 1:
            raise ConfigError(f"two runs would share {folder}: sweep them one by one")


def launch_runs(
    runs: Runs, entry: str, overwrite: bool, more: Sequence[str] = (), **options
) -> dict[str, str]:
    """{name: error} of those that failed; options: as `launch` takes them."""
    if not runs:
        return {}
    try:
        return launch({x: command_line(run, more) for x, run in runs.items()}, entry, **options)
    except KeyboardInterrupt:
        same = "the same command, without --overwrite," if overwrite else "the same command"
        raise Interrupted(f"interrupted: {same} goes on with the sweep") from None


def check_failed(errors: Mapping[str, str], count: int) -> None:
    """TrainingError with a line for each run that failed."""
    if errors:
        text = "".join(f"\n  {name}: {error}" for name, error in errors.items())
        raise TrainingError(f"{len(errors)} of {count} runs failed:{text}")
