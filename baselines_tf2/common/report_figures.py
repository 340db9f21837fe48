"""The figures of a report, one colour and line style per group throughout."""

import io
import textwrap
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter

from baselines_tf2.common import report_statistics as statistics
from baselines_tf2.common.report_runs import Group
from baselines_tf2.common.report_statistics import Curve

# Okabe and Ito's palette for all kinds of colour vision, without its yellow, too pale for lines.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("solid", "dashed", "dotted")
WIDTH, DPI = 11.0, 140  # of a figure [inch], [1/inch]
RANGE_COLOR = "#7F7F7F"
LEGEND_CHARS, TITLE_CHARS = 64, 46
RC = {
    "font.size": 11, "axes.titlesize": 11.5, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True,
    "grid.color": "#E4E4E4", "grid.linewidth": 0.8, "axes.axisbelow": True,
    "legend.frameon": False, "legend.fontsize": 10.5, "figure.titlesize": 13,
    "figure.titleweight": "bold", "axes.formatter.useoffset": False, "text.parse_math": False,
}  # fmt: skip
SOLVER_LABELS = {  # of column solver/<name>: what it is, and what is good
    "iterations": "iterations per solve",
    "relative_residual": "relative residual |Ax - b| / |b|",
    "negative_curvature": "share of solves that met negative curvature",
    "converged": "share of solves that converged",
    "optimality_norm": "norm of the inner optimality condition |f|",
    "cotangent_norm": "norm of the cotangent |b|",
    "hypergradient_norm": "norm of the hypergradient",
    "inner_residual": "largest residual of the inner problem",
    "adjoint_residual": "largest residual of the adjoint",
}


