"""The robots that a policy is judged on: inside and outside the ranges that it was trained on."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

from envs.ensemble import Ensemble
from envs.physics import REWARD_OFFSET, limits

POINTS = 9  # values of each parameter
TOLERANCE = 1e-4  # of a range's width: grids are rounded, and simulators round what they read back

Ranges = Mapping[str, tuple[float, float]]  # parameter -> low, high
Grid = dict[str, tuple[float, ...]]  # parameter -> values


def training_ranges(ensemble: Ensemble) -> dict[str, tuple[float, float]]:
    """Lowest and highest value of each varied parameter; reward_offset is no physics."""
    return {name: (one.low, one.high) for name, one in ensemble.items() if name != REWARD_OFFSET}


def is_inside(physics: Mapping[str, float], ranges: Ranges) -> bool:
    """Whether every varied parameter of a robot lies in the range that it was trained on."""
    return all(
        abs(physics[name] - (low + high) / 2) <= (0.5 + TOLERANCE) * (high - low)
        for name, (low, high) in ranges.items()
    )


def grid_values(name: str, low: float, high: float) -> tuple[float, ...]:
    """Nine values of a parameter to evaluate on, evenly, and beyond its range [low, high].

    From half of `low` to one and a half of `high`: of a range like the default ensembles',
    [m/2, 3m/2], five lie inside, both ends included, one below and three above. What may be
    negative goes half of the range's width beyond both ends, a slope at most halfway to upright.
    """
    least, most = limits(name)
    if least == 0:
        values = np.linspace(low / 2, high * 1.5, POINTS)
        return tuple(np.where(values < 1e-6, values, values.round(6)).tolist())
    margin = (high - low) / 2
    ends = max(low - margin, (low + least) / 2), min(high + margin, (high + most) / 2)
    return tuple(np.linspace(*ends, POINTS).tolist())


def sweeps(ensemble: Ensemble) -> list[Grid]:
    """A grid for each varied parameter, the others at their medians; [] if no physics vary.

    Not their product: k parameters take 9 k robots, not 9^k, and each sweep can be drawn.
    """
    ranges = training_ranges(ensemble)
    medians = {name: (float(f"{ensemble[name].quantile(0.5):.9g}"),) for name in ranges}
    return [
        {x: grid_values(x, *ranges[x]) if x == name else medians[x] for x in ranges}
        for name in ranges
    ]


def robots_of(grids: Sequence[Grid]) -> list[dict[str, float]]:
    """Every combination of each grid's values, each robot once."""
    points = (zip(grid, point, strict=True) for grid in grids for point in product(*grid.values()))
    return [dict(robot) for robot in dict.fromkeys(map(tuple, points))]
