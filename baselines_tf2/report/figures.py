"""The figures of a report, one colour and line style per group throughout."""

import io
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

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
WIDTH = 11.0  # of a figure [inch]
RANGE_COLOR = "#7F7F7F"
LEGEND_CHARS, TITLE_CHARS = 64, 48
LOOK: list[str | Path | dict] = ["default", Path(__file__).with_suffix(".mplstyle")]
PLAIN = FuncFormatter(lambda x, _: f"{x:,.10g}")
SHORT = FuncFormatter(lambda x, _: f"{x:g}")  # 0.01, 100 or 1e+06
SOLVER_LABELS = {  # of column solver/<name>: what it is, and what is good
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
    title = "Return while training: interquartile mean, 95% interval over seeds, seeds thin"
    figure, axes = _by_step(groups, title, "return per episode", statistics.learning_curve)
    for group in groups:
        for run in group.evaluated if len(group.evaluated) > 1 else ():
            returns = statistics.returns_by_step(run)
            axes[group.environment].plot(list(returns), list(returns.values()), linewidth=0.7,
                                         color=style_of(group)[0], alpha=0.45)  # fmt: skip
    return figure


def final_returns(groups: Sequence[Group]) -> Figure | None:
    """Final returns with their intervals, and every seed's as a dot; an axis per environment."""
    groups = [group for group in groups if group.evaluated]
    if not groups:
        return None
    by_environment = _by_environment(groups)
    lines = max(wrap(group.name, 44).count("\n") + 1 for group in groups)
    row = max(0.62, 0.1 + 0.2 * lines)
    heights = [1.1 + row * len(members) for members in by_environment.values()]
    figure = Figure(figsize=(WIDTH, 0.6 + sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (environment, members) in zip(axes, by_environment.items(), strict=True):
        for y, group in enumerate(members):
            _plot_final(axis, y, group)
        axis.set_yticks(range(len(members)), [wrap(group.name, 44) for group in members])
        axis.set_ylim(len(members) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        axis.set_title(wrap(environment, 90))
        axis.set_xlabel("return per episode")
        axis.xaxis.set_major_formatter(PLAIN)
    title = f"Final return: mean of the last {statistics.LAST} evaluations; "
    _headline(figure, f"{title}interquartile mean over seeds, 95% interval, seeds as dots")
    return figure


def _plot_final(axis: Axes, y: int, group: Group) -> None:
    color, _ = style_of(group)
    scores, middle, interval = statistics.final_returns(group)
    if interval is not None:
        axis.plot(interval, [y, y], color=color, linewidth=9, alpha=0.35, solid_capstyle="butt")
        axis.plot(scores, [y + 0.24] * len(scores), "o", color=color, markersize=4.5, alpha=0.75)
    axis.plot(middle, y, "D", color=color, markersize=8)
    text = number(middle) if interval is None else f"{number(middle)}  {span(interval)}"
    axis.annotate(text, (1, y), xycoords=axis.get_yaxis_transform(), xytext=(8, 0),
                  textcoords="offset points", va="center", annotation_clip=False)  # fmt: skip


def robot_response(groups: Sequence[Group]) -> Figure | None:
    """Return by each varied parameter at the last evaluation, the training range shaded."""
    panels = defaultdict(list)
    for group in groups:
        for column in statistics.robot_columns(group):
            panels[group.environment, column].append(group)
    if not panels:
        return None
    shown = [group for group in groups if any(group in members for members in panels.values())]
    title = "Last evaluation by robot: interquartile mean, 95% interval over seeds"
    trained = Patch(color=RANGE_COLOR, alpha=0.16, label="robots trained on")
    figure, axes = grid(len(panels), title, shown, more=[trained])
    for axis, ((environment, column), members) in zip(axes, panels.items(), strict=True):
        name = column.removeprefix(PHYSICS)
        for group in members:
            plot_curve(axis, group, statistics.robot_curve(group, column), marker="o")
        if name in members[0].training_ranges:
            axis.axvspan(*members[0].training_ranges[name], color=RANGE_COLOR, alpha=0.16, lw=0)
        label_axis(axis, environment, "mean return per episode", axis_label(name))
    return figure


def percentiles(groups: Sequence[Group]) -> Figure | None:
    """The 10th, 50th and 90th percentile of evaluation episodes by step, an axis per group."""
    groups = [group for group in groups if group.evaluated]
    if not groups:
        return None
    columns, chars, size = (2, TITLE_CHARS, 11.5) if len(groups) < 5 else (3, 32, 10)
    title = "Evaluation episodes of all seeds: median, 10th to 90th percentile shaded"
    figure, axes = grid(len(groups), title, (), columns, 3.1)
    shared = defaultdict(list)
    for axis, group in zip(axes, groups, strict=True):
        steps, (low, middle, high) = statistics.percentile_curves(group)
        color, _ = style_of(group)
        axis.fill_between(steps, low, high, color=color, alpha=0.25, linewidth=0)
        axis.plot(steps, middle, color=color, linewidth=2, marker="o" * (len(steps) == 1))
        label_axis(axis, wrap(group.name, chars), "return per episode")
        axis.title.set_fontsize(size)
        step_axis(axis)
        shared[group.environment].append(axis)
    for same in shared.values():
        share_scale(same)
    return figure


def speed(groups: Sequence[Group]) -> Figure | None:
    """Environment steps per second by step, on a log axis."""
    groups = [group for group in groups if any(run.series(SPEED) for run in group.runs)]
    title = "Speed of training: median over seeds, lowest to highest shaded"
    curve = partial(statistics.metric_curve, column=SPEED)
    figure, axes = _by_step(groups, title, "environment steps per second", curve)
    for axis in axes.values():
        _log_axis(axis)
    return figure


def _by_step(
    groups: Sequence[Group], title: str, y: str, curve: Callable[[Group], Curve]
) -> tuple[Figure | None, dict[str, Axes]]:
    """Each group's curve on the axis of its environment; wide ones where there are many lines."""
    by_environment = _by_environment(groups)
    if not groups:
        return None, {}
    wide = max(map(len, by_environment.values())) > MANY_LINES
    figure, drawn = grid(len(by_environment), title, groups, 1 if wide else 2)
    axes = dict(zip(by_environment, drawn, strict=True))
    for group in groups:
        plot_curve(axes[group.environment], group, curve(group))
    for environment, axis in axes.items():
        label_axis(axis, environment, y)
        step_axis(axis)
    return figure, axes


def solver_health(groups: Sequence[Group]) -> Figure | None:
    """What the solver of the hypergradient reported by step, an axis per quantity that is not 0."""
    panels = {
        (environment, column): [g for g in members if any(run.series(column) for run in g.runs)]
        for environment, members in _by_environment(groups).items()
        for column in _solver_columns(members)
    }
    if not panels:
        return None
    shown = [group for group in groups if any(group in members for members in panels.values())]
    title = "Solver of the hypergradient: median over seeds, lowest to highest shaded"
    figure, axes = grid(len(panels), title, shown, height=3.1)
    environments = {environment for environment, _ in panels}
    for axis, ((environment, column), members) in zip(axes, panels.items(), strict=True):
        for group in members:
            plot_curve(axis, group, statistics.metric_curve(group, column))
        below = f"\n{environment}" if len(environments) > 1 else ""
        _solver_axis(axis, column.removeprefix("solver/"), below)
        if not any(group.evaluated for group in members):  # as in tabular analyses
            axis.set_xlabel("training steps")
    return figure


def _solver_columns(groups: Sequence[Group]) -> list[str]:
    """Those that are not 0 throughout, the known ones first and in the order of their labels."""
    rows = [row for group in groups for run in group.runs for row in run.metrics]
    found = {name for row in rows for name in row if name.startswith("solver/") and row[name]}
    known = [f"solver/{name}" for name in SOLVER_LABELS]
    return [name for name in known if name in found] + sorted(found - set(known))


def _solver_axis(axis: Axes, name: str, below: str) -> None:
    label = SOLVER_LABELS.get(name, name.replace("_", " "))
    is_share = label.startswith("share")
    label_axis(axis, label + below, "share" if is_share else name.replace("_", " "))
    step_axis(axis)
    if is_share:
        axis.set_ylim(-0.05, 1.05)
    elif name.endswith(("residual", "norm")):
        _log_axis(axis)
    else:
        axis.set_ylim(bottom=0)


def number(x: float) -> str:
    """A return or a rate with three digits or more, as 5,816 or 0.123."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def span(interval: Iterable[float]) -> str:
    return f"[{', '.join(map(number, interval))}]"


def _by_environment(groups: Sequence[Group]) -> dict[str, list[Group]]:
    by_environment = defaultdict(list)
    for group in groups:
        by_environment[group.environment].append(group)
    return by_environment


def share_scale(axes: Sequence[Axes]) -> None:
    """From the lowest to the highest of their ends."""
    lows, highs = zip(*(axis.get_ylim() for axis in axes), strict=True)
    for axis in axes:
        axis.set_ylim(min(lows), max(highs))


def grid(
    count: int,
    title: str,
    groups: Sequence[Line],
    columns: int = 2,
    height: float = 4.0,
    more: Sequence[Patch] = (),
) -> tuple[Figure, list[Axes]]:
    """A figure with `count` axes, `height` inches each, above a legend of the groups and `more`."""
    columns = min(columns, count)
    rows = -(-count // columns)
    height = height if columns > 1 else max(height, 4.6)
    lines = sum(wrap(group.name, LEGEND_CHARS).count("\n") + 1.4 for group in groups)
    figure = Figure(figsize=(WIDTH, 0.9 + rows * height + 0.11 * lines), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.remove()
    if groups:
        _legend(figure, groups, more)
    _headline(figure, title)
    return figure, list(axes[:count])


def plot_curve(axis: Axes, group: Line, curve: Curve, marker: str = "") -> None:
    """A single point, which would show no line, has a marker."""
    color, dashes = style_of(group)
    if curve.ends is not None:
        axis.fill_between(curve.x, *curve.ends, color=color, alpha=0.2, linewidth=0)
    width = 2 if len(curve.x) < 150 else 1.3
    axis.plot(curve.x, curve.middle, color=color, linestyle=dashes, linewidth=width,
              marker=marker or "o" * (len(curve.x) == 1), markersize=5)  # fmt: skip


def label_axis(axis: Axes, title: str, y: str, x: str = "environment steps") -> None:
    axis.set(title=wrap(title, TITLE_CHARS), xlabel=x, ylabel=y)
    axis.yaxis.set_major_formatter(PLAIN)


def step_axis(axis: Axes) -> None:
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


def _legend(figure: Figure, groups: Sequence[Line], more: Sequence[Patch]) -> None:
    lines = []
    for group in groups:
        (color, dashes), label = style_of(group), wrap(group.name, LEGEND_CHARS)
        lines.append(Line2D([], [], color=color, linestyle=dashes, linewidth=2.5, label=label))
    figure.legend(handles=[*lines, *more], loc="outside lower left", ncols=2)


def _headline(figure: Figure, text: str) -> None:
    figure.suptitle(text, x=0.01, horizontalalignment="left")


def wrap(text: str, width: int) -> str:
    """Keeps the line breaks there are."""
    lines = [textwrap.wrap(line, width, break_on_hyphens=False) for line in text.split("\n")]
    return "\n".join(line for part in lines for line in part)