def style_of(group: Group) -> tuple[str, str]:
    """The group's colour and line style."""
    return COLORS[group.index % len(COLORS)], STYLES[group.index // len(COLORS) % len(STYLES)]


def render(draw: Callable[[Sequence[Group]], Figure | None], groups: Sequence[Group]) -> bytes:
    """The figure as PNG, always the same bytes for the same groups; b"" if there is none."""
    with matplotlib.rc_context(matplotlib.rcParamsDefault | RC):
        figure = draw(groups)
        if figure is None:
            return b""
        png = io.BytesIO()
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    return png.getvalue()


def learning_curves(groups: Sequence[Group]) -> Figure | None:
    """Return by step: interquartile means with 95% intervals, seeds thin; an axis per setting."""
    groups = [group for group in groups if group.evaluated]
    if not groups:
        return None
    by_environment = _by_environment(groups)
    figure, axes = _grid(len(by_environment), columns=2)
    for axis, (environment, members) in zip(axes, by_environment.items(), strict=True):
        for group in members:
            for run in group.evaluated if len(group.evaluated) > 1 else ():
                returns = statistics.returns_by_step(run)
                axis.plot(list(returns), list(returns.values()), color=style_of(group)[0],
                          linewidth=0.7, alpha=0.45)  # fmt: skip
            _plot_curve(axis, group, statistics.learning_curve(group))
        _label(axis, environment, "return per episode")
        _step_axis(axis)
    _legend(figure, groups)
    figure.suptitle(
        "Return while training: interquartile mean, 95% interval over seeds, seeds thin"
    )
    return figure


def final_returns(groups: Sequence[Group]) -> Figure | None:
    """Final returns with their intervals, and every seed's as a dot; an axis per environment."""
    groups = [group for group in groups if group.evaluated]
    if not groups:
        return None
    by_environment = _by_environment(groups)
    heights = [0.9 + 0.62 * len(members) for members in by_environment.values()]
    figure = Figure(figsize=(WIDTH, 0.6 + sum(heights)), layout="constrained")
    axes = figure.subplots(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axis, (environment, members) in zip(axes, by_environment.items(), strict=True):
        for y, group in enumerate(members):
            _plot_final(axis, y, group)
        axis.set_yticks(range(len(members)), [_wrap(group.name, 40) for group in members])
        axis.set_ylim(len(members) - 0.5, -0.5)
        axis.grid(axis="y", visible=False)
        axis.set_title(_wrap(environment, 90))
        axis.set_xlabel("return per episode")
    figure.suptitle(
        f"Final return: mean of the last {statistics.LAST} evaluations; interquartile mean over "
        "seeds, 95% interval, seeds as dots"
    )
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


def mass_response(groups: Sequence[Group]) -> Figure | None:
    """Return by mass at the last evaluation, the training range shaded."""
    panels: dict[tuple[str, str], list[Group]] = {}
    for group in groups:
        for column in statistics.mass_columns(group):
            panels.setdefault((group.environment, column), []).append(group)
    if not panels:
        return None
    figure, axes = _grid(len(panels), columns=2)
    for axis, ((environment, column), members) in zip(axes, panels.items(), strict=True):
        name = column.removeprefix("physics/")
        for group in members:
            _plot_curve(axis, group, statistics.mass_curve(group, column), marker="o")
        if name in members[0].training_ranges:
            axis.axvspan(*members[0].training_ranges[name], color=RANGE_COLOR, alpha=0.16, lw=0)
        _label(axis, environment, "mean return per episode", f"{name.replace('_', ' ')} [kg]")
    shown = [group for group in groups if any(group in members for members in panels.values())]
    trained = Patch(color=RANGE_COLOR, alpha=0.16, label="masses trained on")
    _legend(figure, shown, [trained])
    figure.suptitle("Last evaluation by mass: interquartile mean, 95% interval over seeds")
    return figure


def percentiles(groups: Sequence[Group]) -> Figure | None:
    """The 10th, 50th and 90th percentile of evaluation episodes by step, an axis per group."""
    groups = [group for group in groups if group.evaluated]
    if not groups:
        return None
    figure, axes = _grid(len(groups), columns=2 if len(groups) < 5 else 3, height=3.1)
    shared: dict[str, list[Axes]] = {}
    for axis, group in zip(axes, groups, strict=True):
        steps, (low, middle, high) = statistics.percentile_curves(group)
        color, _ = style_of(group)
        axis.fill_between(steps, low, high, color=color, alpha=0.25, linewidth=0)
        axis.plot(steps, middle, color=color, marker=_marker(steps))
        _label(axis, group.name, "return per episode", chars=36 if len(groups) > 4 else 52)
        _step_axis(axis)
        shared.setdefault(group.environment, []).append(axis)
    for same in shared.values():
        limits = np.array([axis.get_ylim() for axis in same])
        for axis in same:
            axis.set_ylim(limits[:, 0].min(), limits[:, 1].max())
    figure.suptitle("Evaluation episodes of all seeds: median, 10th to 90th percentile shaded")
    return figure


def speed(groups: Sequence[Group]) -> Figure | None:
    """Environment steps per second by step, on a log axis."""
    column = "time/steps_per_second"
    groups = [group for group in groups if any(run.series(column) for run in group.runs)]
    if not groups:
        return None
    by_environment = _by_environment(groups)
    figure, axes = _grid(len(by_environment), columns=2, height=3.6)
    for axis, (environment, members) in zip(axes, by_environment.items(), strict=True):
        for group in members:
            _plot_curve(axis, group, statistics.metric_curve(group, column))
        _label(axis, environment, "environment steps per second")
        _step_axis(axis)
        _log_axis(axis)
    _legend(figure, groups)
    figure.suptitle("Speed of training: median over seeds, lowest to highest shaded")
    return figure


def solver_health(groups: Sequence[Group]) -> Figure | None:
    """What the solver of the hypergradient reported by step, an axis per quantity."""
    panels: dict[tuple[str, str], list[Group]] = {}
    for environment, members in _by_environment(groups).items():
        for column in _solver_columns(members):
            with_it = [g for g in members if any(run.series(column) for run in g.runs)]
            panels[environment, column] = with_it
    if not panels:
        return None
    figure, axes = _grid(len(panels), columns=2, height=3.1)
    for axis, ((environment, column), members) in zip(axes, panels.items(), strict=True):
        for group in members:
            _plot_curve(axis, group, statistics.metric_curve(group, column))
        _solver_axis(axis, column.removeprefix("solver/"), environment)
    shown = [group for group in groups if any(group in members for members in panels.values())]
    _legend(figure, shown)
    figure.suptitle("Solver of the hypergradient: median over seeds, lowest to highest shaded")
    return figure


def _solver_columns(groups: Sequence[Group]) -> list[str]:
    """Those of the groups, the known ones first and in the order of their labels."""
    rows = [row for group in groups for run in group.runs for row in run.metrics]
    found = {name for row in rows for name in row if name.startswith("solver/")}
    known = [f"solver/{name}" for name in SOLVER_LABELS]
    return [name for name in known if name in found] + sorted(found - set(known))


def _solver_axis(axis: Axes, name: str, environment: str) -> None:
    label = SOLVER_LABELS.get(name, name.replace("_", " "))
    _label(axis, label, "share" if label.startswith("share") else name.replace("_", " "))
    axis.set_title(_wrap(environment, 30), loc="right", fontsize=9.5, color="#555555")
    _step_axis(axis)
    if label.startswith("share"):
        axis.set_ylim(-0.05, 1.05)
    elif name.endswith(("residual", "norm")):
        _log_axis(axis)
    else:
        axis.set_ylim(bottom=0)


def number(x: float) -> str:
    """A return or a rate with three digits or more, as 5,816 or 0.123."""
    return f"{x:,.0f}" if abs(x) >= 100 else f"{x:.3g}"


def span(interval: Sequence[float]) -> str:
    return f"[{number(interval[0])}, {number(interval[1])}]"


def _by_environment(groups: Sequence[Group]) -> dict[str, list[Group]]:
    by_environment: dict[str, list[Group]] = {}
    for group in groups:
        by_environment.setdefault(group.environment, []).append(group)
    return by_environment


def _grid(count: int, columns: int, height: float = 4.0) -> tuple[Figure, list[Axes]]:
    """A figure with `count` axes, `height` inches each; a single one is wide and higher."""
    columns = min(columns, count)
    rows = -(-count // columns)
    height = height if columns > 1 else max(height, 4.6)
    figure = Figure(figsize=(WIDTH, 0.9 + rows * height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[count:]:
        axis.remove()
    return figure, list(axes[:count])


def _plot_curve(axis: Axes, group: Group, curve: Curve, marker: str | None = None) -> None:
    color, style = style_of(group)
    if curve.low is not None:
        axis.fill_between(curve.x, curve.low, curve.high, color=color, alpha=0.2, linewidth=0)
    axis.plot(curve.x, curve.middle, color=color, linestyle=style, linewidth=2,
              marker=marker or _marker(curve.x), markersize=5)  # fmt: skip


def _marker(x: Sequence[float]) -> str:
    """A single point would show no line."""
    return "o" if len(x) == 1 else ""


def _label(
    axis: Axes, title: str, y: str, x: str = "environment steps", chars: int = TITLE_CHARS
) -> None:
    axis.set(title=_wrap(title, chars), xlabel=x, ylabel=y)


def _step_axis(axis: Axes) -> None:
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))


def _log_axis(axis: Axes) -> None:
    """Logarithmic, unless there is nothing above 0 to show."""
    values = np.concatenate([line.get_ydata() for line in axis.lines] or [np.zeros(0)])
    if (values > 0).any():
        axis.set_yscale("log", nonpositive="mask")


def _legend(figure: Figure, groups: Sequence[Group], more: Sequence[Patch] = ()) -> None:
    lines = [
        Line2D([], [], color=style_of(group)[0], linestyle=style_of(group)[1], linewidth=2.5)
        for group in groups
    ]
    labels = [_wrap(group.name, LEGEND_CHARS) for group in groups]
    labels += [patch.get_label() for patch in more]
    figure.legend([*lines, *more], labels, loc="outside lower left", ncols=2)


def _wrap(text: str, width: int) -> str:
    return "\n".join(textwrap.wrap(text, width))
