"""Many runs at once: those that are left of a sweep or of a study."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from baselines_tf2.common.errors import Interrupted, TrainingError
from baselines_tf2.runs.experiment import Experiment
from baselines_tf2.runs.folder import finished_summary
from baselines_tf2.sweeps.launch import Task, launch
from baselines_tf2.sweeps.plan import PlannedRun, check_apart, left_to_do, start_anew
from baselines_tf2.sweeps.study import Study, plan
from baselines_tf2.sweeps.study_outcomes import judge
from baselines_tf2.sweeps.study_page import write_page
from baselines_tf2.sweeps.study_store import Store
from envs.errors import ConfigError

RUNS_PER_PROCESS = 20  # of a study: loading the libraries takes as long as a tenth of a short run


def do_sweep(runs: Sequence[PlannedRun], entry: str, *, overwrite: bool, **where) -> None:
    """Does the runs that are left, or all anew, and prints what came of each.

    entry, where: as `launch` takes them. Raises TrainingError if a run failed, and ConfigError.
    """
    check_apart(runs)
    left, failed = (runs, {}) if overwrite else left_to_do(runs)
    if finished := len(runs) - len(left) - len(failed):
        print(f"finished before: {finished} of {len(runs)}")

    def empty_folders():  # once nothing that is asked for can be refused any more
        for run in runs if overwrite else ():
            start_anew(run)

    failed |= _launch(left, entry, overwrite, before=empty_folders, **where)
    for run in runs:
        if run.name not in failed:
            result = next(iter(finished_summary(run.folder).values()))
            print(f"{run.name}: {result}  {run.folder}")
    lines = [f"{run.name}: {failed[run.name]}  {run.folder}" for run in runs if run.name in failed]
    _check_failed(lines, len(runs))


def do_study(
    study: Study,
    experiments: Mapping[str, Experiment],
    entry: str,
    *,
    logdir: str,
    parts: Sequence[str],
    collect: bool,
    overwrite: bool,
    **where,
) -> None:
    """Does a study's runs that are left, takes their numbers in, and writes its page.

    collect: starts none. entry, where: as `launch` takes them. Raises TrainingError if a run could
    not be done, and ConfigError. That a run failed is a result.
    """
    runs = plan(study, experiments, logdir, parts)
    check_apart([run.planned for run in runs])
    store = Store(study, partial(judge, experiments))
    left = store.collect(runs, overwrite=overwrite)
    print(f"done before: {len(runs) - len(left)} of {len(runs)}", flush=True)

    def take_in():
        try:
            store.collect(runs)
        except (ConfigError, OSError) as error:  # no reason to stop the runs
            print(f"warning: {error}", flush=True)

    planned = [] if collect else [run.planned for run in left]
    options = {"calls": RUNS_PER_PROCESS, "after": take_in}
    errors = _launch(planned, entry, overwrite, **options, **where)
    print(write_page(store, Path(logdir) / study.name))
    undone = {run.planned.name for run in store.collect(runs)}
    lines = [f"{name}: {error}" for name, error in errors.items() if name in undone]
    _check_failed(lines, len(planned))


def _launch(runs: Sequence[PlannedRun], entry: str, overwrite: bool, **options) -> dict[str, str]:
    """The errors of those that failed."""
    if not runs:
        return {}
    try:
        return launch([Task(run.name, run.arguments) for run in runs], entry, **options)
    except KeyboardInterrupt:
        same = "the same command, without --overwrite," if overwrite else "the same command"
        raise Interrupted(f"interrupted: {same} goes on with the sweep") from None


def _check_failed(lines: Sequence[str], count: int) -> None:
    if lines:
        text = "\n".join(f"  {line}" for line in lines)
        raise TrainingError(f"{len(lines)} of {count} runs failed:\n{text}")
