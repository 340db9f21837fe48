"""The figures of a report, one colour and line style per group throughout."""

import io
import textwrap
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, NullFormatter
from matplotlib.typing import LineStyleType

from baselines_tf2.report import statistics
from baselines_tf2.report.runs import Group, Line
from baselines_tf2.report.statistics import SPEED, Curve
from baselines_tf2.runs.judging import PHYSICS
from baselines_tf2.runs.plots import axis_label

# Okabe and Ito's palette for all kinds of colour vision, without its yellow, too pale for lines.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES: Sequence[LineStyleType] = ("solid", "dashed", "dotted")
MANY_LINES = 6
BAND = f"95% interval of {statistics.FEWEST} seeds or more"
STEPS = "environment steps"
WIDTH = 11.0  # of a figure [inch]
RANGE_COLOR = "#7F7F7F"
LEGEND_CHARS, TITLE_CHARS, WHOLE_CHARS = 64, 48, 92
LOOK: list[str | Path | dict] = ["default", Path(__file__).with_suffix(".mplstyle")]
Panels = Mapping[Any, Sequence[Group]]  # by (title,) or (title, column of a table)
Drawn = tuple[Figure | None, dict[Any, Axes]]
PLAIN = FuncFormatter(lambda x, _: f"{x:,.10g}")
SHORT = FuncFormatter(lambda x, _: f"{x:g}")  # 0.01, 100 or 1e+06
SOLVER_LABELS = {  # of column solver/<name>; others are not drawn
    "iterations": "iterations per solve",
    "relative_residual": "relative residual of Ax = b",
    "negative_curvature": "share of solves that met negative curvature",
    "converged": "share of solves that converged",
    "optimality_norm": "norm of the inner optimality condition f",
    "cotangent_norm": "norm of the cotangent b",
    "hypergradient_norm": "norm of the hypergradient",
    "inner_residual": "largest residual of the inner problem",
    "adjoint_residual": "largest residual of the adjoint",
}


