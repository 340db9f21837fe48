"""The numbers of a report: interquartile means over seeds, and their bootstrap intervals."""

import itertools
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import bootstrap, trim_mean

from baselines_tf2.report.runs import Group, Run
from baselines_tf2.runs.judging import PHYSICS, percentiles, sweep_of

LAST = 10  # evaluations that make a final return
# Resamples of the bootstrap: with 2,000 an end moves by some tens of a return, and verdicts with it.
RESAMPLES, CURVE_RESAMPLES, BATCH = 50_000, 2_000, 1_000
# Seeds, below which there is no 95%: a bootstrap's interval of four is their range, as one resample
# in twenty has the lowest seed at both places that the interquartile mean of four keeps.
FEWEST = 5
SPEED = "time/steps_per_second"
Series = Mapping[Any, float]  # by step, or by a parameter's value


class Curve(NamedTuple):
    """A quantity along an axis, `[points]` each, and its ends, `[2, points]`, of several seeds."""

    x: np.ndarray
    middle: np.ndarray
    ends: np.ndarray | None


class Estimate(NamedTuple):
    """A statistic over seeds, and the ends of its 95% interval, NaN of few seeds."""

    middle: float
    low: float = np.nan
    high: float = np.nan
    is_range: bool = False  # the ends are the lowest and the highest of few seeds

    @property
    def interval(self) -> tuple[float, float] | None:
        """None of few seeds."""
        return None if self.is_range or np.isnan(self.low) else (self.low, self.high)

    def __str__(self) -> str:
        low, high = map(number, self[1:3])
        ends = f" ({low} to {high})" * (low != high) if self.is_range else f" [{low}, {high}]"
        return number(self.middle) + ("" if np.isnan(self.low) else ends)


def number(x: float) -> str:
    """A return or a rate with three digits or more, as 5,816 or 0.123."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def iqm(scores: np.ndarray, axis: int = 0) -> np.ndarray:
    """Interquartile mean over seeds: scores `[seeds, points]` to `[points]`.

    For each point rliable's `aggregate_iqm`. It leaves out a whole number of seeds at either end:
    none of fewer than four, where it is the mean.
    """
    return trim_mean(scores, 0.25, axis=axis)


def interval(
    statistic: Callable[..., np.ndarray], *samples: np.ndarray, resamples: int
) -> np.ndarray | None:
    """95% interval of statistic(*samples, axis=0) by the percentile bootstrap: `[2, points]`.

    samples: one or two, `[seeds, points]` each, drawn from independently, all points of one alike;
    None if one has fewer than `FEWEST` seeds. A point's interval is the same whatever other points
    there are.
    """
    if min(map(len, samples)) < FEWEST:
        return None
    options = {"method": "percentile", "vectorized": True, "batch": BATCH, "rng": 0}
    found = bootstrap(samples, statistic, axis=0, n_resamples=resamples, **options)
    return np.array(found.confidence_interval)


def estimates(
    statistic: Callable[..., np.ndarray],
    samples: Mapping[Any, tuple[np.ndarray, ...]],
    resamples: int = RESAMPLES,
) -> dict[Any, Estimate]:
    """The statistic of each entry, one or two samples `[seeds]`; those of equal sizes at once."""
    by_size: dict[tuple[int, ...], list] = defaultdict(list)
    for at, arrays in samples.items():
        by_size[tuple(map(len, arrays))].append(at)
    found: dict[Any, Estimate] = {}
    for same in by_size.values():
        stacked = [np.stack(x, axis=1) for x in zip(*(samples[at] for at in same), strict=True)]
        ends = interval(statistic, *stacked, resamples=resamples)
        columns = np.array([statistic(*stacked), *(() if ends is None else ends)]).T
        found |= {at: Estimate(*row.tolist()) for at, row in zip(same, columns, strict=True)}
    return {at: found[at] for at in samples}


def middles(samples: Mapping[Any, np.ndarray]) -> dict[Any, Estimate]:
    """Interquartile mean of each entry `[seeds]`, with the lowest and the highest of few seeds."""
    found = estimates(iqm, {at: (x,) for at, x in samples.items()})
    few = {at: x for at, x in samples.items() if len(x) < FEWEST}
    return found | {at: Estimate(found[at].middle, x.min(), x.max(), True) for at, x in few.items()}


def returns_by_step(run: Run) -> dict[int, float]:
    """Mean return of each evaluation."""
    items = run.evaluations.items()
    return {step: float(np.mean([row["return"] for row in episodes])) for step, episodes in items}


def final_returns(group: Group) -> tuple[np.ndarray, Estimate]:
    """Final return of each seed `[seeds]`, and their interquartile mean.

    A seed's is the mean of its last ten evaluations, of all if there are fewer.
    """
    returns = ([*returns_by_step(run).values()] for run in group.evaluated)
    scores = np.array([np.mean(of_one[-LAST:]) for of_one in returns])
    return scores, middles({"": scores})[""]


def last_percentiles(group: Group) -> np.ndarray:
    """10th, 50th and 90th percentile of the episodes of every seed's last evaluation."""
    rows = [row for run in group.evaluated for row in run.last_evaluation]
    return percentiles([row["return"] for row in rows])


