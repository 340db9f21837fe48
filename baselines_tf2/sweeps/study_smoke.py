"""A study tried out: all of it with runs of some steps, in this process and a temporary folder."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import gymnasium as gym

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.runs.checkpoint import Checkpoints
from baselines_tf2.runs.experiment import (
    Chosen,
    Experiment,
    Progress,
    defaults,
    flatten,
    make_settings,
)
from baselines_tf2.runs.folder import do_run
from baselines_tf2.sweeps.study import Study, StudyRun, fingerprint, plan
from baselines_tf2.sweeps.study_outcomes import judge
from baselines_tf2.sweeps.study_page import write_page
from baselines_tf2.sweeps.study_store import Store

EPISODE = 13  # [steps] of the robots
# Of the settings that a run has, and has not at 0.
TINY = {
    "train.num_timesteps": 40, "train.eval_interval": 40, "train.eval_episodes": 1,
    "train.adapt_every": 30,
    "train.random_steps": 36, "agent.batch_size": 8, "agent.replay_size": 100,
    "agent.nb_rollout_steps": 4, "agent.nb_train_steps": 1, "train.nb_epoch_cycles": 10,
    "agent.cycle_steps": 2, "agent.hidden_dim": 4,
    **{f"agent.{name}_network.{size}": x for name in ("actor", "critic")
       for size, x in {"num_layers": 1, "num_hidden": 8}.items()},
}  # fmt: skip
SELECTION = {"train.epopt_trajectories": 2, "train.epopt_epsilon": 0.5}


def smoke(study: Study, experiments: Mapping[str, Experiment], parts: Sequence[str] = ()) -> str:
    """Plans everything, runs every arm and every level once, writes tables and page.

    Nothing goes beside the study's file. Returns what to tell the user. Raises ConfigError for
    settings that cannot be. TensorFlow should run eagerly: compiling takes longer than the runs.
    """
    folder = Path(tempfile.mkdtemp(prefix="study_"))
    tried = replace(study, path=folder / study.path.name, parts={
        name: replace(part, seeds=part.seeds[:1]) for name, part in study.parts.items()
    })  # fmt: skip
    few = _few(tried, plan(tried, experiments, str(folder), parts))
    store = Store(tried, partial(judge, experiments))
    with _short_episodes():
        runs = [_tiny(run, experiments) for run in few]
        for run in runs:
            _do(run, experiments)
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


def _tiny(run: StudyRun, experiments: Mapping[str, Experiment]) -> StudyRun:
    flags = run.planned.flags
    leaves = flatten(run.planned.settings)
    given = dict(text.split("=", 1) for text in flags["set"])
    tiny = TINY | (SELECTION if leaves.get("train.epopt_trajectories") else {})
    given |= {name: str(x) for name, x in tiny.items() if leaves.get(name)}
    texts = [f"{name}={x}" for name, x in given.items()]
    settings = make_settings(experiments[flags["exp"]], "default", flags["backend"], texts)
    planned = run.planned._replace(settings=settings, flags={**flags, "set": texts})
    mark = fingerprint(flags["exp"], flatten(settings), defaults(settings))
    return run._replace(planned=planned, fingerprint=mark)


def _do(run: StudyRun, experiments: Mapping[str, Experiment]) -> None:
    folder, flags, settings = run.planned.folder, run.planned.flags, run.planned.settings
    chosen = Chosen(experiments[flags["exp"]], folder, flags, settings)
    with suppress(TrainingError):  # it counts, as in the study
        do_run(chosen, Progress(), Checkpoints(folder, every=10**9))


@contextmanager
def _short_episodes() -> Iterator[None]:
    specs = [spec for name, spec in gym.registry.items() if name.startswith("robots/")]
    limits = [spec.max_episode_steps for spec in specs]
    for spec in specs:
        spec.max_episode_steps = EPISODE
    try:
        yield
    finally:
        for spec, limit in zip(specs, limits, strict=True):
            spec.max_episode_steps = limit
