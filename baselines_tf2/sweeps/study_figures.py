"""The figures of a study's part, one colour and line style per arm throughout."""

import itertools
from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from baselines_tf2.report.figures import grid, label_axis, plot_curve, step_axis, style_of, wrap
from baselines_tf2.report.runs import Line
from baselines_tf2.report.statistics import Curve, iqm
from baselines_tf2.runs.judging import PERCENTILES
from baselines_tf2.sweeps.study import Part, words
from baselines_tf2.sweeps.study_outcomes import LAST, OUTCOMES
from baselines_tf2.sweeps.study_store import Store
from baselines_tf2.sweeps.study_tables import FEWEST, estimates, results, scores

STEPS, MASS = "environment steps", "torso mass [kg]"


def outcome_by_level(part: Part, store: Store, outcome: str) -> Figure | None:
    """The outcome with its interval against the first factor, an axis for each level of the others.

    Of a part without factors: against the arms.
    """
    found = {(one.level, one.arm): one.value for one in results(part, store, outcome)}
    if not found:
        return None
    seeds, lines = scores(part, store, outcome), _lines(part)
    factor, ticks = next(iter(part.factors.items()), ("", [wrap(arm, 18) for arm in lines]))
    panels = list(dict.fromkeys(words(level, [factor]) for level in part.levels))
    title = f"{part.title}\n{_said(seeds.values())}, seeds small"
    figure, axes = _grid(len(panels), title, lines.values() if factor else (), 4.4)
    for axis, panel in zip(axes, panels, strict=True):
        levels = [words(level) for level in part.levels if words(level, [factor]) == panel]
        for arm, line in lines.items():
            places = [i + 0.6 * ((line.index + 0.5) / len(lines) - 0.5) for i in range(len(levels))]
            at = dict(zip(levels, places if factor else [line.index], strict=True))
            done = [x for x in at if (x, arm) in found]
            _errorbars(axis, line, [(at[x], found[x, arm], seeds[x, arm]) for x in done])
        axis.set_xticks(range(len(ticks)), list(ticks))
        axis.set_xlim(-0.5, len(ticks) - 0.5)
        label_axis(axis, panel, OUTCOMES[outcome].words, factor)
    return figure


def _errorbars(axis, line, done) -> None:
    """One arm where it was run: (place, estimate, seeds)."""
    color, style = style_of(line)
    for x, value, seeds in done:
        axis.plot([x + 0.03] * len(seeds), seeds, "o", color=color, markersize=3, alpha=0.6)
        if len(seeds) >= FEWEST:
            axis.plot([x] * 2, value[1:], color=color, linewidth=2.5, alpha=0.8)
    places, values = [x for x, *_ in done], [value.middle for _, value, _ in done]
    axis.plot(places, values, color=color, linestyle=style, marker="D", markersize=6, linewidth=1)


def _said(samples: Iterable[np.ndarray]) -> str:
    """What middles and bands are."""
    if min(map(len, samples)) < FEWEST:
        return f"interquartile mean over seeds, 95% interval of {FEWEST} or more"
    return "interquartile mean, 95% interval over seeds"


def _grid(count: int, title: str, lines, height: float = 4.0) -> tuple[Figure, list[Axes]]:
    """Axes with one scale of returns."""
    figure, axes = grid(count, wrap(title, 104), lines, height=height)
    for axis in axes[1:]:
        axis.sharey(axes[0])
    return figure, axes


def learning_curves(part: Part, store: Store, outcome: str) -> Figure | None:
    """Return by step, that outside the training range if the outcome is of it; an axis per level."""
    return _curves(part, store, "outside" if "outside" in outcome else "return", STEPS, "learning")


def return_by_mass(part: Part, store: Store, outcome: str) -> Figure | None:
    """Return by torso mass in the last evaluations, an axis per level."""
    return _curves(part, store, "torso_mass", MASS, f"mean of the last {LAST} evaluations", "o")


def percentiles_by_mass(part: Part, store: Store, outcome: str) -> Figure | None:
    """Mean and percentiles of the return by torso mass, as in EPOpt's figures; an axis per arm."""
    names = ["torso_mass", *(f"torso_mass_p{percent}" for percent in PERCENTILES)]
    found = {name: _by_cell(part, store, name) for name in names}
    if not found[names[-1]]:
        return None
    title = f"{part.title}\nlast {LAST} evaluations: mean (diamonds), median (dashed), "
    title += "percentiles 10 to 90 (shaded); means over seeds"
    panels = list(found[names[-1]])
    figure, axes = _grid(len(panels), title, (), 3.4)
    for axis, (level, arm) in zip(axes, panels, strict=True):
        x, _ = found[names[0]][level, arm]
        middle, low, half, high = (iqm(found[name][level, arm][1]) for name in names)
        color, _ = style_of(_lines(part)[arm])
        axis.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
        axis.plot(x, half, color=color, linestyle="dashed", linewidth=1.5)
        axis.plot(x, middle, color=color, marker="D", markersize=4.5, linewidth=2)
        label_axis(axis, ", ".join(filter(None, (arm, level))), "return per episode", MASS)
    return figure


def _curves(part, store, name, x_label, title, marker=None) -> Figure | None:
    lines, found = _lines(part), _by_cell(part, store, name)
    if not found:
        return None
    middles = iter(estimates(iqm, [(point,) for _, y in found.values() for point in y.T]))
    panels = list(dict.fromkeys(level for level, _ in found))
    title = f"{part.title}, {title}\n{_said(seeds for _, seeds in found.values())}"
    figure, axes = _grid(len(panels), title, lines.values())
    by_panel = dict(zip(panels, axes, strict=True))
    for (panel, arm), (x, seeds) in found.items():
        axis, few = by_panel[panel], len(seeds) < FEWEST
        middle, *ends = np.array([next(middles) for _ in x]).T
        plot_curve(axis, lines[arm], Curve(x, middle, None if few else np.array(ends)), marker)
        for y in seeds if few else ():
            axis.plot(x, y, color=style_of(lines[arm])[0], linewidth=0.7, alpha=0.5)
    for panel, axis in by_panel.items():
        side = " outside the training range" if name == "outside" else ""
        label_axis(axis, panel, f"return per episode{side}", x_label)
        if x_label == STEPS:
            step_axis(axis)
    return figure


def _by_cell(part: Part, store: Store, name: str) -> dict[tuple[str, str], tuple]:
    """(level, arm) -> the places of this curve, and its values there, `[seeds, places]`."""
    found = {}
    for level, arm in itertools.product(part.levels, part.arms):
        keys = store.cell(part, arm, part.level_of(arm, level))
        if series := [store.curves[k][name] for k in keys if name in store.curves.get(k, {})]:
            steps = max((x for x, _ in series), key=len)  # one that failed stays where it was
            values = np.array([np.interp(steps, x, y) for x, y in series])
            found[words(level), arm] = steps, values
    return found


def _lines(part: Part) -> dict[str, Line]:
    return {arm: Line(i, arm) for i, arm in enumerate(part.arms)}


FIGURES = {
    "outcome": outcome_by_level,
    "curves": learning_curves,
    "masses": return_by_mass,
    "percentiles": percentiles_by_mass,
}
