"""One run: its choice by name, and all of it in its folder."""

import bdb
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from baselines_tf2.common.errors import Interrupted
from baselines_tf2.runs.checkpoint import Checkpoints
from baselines_tf2.runs.experiment import Experiment, Progress, find_experiment, make_settings
from baselines_tf2.runs.folder import (
    carry_out,
    finished_summary,
    is_finished,
    locked,
    open_folder,
    run_folder,
)
from envs.errors import ConfigError


class Chosen(NamedTuple):
    """A run that is named by its experiment, overrides and seed."""

    experiment: Experiment
    folder: Path
    flags: Mapping[str, Any]  # for its config.json
    settings: Any


def choose(
    experiments: Mapping[str, Experiment],
    name: str,
    overrides: Sequence[str],
    logdir: str,
    seed: int,
    backend: str | None = None,
    *,
    preset: str = "default",
    eager: bool = False,
) -> Chosen:
    """The settings and the folder of a run; ConfigError if there is no such one."""
    experiment = find_experiment(experiments, name)
    settings = make_settings(experiment, preset, backend, overrides)
    backend = experiment.backends[0] if backend is None else backend
    values = {"exp": experiment.name, "backend": backend, "seed": seed, "preset": preset}
    values |= {"eager": eager, "set": list(overrides)}
    return Chosen(experiment, run_folder(logdir, experiment.name, backend, seed), values, settings)


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
    check_video(chosen.experiment, video)
    options = {"video": True} if video else {}
    run = chosen.experiment.prepare(chosen.settings, chosen.flags["seed"], **options)
    folder = chosen.folder
    with locked(folder, patience=patience):
        for text in open_folder(folder, *chosen[2:], overwrite=overwrite, resume=resume):
            progress.tell(f"warning: {text}")
        if is_finished(folder) and finished_summary(folder):
            progress.tell(f"{folder} is finished: nothing is left to do")
        progress.start(chosen.experiment.num_timesteps(chosen.settings))
        try:
            return carry_out(run, folder, progress, checkpoints) | {"folder": str(folder)}
        except Interrupted:
            raise
        except (KeyboardInterrupt, bdb.BdbQuit):
            raise _stopped_at_once(checkpoints) from None


def check_video(experiment: Experiment, video: bool) -> None:
    """ConfigError if a video is asked for and there is nothing to see."""
    if video and experiment.load is None:
        raise ConfigError(f"--video: {experiment.name} evaluates no agent that could be seen")


def _stopped_at_once(checkpoints: Checkpoints) -> Interrupted:
    if checkpoints.exist():
        return Interrupted("interrupted: --resume goes on from the latest checkpoint")
    return Interrupted(
        "interrupted before the first checkpoint: what was logged is kept, --overwrite starts anew"
    )