def style_of(group: Line) -> tuple[str, LineStyleType]:
    """The group's colour and line style."""
    return COLORS[group.index % len(COLORS)], STYLES[group.index // len(COLORS) % len(STYLES)]


def render(draw: Callable[..., Figure | None], *arguments, note: str | None = None) -> bytes:
    """The figure that draw(*arguments) gives as PNG, b"" if that is None.

    The same bytes for the same arguments. note: kept in the file as its description.
    """
    with style.context(LOOK):
        figure = draw(*arguments)
        if figure is None:
            return b""
        png = io.BytesIO()
        figure.savefig(png, format="png", metadata={"Software": None, "Description": note})
    return png.getvalue()


def learning_curves(groups: Sequence[Group]) -> Figure | None:
    """Return by step: interquartile means with 95% intervals, seeds thin; an axis per setting."""
    groups = [group for group in groups if group.evaluated]
    title = f"Return while training: interquartile mean, {BAND}, seeds thin"
    figure, axes = _panels(_by_environment(groups), title, statistics.learning_curve)
    for (environment,), axis in axes.items():
        label_axis(axis, environment, "return per episode")
    for group in groups:
        for run in group.evaluated if len(group.evaluated) > 1 else ():
            returns = statistics.returns_by_step(run)
            axes[group.environment,].plot(list(returns), list(returns.values()), linewidth=0.7,
                                          color=style_of(group)[0], alpha=0.45)  # fmt: skip
    return figure


def speed(groups: Sequence[Group]) -> Figure | None:
    """Environment steps per second by step, on a log axis."""
    groups = [group for group in groups if any(run.series(SPEED) for run in group.runs)]
    title = "Speed of training: median over seeds, lowest to highest shaded"
    figure, axes = _panels(_by_environment(groups, SPEED), title, statistics.metric_curve)
    for (environment, _), axis in axes.items():
        label_axis(axis, environment, "environment steps per second")
        _log_axis(axis)
    return figure


def _panels(
    panels: Panels, title: str, curve: Callable[..., Curve], marker: str = "", **layout: Any
) -> Drawn:
    """An axis for each panel, with curve(group, column) of each group; wide where these are many."""
    columns = 1 if max(map(len, panels.values()), default=0) > MANY_LINES else 2
    shown = {group.index: group for members in panels.values() for group in members}
    figure, axes = grid(panels, title, [shown[i] for i in sorted(shown)], columns, **layout)
    for key, axis in axes.items():
        for group in panels[key]:
            plot_curve(axis, group, curve(group, *key[1:]), marker)
    return figure, axes


def final_returns(groups: Sequence[Group]) -> Figure | None:
    """Final returns with their intervals, and every seed's as a dot; an axis per environment."""
    groups = [group for group in groups if group.evaluated]
    panels = _by_environment(groups)
    title = f"Final return: mean of the last {statistics.LAST} evaluations; "
    title += f"interquartile mean over seeds, {BAND}, seeds as dots"
    figure, axes = grid(panels, title, groups)
    for (environment,), axis in axes.items():
        members = panels[environment,]
        for x, group in enumerate(members):
            seeds, middle = statistics.final_returns(group)
            plot_seeds(axis, group, x, seeds, middle.interval)
            axis.plot(x, middle.middle, "D", color=style_of(group)[0], markersize=6)
        axis.set_xticks([])
        axis.set_xlim(-0.5, len(members) - 0.5)
        label_axis(axis, environment, "return per episode", "")
    return figure


def plot_seeds(
    axis: Axes, line: Line, x: float, seeds: np.ndarray, ends: tuple[float, float] | None
) -> None:
    """Seeds as dots, and beside them the interval as a bar if there is one."""
    color, dashes = style_of(line)
    axis.plot([x + 0.03] * len(seeds), seeds, "o", color=color, markersize=3, alpha=0.6)
    if ends is not None:
        axis.plot([x] * 2, ends, color=color, linestyle=dashes, linewidth=2.5, alpha=0.8)


def robot_response(groups: Sequence[Group]) -> Figure | None:
    """Return by each varied parameter at the last evaluation, the training range shaded."""
    panels = defaultdict(list)
    for group in groups:
        for column in statistics.robot_columns(group):
            panels[group.environment, column].append(group)
    title = f"Last evaluation by robot: interquartile mean, {BAND}"
    trained = Patch(color=RANGE_COLOR, alpha=0.16, label="robots trained on")
    figure, axes = _panels(panels, title, statistics.robot_curve, "o", more=[trained])
    for (environment, column), axis in axes.items():
        name = column.removeprefix(PHYSICS)
        ranges = panels[environment, column][0].runs[0].training_ranges
        if name in ranges:
            axis.axvspan(*ranges[name], color=RANGE_COLOR, alpha=0.16, lw=0)
        label_axis(axis, environment, "mean return per episode", axis_label(name))
    return figure


def percentiles(groups: Sequence[Group]) -> Figure | None:
    """The 10th, 50th and 90th percentile of evaluation episodes by step, an axis per group."""
    shown = {group.name: group for group in groups if group.evaluated}
    title = "Evaluation episodes of all seeds: median, 10th to 90th percentile shaded"
    figure, axes = grid(shown, title, (), height=3.1)  # titles name the groups
    first: dict[str, Axes] = {}
    for name, axis in axes.items():
        plot_curve(axis, shown[name], statistics.percentile_curve(shown[name]))
        label_axis(axis, name, "return per episode")
        one = first.setdefault(shown[name].environment, axis)
        if one is not axis:
            axis.sharey(one)
    return figure


def solver_health(groups: Sequence[Group]) -> Figure | None:
    """What the solver of the hypergradient reported by step, an axis per quantity that is not 0."""
    panels = {
        (environment, column): [g for g in members if any(run.series(column) for run in g.runs)]
        for (environment,), members in _by_environment(groups).items()
        for column in _solver_columns(members)
    }
    title = "Solver of the hypergradient: median over seeds, lowest to highest shaded"
    figure, axes = _panels(panels, title, statistics.metric_curve, height=3.1)
    environments = {environment for environment, _ in panels}
    for (environment, column), axis in axes.items():
        name = column.removeprefix("solver/")
        words = name.replace("_", " ")
        label = SOLVER_LABELS[name]
        is_share = label.startswith("share")
        below = f"\n{environment}" * (len(environments) > 1)
        label_axis(axis, label + below, "share" if is_share else words)
        if is_share:
            axis.set_ylim(-0.05, 1.05)
        elif name.endswith(("residual", "norm")):
            _log_axis(axis)
        else:
            axis.set_ylim(bottom=0)
        if not any(group.evaluated for group in panels[environment, column]):  # as in tabular runs
            axis.set_xlabel("training steps")
    return figure


def _solver_columns(groups: Sequence[Group]) -> list[str]:
    """Those that are not 0 throughout, in the order of their labels; that none converged is told."""
    rows = [row for group in groups for run in group.runs for row in run.metrics]
    found = {name for row in rows for name in row if row[name] or name == "solver/converged"}
    return [column for name in SOLVER_LABELS if (column := f"solver/{name}") in found]


def _by_environment(groups: Sequence[Group], *column: str) -> Panels:
    panels = defaultdict(list)
    for group in groups:
        panels[group.environment, *column].append(group)
    return panels


def grid(
    panels: Collection,
    title: str,
    groups: Collection[Line],
    columns: int = 2,
    height: float = 4.0,
    more: Sequence[Patch] = (),
) -> Drawn:
    """A figure with an axis for each panel, `height` inches each; None without panels.

    Below is a legend of the groups and `more`.
    """
    if not panels:
        return None, {}
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    height = height if columns > 1 else max(height, 4.6)
    lines = sum(wrap(group.name, LEGEND_CHARS).count("\n") + 1.4 for group in groups)
    figure = Figure(figsize=(WIDTH, 0.9 + rows * height + 0.11 * lines), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(panels) :]:
        axis.remove()
    handles = []
    for group in groups:
        (color, dashes), label = style_of(group), wrap(group.name, LEGEND_CHARS)
        handles.append(Line2D([], [], color=color, linestyle=dashes, linewidth=2.5, label=label))
    if handles:
        figure.legend(handles=[*handles, *more], loc="outside lower left", ncols=2)
    figure.suptitle(wrap(title, WHOLE_CHARS), x=0.01, horizontalalignment="left")
    return figure, dict(zip(panels, axes, strict=False))


def plot_curve(axis: Axes, group: Line, curve: Curve, marker: str = "") -> None:
    """A single point, which would show no line, has a marker."""
    color, dashes = style_of(group)
    if curve.ends is not None:
        axis.fill_between(curve.x, *curve.ends, color=color, alpha=0.2, linewidth=0)
    width = 2 if len(curve.x) < 150 else 1.3
    axis.plot(curve.x, curve.middle, color=color, linestyle=dashes, linewidth=width,
              marker=marker or "o" * (len(curve.x) == 1), markersize=5)  # fmt: skip


def label_axis(axis: Axes, title: str, y: str, x: str = STEPS) -> None:
    axis.set(title=wrap(title, TITLE_CHARS), xlabel=x, ylabel=y)
    axis.yaxis.set_major_formatter(PLAIN)
    if x == STEPS:
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))


def _log_axis(axis: Axes) -> None:
    """Logarithmic, unless there is nothing above 0 to show."""
    values = np.concatenate([line.get_ydata() for line in axis.lines] or [np.zeros(0)])
    if (values > 0).any():
        axis.set_yscale("log", nonpositive="mask")
        low, high = axis.get_ylim()
        subs = (1, 2, 5) if high < 100 * low else (1,)
        axis.yaxis.set_major_locator(LogLocator(subs=subs, numticks=9))
        axis.yaxis.set_major_formatter(SHORT)
        axis.yaxis.set_minor_formatter(NullFormatter())


def wrap(text: str, width: int) -> str:
    """Keeps the line breaks there are."""
    lines = [textwrap.wrap(line, width, break_on_hyphens=False) for line in text.split("\n")]
    return "\n".join(line for part in lines for line in part)
