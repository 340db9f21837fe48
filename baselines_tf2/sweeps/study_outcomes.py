"""What a study measures of a run: small functions of the run's tables, in one list by name.

A run that failed counts at its value: the last evaluation it reached stands for all those that it
did not reach. One that failed before any evaluation has no value; in a study's statistics it has
the worst that any run of its part reached. So has one that failed where an uncertainty set judges.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import product
from operator import methodcaller
from pathlib import Path
from typing import NamedTuple

import numpy as np

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.files import read_table
from baselines_tf2.report.figures import SOLVER_LABELS
from baselines_tf2.report.runs import Row, Run
from baselines_tf2.report.statistics import Series, returns_by_step
from baselines_tf2.runs.evaluate_run import evaluate_run
from baselines_tf2.runs.experiment import Experiment
from baselines_tf2.runs.folder import SWEEP, is_finished
from baselines_tf2.runs.judging import PERCENTILES, PHYSICS, SIDES, describe, percentiles, sweep_of
from envs import VARIANTS, is_inside
from envs.spec import NAMED_SETS

LAST = 3  # evaluations that make a final value
JUDGED = 3  # episodes on each robot of an uncertainty set
FEW = 10  # episodes on each robot, below which percentiles say nothing
TORSO_MASS = "torso_mass"


class Outcome(NamedTuple):
    """A number of a run, NaN where the run has none."""

    words: str
    of: Callable[[Run], float]
    sign: int = 1  # -1 where less is better, 0 where neither is
    judged_on: tuple[str, str] | None = None  # the uncertainty set and its variant


def mean(values: Iterable[float]) -> float:
    """NaN of nothing."""
    values = list(values)
    return float(np.mean(values)) if values else math.nan


def _evaluated(values: Callable[[Run], Series], last: int = 0) -> Callable[[Run], float]:
    """Mean of all evaluations or of the last; of a run that failed with those it did not reach."""

    def of(run: Run) -> float:
        series = list(values(run).values())
        if run.failure is not None:
            train = run.config["settings"]["train"]
            count = -(-run.planned // train["eval_interval"]) + train.get("eval_at_start", False)
            series += series[-1:] * (count - len(series))
        return mean(series[-last:])

    return of


def _logged(column: str, start: float = 0.5, stop: float = math.inf) -> Callable[[Run], float]:
    """Mean over the rows of metrics.csv between these shares of the steps that were planned."""

    def of(run: Run) -> float:
        series = run.series(column).items()
        return mean(x for step, x in series if start * run.planned < step <= stop * run.planned)

    return of


def _described(rows: Sequence[Mapping], name: str) -> float:
    """What `describe` calls so of these episodes; of a single robot, or for no such name, the mean."""
    if not rows:
        return math.nan
    robots = [{k: x for k, x in row.items() if k.startswith(PHYSICS)} for row in rows]
    told = describe("return", robots, [float(row["return"]) for row in rows])
    return told.get(f"return_{name}", told["return"])


def _robots(name: str) -> Callable[[Run], Series]:
    """The same at each evaluation, whose robots are its grid's."""
    return lambda run: {step: _described(rows, name) for step, rows in run.evaluations.items()}


def _by_mass(run: Run) -> dict[float, Series]:
    """Mean return at each torso mass, all else as usual, at each evaluation."""
    return {step: by_mass(rows)[TORSO_MASS] for step, rows in run.evaluations.items()}


def _outer_masses(run: Run) -> Series:
    """The mean of those outside the training range at each evaluation."""
    trained = {name: ends for name, ends in run.training_ranges.items() if name == TORSO_MASS}
    return {
        step: mean(x for mass, x in masses.items() if not is_inside({TORSO_MASS: mass}, trained))
        for step, masses in _by_mass(run).items()
    }


def _worst_mass(run: Run) -> Series:
    """The least of all of them at each evaluation."""
    return {step: min(masses.values(), default=math.nan) for step, masses in _by_mass(run).items()}


def _of_set(judged_on: tuple[str, str], name: str) -> Callable[[Run], float]:
    """The same of the episodes that `judge` left."""
    return lambda run: _described(read_table(_judged(run.folder, judged_on)), name)


def _judged(folder: Path, judged_on: tuple[str, str]) -> Path:
    return folder / f"{SWEEP}_{'_'.join(judged_on)}.csv"


