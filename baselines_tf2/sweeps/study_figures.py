"""The figures of a study's part, one colour and line style per arm throughout."""

from collections.abc import Iterable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from baselines_tf2.common.returns import PERCENTILES
from baselines_tf2.report.figures import (
    grid,
    label_axis,
    plot_curve,
    plot_seeds,
    step_axis,
    style_of,
    wrap,
)
from baselines_tf2.report.runs import Line
from baselines_tf2.report.statistics import Curve, iqm
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
    panels = dict.fromkeys(words(level, [factor]) for level in part.levels)
    legend = lines.values() if factor else ()
    axes = _axes(panels, f"{part.title}\n{_said(seeds.values())}, seeds small", legend, 4.4)
    for panel, axis in axes.items():
        levels = [words(level) for level in part.levels if words(level, [factor]) == panel]
        for arm, line in lines.items():
            first, (color, style) = 0.6 * ((line.index + 0.5) / len(lines) - 0.5), style_of(line)
            at = {x: i + first if factor else line.index for i, x in enumerate(levels)}
            at = {(level, arm): x for level, x in at.items() if (level, arm) in found}
            for place, x in at.items():
                ends = found[place][1:] if len(seeds[place]) >= FEWEST else None
                plot_seeds(axis, line, x, seeds[place], ends)
            axis.plot([*at.values()], [found[place].middle for place in at], color=color,
                      linestyle=style, marker="D", markersize=6, linewidth=1)  # fmt: skip
        axis.set_xticks(range(len(ticks)), list(ticks))
        axis.set_xlim(-0.5, len(ticks) - 0.5)
        label_axis(axis, panel, OUTCOMES[outcome].words, factor)
    return axis.figure


def _said(samples: Iterable[np.ndarray]) -> str:
    """What middles and bands are."""
    if min(map(len, samples)) < FEWEST:
        return f"interquartile mean over seeds, 95% interval of {FEWEST} or more"
    return "interquartile mean, 95% interval over seeds"


def _axes(panels: Iterable, title: str, lines, height: float = 4.0) -> dict[object, Axes]:
    """An axis for each panel, with one scale of returns."""
    panels = list(panels)
    _, axes = grid(len(panels), wrap(title, 104), lines, height=height)
    for axis in axes[1:]:
        axis.sharey(axes[0])
    return dict(zip(panels, axes, strict=True))


def learning_curves(part: Part, store: Store, outcome: str) -> Figure | None:
    """Return by step, that outside the training range if the outcome is of it; an axis per level."""
    return _curves(part, store, "outside" if "outside" in outcome else "return", STEPS, "learning")


def return_by_mass(part: Part, store: Store, outcome: str) -> Figure | None:
    """Return by torso mass in the last evaluations, an axis per level."""
    return _curves(part, store, "torso_mass", MASS, f"mean of the last {LAST} evaluations", "o")


def percentiles_by_mass(part: Part, store: Store, outcome: str) -> Figure | None:
    """Mean and percentiles of the return by torso mass, as in EPOpt's figures; an axis per arm."""
    names = ["torso_mass", *(f"torso_mass_p{percent}" for percent in PERCENTILES)]
    found = {name: _by_place(part, store, name) for name in names}
    if not found[names[-1]]:
        return None
    title = f"{part.title}\nlast {LAST} evaluations: mean (diamonds), median (dashed), "
    title += "percentiles 10 to 90 (shaded); means over seeds"
    for (level, arm), axis in _axes(found[names[-1]], title, (), 3.4).items():
        x, _ = found[names[0]][level, arm]
        middle, low, half, high = (iqm(found[name][level, arm][1]) for name in names)
        color, _ = style_of(_lines(part)[arm])
        axis.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
        axis.plot(x, half, color=color, linestyle="dashed", linewidth=1.5)
        axis.plot(x, middle, color=color, marker="D", markersize=4.5, linewidth=2)
        label_axis(axis, ", ".join(filter(None, (arm, level))), "return per episode", MASS)
    return axis.figure


def _curves(part, store, name, x_label, title, marker="") -> Figure | None:
    lines, found = _lines(part), _by_place(part, store, name)
    if not found:
        return None
    middles = iter(estimates(iqm, [(point,) for _, y in found.values() for point in y.T]))
    title = f"{part.title}, {title}\n{_said(seeds for _, seeds in found.values())}"
    axes = _axes(dict.fromkeys(level for level, _ in found), title, lines.values())
    for (level, arm), (x, seeds) in found.items():
        axis, few = axes[level], len(seeds) < FEWEST
        middle, *ends = np.array([next(middles) for _ in x]).T
        plot_curve(axis, lines[arm], Curve(x, middle, None if few else np.array(ends)), marker)
        for y in seeds if few else ():
            axis.plot(x, y, color=style_of(lines[arm])[0], linewidth=0.7, alpha=0.5)
    side = " outside the training range" * (name == "outside")
    for level, axis in axes.items():
        label_axis(axis, level, f"return per episode{side}", x_label)
        if x_label == STEPS:
            step_axis(axis)
    return axis.figure


def _by_place(part: Part, store: Store, name: str) -> dict[tuple[str, str], tuple]:
    """(level, arm) -> the places of this curve, and its values there, `[seeds, places]`."""
    found = {}
    for place, keys in store.places(part).items():
        if series := [store.curves[k][name] for k in keys if name in store.curves.get(k, {})]:
            steps = max((x for x, _ in series), key=len)  # one that failed stays where it was
            found[place] = steps, np.array([np.interp(steps, x, y) for x, y in series])
    return found


def _lines(part: Part) -> dict[str, Line]:
    return {arm: Line(i, arm) for i, arm in enumerate(part.arms)}


FIGURES = {
    "outcome": outcome_by_level,
    "curves": learning_curves,
    "masses": return_by_mass,
    "percentiles": percentiles_by_mass,
}
