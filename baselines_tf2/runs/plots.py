"""Pictures of one run: its learning, and the return by robot."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from baselines_tf2.common.files import read_table, write_atomically
from baselines_tf2.runs.judging import PHYSICS, Returns, percentiles, sweep_of
from envs import robots_of
from envs.grid import Grid, Ranges

MAX_LINES = 6  # of one picture


def plot_run(folder: Path, training_ranges: Ranges) -> None:
    """Draws `curves.png`: the return while training, and at the end by each varied parameter."""
    rollout = [row for row in read_table(folder / "metrics.csv") if row.get("rollout/return")]
    evaluations = read_table(folder / "eval.csv")
    panels = 1 + len(training_ranges) * bool(evaluations)
    figure = Figure(figsize=(1 + 4 * panels, 3.6), layout="constrained")
    curve, *others = figure.subplots(1, panels, squeeze=False)[0]
    _plot_curve(curve, rollout, evaluations)
    last = [row for row in evaluations if row["step"] == evaluations[-1]["step"]]
    for axis, (name, trained) in zip(others, training_ranges.items(), strict=False):
        returns = sweep_of(last, PHYSICS + name)
        axis.plot(list(returns), [np.mean(x) for x in returns.values()], "o-", color="tab:blue")
        axis.axvspan(*trained, color="tab:green", alpha=0.1, label="training range")
        axis.legend(fontsize="small")
        axis.set(xlabel=axis_label(name), ylabel="mean return", title="Last evaluation, by robot")
    write_atomically(folder / "curves.png", lambda file: figure.savefig(file, dpi=150))


def _plot_curve(axis, rollout, evaluations):
    steps = [int(row["step"]) for row in rollout]
    returns = [float(row["rollout/return"]) for row in rollout]
    axis.plot(steps, returns, color="tab:gray", alpha=0.6, linewidth=1, label="training episodes")
    by_step: dict[float, list[float]] = defaultdict(list)
    for row in evaluations:
        by_step[int(row["step"])].append(float(row["return"]))
    if by_step:
        _plot_percentiles(axis, by_step, "evaluation: median, 10th to 90th percentile")
    axis.set(xlabel="environment steps", ylabel="return per episode", title="Learning")
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.legend(fontsize="small")


def axis_label(name: str) -> str:
    """A physical parameter's, with its unit where the name tells it."""
    return name.replace("_", " ") + (" [kg]" if "mass" in name else "")


def _plot_percentiles(axis: Axes, returns: Mapping[float, Sequence[float]], label: str) -> None:
    low, middle, high = np.transpose([percentiles(x) for x in returns.values()])
    axis.plot(list(returns), middle, ".-", label=label)
    axis.fill_between(list(returns), low, high, alpha=0.2)


def plot_sweeps(path: Path, grids: Sequence[Grid], returns: Returns) -> bool:
    """Draws the return on each grid, and whether it could: three parameters make too many lines.

    By the first parameter, a line for each combination of the others; many values of two: as a map.
    """
    path.unlink(missing_ok=True)
    # What has one value is no axis: parameters that vary come first.
    grids = [dict(sorted(grid.items(), key=lambda one: len(one[1]) == 1)) for grid in grids]
    lines = [len(robots_of([grid])) // len(next(iter(grid.values()))) for grid in grids]
    if any(count > MAX_LINES and len(grid) > 2 for grid, count in zip(grids, lines, strict=True)):
        return False
    figure = Figure(figsize=(1 + 4.5 * len(grids), 3.8), layout="constrained")
    axes = figure.subplots(1, len(grids), squeeze=False)[0]
    for axis, grid, count in zip(axes, grids, lines, strict=True):
        (_plot_lines if count <= MAX_LINES else _plot_map)(axis, grid, returns)
    write_atomically(path, lambda file: figure.savefig(file, dpi=150))
    return True


def _plot_lines(axis: Axes, grid: Grid, returns: Returns) -> None:
    first, *others = grid
    for rest in robots_of([{name: grid[name] for name in others}]):
        label = ", ".join(f"{name} {value:g}" for name, value in rest.items())
        line = {x: returns[frozenset({first: x, **rest}.items())] for x in grid[first]}
        _plot_percentiles(axis, line, label or "median")
    axis.set(xlabel=axis_label(first), ylabel="return per episode")
    axis.set_title("Median, 10th to 90th percentile")
    axis.legend(fontsize="small")
    axis.grid(alpha=0.3)


def _plot_map(axis: Axes, grid: Grid, returns: Returns) -> None:
    (first, columns), (second, rows) = grid.items()
    means = [
        [np.mean(returns[frozenset({first: x, second: y}.items())]) for x in columns] for y in rows
    ]
    colours = axis.pcolormesh(columns, rows, means, shading="nearest")
    axis.figure.colorbar(colours, ax=axis, label="mean return per episode")
    axis.set(xlabel=axis_label(first), ylabel=axis_label(second))