def judge(experiments: Mapping[str, Experiment], folder: Path, outcomes: Iterable[str]) -> None:
    """Steps a finished run on the uncertainty sets that the outcomes are of, where it was not yet."""
    for place in {place for name in outcomes if (place := OUTCOMES[name].judged_on)}:
        if is_finished(folder) and not _judged(folder, place).exists():
            with suppress(TrainingError):  # of an episode that cannot be: no value
                evaluate_run(experiments, folder, "", *place, episodes=JUDGED, seed=0, cores=1)


def best(run: Run) -> float:
    """The highest of the evaluations' mean returns."""
    return max(returns_by_step(run).values(), default=math.nan)


def steps_to_475(run: Run) -> float:
    """The first step whose evaluation reaches 475; all planned ones if none does."""
    reached = [step for step, x in returns_by_step(run).items() if x >= 475]
    return float(min(reached, default=run.planned))


INSIDE, OUTSIDE = (methodcaller("series", f"eval/return_{side}") for side in SIDES)
INSIDE_WORST = methodcaller("series", "eval/return_inside_worst_robot")
OUTCOMES = {
    "mean": Outcome("final return", _evaluated(returns_by_step, LAST)),
    "inside": Outcome("return inside the training range", _evaluated(INSIDE, LAST)),
    "outside": Outcome("return outside the training range", _evaluated(OUTSIDE, LAST)),
    "worst": Outcome("return on the worst robot", _evaluated(_robots("worst_robot"), LAST)),
    "inside_worst": Outcome("return on the worst robot of the training range", _evaluated(INSIDE_WORST, LAST)),
    "outer_masses": Outcome("return on masses outside the training range", _evaluated(_outer_masses, LAST)),
    "worst_mass": Outcome("return on the worst mass", _evaluated(_worst_mass, LAST)),
    "cvar10": Outcome("return in the worst tenth of episodes", _evaluated(_robots("cvar10"), LAST)),
    "area": Outcome("return, mean of all evaluations", _evaluated(returns_by_step)),
    "area_outside": Outcome("return outside, mean of all evaluations", _evaluated(OUTSIDE)),
    "best": Outcome("return, best evaluation", best),
    "steps_to_475": Outcome("steps to a return of 475, all if it never came", steps_to_475, -1),
    "seconds": Outcome("wall time [s]", lambda run: max(run.series("time/elapsed").values(), default=math.nan), -1),
    "robot_share_early": Outcome("robot's share in the first quarter of the run", _logged("diagnostics/robot_share", 0, 0.25), 0),
    "model_loss": Outcome("model's loss of prediction", _logged("train/model_loss"), 0),
} | {
    name: Outcome(words, _logged(f"{group}/{name}"), 0)
    for group, names in {
        "diagnostics": {
            "robot_share": "robot's share of the target variance",
            "target_variance": "variance of the targets",
            "residual_ratio": "TD residual over the target variance",
            "actor_gradient_snr": "signal-to-noise ratio of the actor's gradient",
        },
        "solver": SOLVER_LABELS,
    }.items()
    for name, words in names.items()
} | {
    f"{protocol}_{variant}_{name}": Outcome(
        f"return on {words} of {protocol}, {variant.replace('_', ' ')}",
        _of_set((protocol, variant), of), judged_on=(protocol, variant),
    )
    for protocol, variant in product(NAMED_SETS, VARIANTS)
    for name, of, words in (("worst", "worst_robot", "the worst robot"), ("mean", "mean", "all robots"))
}  # fmt: skip


def by_mass(episodes: list[Row]) -> dict[str, Series]:
    """Mean return at each torso mass [kg], and percentiles of episodes that are not few.

    Where other parameters are swept too, with those as usual.
    """
    sweep = sweep_of(episodes, PHYSICS + TORSO_MASS)
    found: dict[str, Series] = {TORSO_MASS: {mass: mean(x) for mass, x in sweep.items()}}
    if sweep and min(map(len, sweep.values())) >= FEW:
        for i, percent in enumerate(PERCENTILES):
            curve = {mass: float(percentiles(values)[i]) for mass, values in sweep.items()}
            found[f"{TORSO_MASS}_p{percent}"] = curve
    return found


def curves(run: Run) -> dict[str, Series]:
    """Return by step, outside the training range too, and by mass [kg] in the last evaluations."""
    last = [row for step in [*run.evaluations][-LAST:] for row in run.evaluations[step]]
    found = {"return": returns_by_step(run), "outside": OUTSIDE(run), **by_mass(last)}
    return {name: curve for name, curve in found.items() if curve}
