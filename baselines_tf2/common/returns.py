"""Statistics of evaluation episodes' returns: percentiles, the worst robot and the worst tenth."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from envs import worst_episodes

PERCENTILES = (10, 50, 90)
WORST_SHARE = 0.1  # of the episodes, for the conditional value at risk
PHYSICS = "physics/"  # what a table's columns of parameters begin with

Robot = Mapping[str, float]
Returns = dict[frozenset, list[float]]  # robot_key -> of its episodes


def percentiles(returns: Sequence[float]) -> np.ndarray:
    """The 10th, 50th and 90th percentile, [3]."""
    return np.percentile(returns, PERCENTILES)


def cvar(returns: Sequence[float]) -> float:
    """Conditional value at risk: the mean of the worst tenth, of fewer than twenty the worst one."""
    return float(np.asarray(returns)[worst_episodes(returns, WORST_SHARE)].mean())


def robot_key(robot: Robot) -> frozenset:
    """The set of its parameters' (name, value)."""
    return frozenset(robot.items())


def by_robot(robots: Sequence[Robot], returns: Sequence[float]) -> Returns:
    """Each robot's returns, by its key."""
    groups: Returns = {}
    for robot, one in zip(robots, returns, strict=True):
        groups.setdefault(robot_key(robot), []).append(one)
    return groups


def describe(name: str, robots: Sequence[Robot], returns: Sequence[float]) -> dict[str, float]:
    """`name`, the mean; name_p10, name_p50, name_p90; name_cvar10; and of several robots
    name_worst_robot, the lowest of their means."""
    out = {name: float(np.mean(returns))}
    quantiles = zip(PERCENTILES, percentiles(returns), strict=True)
    out |= {f"{name}_p{percent}": float(value) for percent, value in quantiles}
    out[f"{name}_cvar10"] = cvar(returns)
    if len(groups := by_robot(robots, returns)) > 1:
        out[f"{name}_worst_robot"] = float(min(np.mean(group) for group in groups.values()))
    return out


def in_words(name: str, described: Mapping[str, float]) -> str:
    """What `describe` gives under this name, as text."""
    low, middle, high = (described[f"{name}_p{percent}"] for percent in PERCENTILES)
    text = f"{described[name]:.1f} mean, percentiles 10, 50, 90: "
    text += f"{low:.1f}, {middle:.1f}, {high:.1f}, worst tenth {described[f'{name}_cvar10']:.1f}"
    worst = described.get(f"{name}_worst_robot")
    return text if worst is None else f"{text}, worst robot {worst:.1f}"


def sweep_of(rows: Sequence[Mapping], column: str) -> dict[float, list[float]]:
    """The returns in an evaluation's table by a parameter, from its least value to its greatest.

    Where each of several parameters was swept in turn, at least half of the episodes are at any
    other one's median, and only those count; where robots were drawn at random all do.
    """
    at = [(value, row) for row in rows if (value := _value(row, column)) is not None]
    rows, centre = [row for _, row in at], {}
    for other in {name for row in rows for name in row if name.startswith(PHYSICS)} - {column}:
        common, count = Counter(_value(row, other) for row in rows).most_common(1)[0]
        if 2 * count >= len(rows):
            centre[other] = common
    returns: dict[float, list[float]] = {}
    for value, row in at:
        if all(_value(row, other) == common for other, common in centre.items()):
            returns.setdefault(value, []).append(float(row["return"]))
    return dict(sorted(returns.items()))


def _value(row: Mapping, name: str) -> float | None:
    """Rounded, as simulators round what they read back; None where there is none."""
    return None if row.get(name) in (None, "") else round(float(row[name]), 4)
