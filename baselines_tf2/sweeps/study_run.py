"""A study's runs: all that are left, or a few tiny ones to try it out."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import gymnasium as gym

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.runs.checkpoint import Checkpoints
from baselines_tf2.runs.experiment import Experiment, Progress, flatten, make_settings
from baselines_tf2.runs.folder import do_run
from baselines_tf2.sweeps.study import Study, StudyRun, plan
from baselines_tf2.sweeps.study_outcomes import judge
from baselines_tf2.sweeps.study_page import write_page
from baselines_tf2.sweeps.study_store import Store
from baselines_tf2.sweeps.sweep import check_apart, check_failed, check_prepared, launch_runs
from envs.errors import ConfigError

RUNS_PER_PROCESS = 20  # loading the libraries takes as long as a tenth of a short run
# Of a study that is tried out.
EPISODE = 13  # [steps] of the robots
# Of the settings that a run has, and has not at 0.
TINY = {
    "train.num_timesteps": 40, "train.eval_interval": 40, "train.eval_episodes": 1,
    "train.adapt_every": 30,
    "train.random_steps": 39, "agent.batch_size": 8, "agent.replay_size": 100,
    "agent.nb_rollout_steps": 2, "agent.nb_train_steps": 1, "train.nb_epoch_cycles": 20,
    "agent.cycle_steps": 1, "agent.hidden_dim": 4,
    **{f"agent.{name}_network.{size}": x for name in ("actor", "critic")
       for size, x in {"num_layers": 1, "num_hidden": 8}.items()},
}  # fmt: skip
SELECTION = {"train.epopt_trajectories": 2, "train.epopt_epsilon": 0.5}


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
    check_apart(run.planned for run in runs)
    store = Store(study, partial(judge, experiments))
    anew = store.others(runs) if overwrite else []
    check_prepared(run.planned for run in anew)
    left = store.collect(runs, but=anew)
    print(f"done before: {len(runs) - len(left)} of {len(runs)}", flush=True)

    def take_in():
        try:
            store.collect(runs)
        except (ConfigError, OSError) as error:  # no reason to stop the runs
            print(f"warning: {error}", flush=True)

    planned = {} if collect else {run.name: run.planned for run in left}
    # What is to be done anew goes once nothing that is asked for can be refused any more.
    drop = partial(store.drop, anew)
    errors = launch_runs(
        planned, entry, overwrite, calls=RUNS_PER_PROCESS, before=drop, after=take_in, **where
    )
    print(write_page(store, Path(logdir) / study.name))
    undone = {run.name for run in store.collect(runs)}
    check_failed({name: error for name, error in errors.items() if name in undone}, len(planned))


def smoke(study: Study, experiments: Mapping[str, Experiment], parts: Sequence[str] = ()) -> str:
    """Plans everything, runs every arm and every level once, writes tables and page.

    Nothing goes beside the study's file. Returns what to tell the user. Raises ConfigError for
    settings that cannot be. TensorFlow should run eagerly: compiling takes longer than the runs.
    """
    plan(study, experiments, "", parts)  # so that errors name its own file, and leave no folder
    folder = Path(tempfile.mkdtemp(prefix="study_"))
    tried = replace(study, path=folder / study.path.name, parts={
        name: replace(part, seeds=part.seeds[:1]) for name, part in study.parts.items()
    })  # fmt: skip
    few = _few(tried, plan(tried, experiments, str(folder), parts))
    store = Store(tried, partial(judge, experiments))
    with _short_episodes():
        runs = [_tiny(run) for run in few]
        for run in runs:
            with suppress(TrainingError):  # it counts, as in the study
                do_run(run.planned, Progress(), Checkpoints(run.planned.folder, every=10**9))
        store.collect(runs)
    return write_page(store, folder)


def _few(study: Study, runs: Sequence[StudyRun]) -> list[StudyRun]:
    """As few runs as have every part, and every arm and every level somewhere."""
    few: list[StudyRun] = []
    seen: set[object] = set()
    for least in (3, 2, 1):  # first those that are new in more ways
        for run in runs:
            part, arm, level, _ = run.key
            new = {part, study.parts[part].arms[arm], *level.split(", ")} - seen
            if len(new) >= least:
                few.append(run)
                seen |= new
    return few


def _tiny(run: StudyRun) -> StudyRun:
    planned, leaves = run.planned, flatten(run.planned.settings)
    tiny = TINY | (SELECTION if leaves.get("train.epopt_trajectories") else {})
    given = dict(text.split("=", 1) for text in planned.flags["set"])
    given |= {name: str(x) for name, x in tiny.items() if leaves.get(name)}
    texts = [f"{name}={x}" for name, x in given.items()]
    settings = make_settings(planned.experiment, "default", planned.flags["backend"], texts)
    planned = planned._replace(settings=settings, flags={**planned.flags, "set": texts})
    return run._replace(planned=planned)


@contextmanager
def _short_episodes() -> Iterator[None]:
    with ExitStack() as stack:
        for name, spec in gym.registry.items():
            if name.startswith("robots/"):
                stack.callback(setattr, spec, "max_episode_steps", spec.max_episode_steps)
                spec.max_episode_steps = EPISODE
        yield