def learning_curve(group: Group) -> Curve:
    """Interquartile mean of the return at the evaluations that all seeds have."""
    return _curve([returns_by_step(run) for run in group.evaluated])


def percentile_curve(group: Group) -> Curve:
    """Median of all seeds' episodes at the steps that all have, from the 10th to the 90th percentile."""
    steps, seeds = _at_common_steps([run.evaluations for run in group.evaluated])
    pooled = [itertools.chain(*rows) for rows in zip(*seeds, strict=True)]
    returns = [[row["return"] for row in rows] for rows in pooled]
    low, middle, high = np.array([percentiles(x) for x in returns]).reshape(-1, 3).T
    return Curve(steps, middle, np.array([low, high]))


def robot_columns(group: Group) -> list[str]:
    """The columns of eval.csv with a physical parameter that is not the same for all robots."""
    rows = [row for run in group.evaluated for row in run.last_evaluation]
    names = dict.fromkeys(name for row in rows for name in row if name.startswith(PHYSICS))
    return [name for name in names if len({row[name] for row in rows if name in row}) > 1]


def robot_curve(group: Group, column: str) -> Curve:
    """Interquartile mean of the last evaluation's return by a parameter, where all seeds have it."""
    sweeps = [sweep_of(run.last_evaluation, column).items() for run in group.evaluated]
    return _curve([{value: float(np.mean(x)) for value, x in sweep} for sweep in sweeps])


def iqm_curve(x: np.ndarray, seeds: np.ndarray) -> Curve:
    """Interquartile mean of seeds `[seeds, points]`, with its interval unless they are few."""
    return Curve(x, iqm(seeds), interval(iqm, seeds, resamples=CURVE_RESAMPLES))


def _curve(series: Sequence[Series]) -> Curve:
    x, seeds = _at_common_steps(series)
    return iqm_curve(x, np.array(seeds)) if x.size else Curve(x, x, None)


def _at_common_steps(series: Sequence[Mapping]) -> tuple[np.ndarray, list[list]]:
    """The steps that every seed's series has, sorted, and what each seed has there."""
    steps = sorted(set.intersection(*map(set, series))) if series else []
    return np.array(steps), [[one[step] for step in steps] for one in series]


def metric_curve(group: Group, column: str) -> Curve:
    """Median over seeds of a column of metrics.csv, and the seeds' lowest and highest value."""
    x, values = _at_common_steps([one for run in group.runs if (one := run.series(column))])
    if not x.size:
        return Curve(x, x, None)
    ends = np.array([np.min(values, 0), np.max(values, 0)]) if len(values) > 1 else None
    return Curve(x, np.median(values, 0), ends)


def median_speed(group: Group) -> float | None:
    """Median over rows and seeds of the environment steps per second; None if none were logged.

    Of the rows in which something was trained alone: random steps cost nothing.
    """
    rows = [row for run in group.runs for row in run.metrics if SPEED in row]
    speeds = [row[SPEED] for row in rows if any(name.startswith("train/") for name in row)]
    return float(np.median(speeds)) if speeds else None
