"""The figures of a study's part, one colour and line style per arm throughout."""

import itertools
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from baselines_tf2.report.figures import grid, label_axis, plot_curve, step_axis, style_of
from baselines_tf2.report.statistics import Curve, iqm
from baselines_tf2.sweeps.study import Part, words
from baselines_tf2.sweeps.study_outcomes import LAST, OUTCOMES
from baselines_tf2.sweeps.study_store import Store
from baselines_tf2.sweeps.study_tables import estimates, results


class Line(NamedTuple):
    """An arm as a legend has it."""

    index: int
    name: str


def outcome_by_level(part: Part, store: Store, outcome: str) -> Figure | None:
    """The outcome with its interval against the first factor, an axis for each level of the others."""
    found = {(one.level, one.arm): one.value for one in results(part, store, outcome)}
    if not found:
        return None
    factor, ticks = next(iter(part.factors.items()), ("", [""]))
    panels = list(dict.fromkeys(words(level, [factor]) for level in part.levels))
    lines = _lines(part)
    title = f"{part.title}: interquartile mean, 95% interval over seeds"
    figure, axes = grid(len(panels), title, lines.values(), 2, 4.4)
    for axis, panel in zip(axes, panels, strict=True):
        for arm, line in lines.items():
            levels = [level for level in part.levels if words(level, [factor]) == panel]
            values = [(x, found.get((words(level), arm))) for x, level in enumerate(levels)]
            _errorbars(axis, line, len(lines), [(x, v) for x, v in values if v is not None])
        axis.set_xticks(range(len(ticks)), list(ticks))
        label_axis(axis, panel, OUTCOMES[outcome].words, factor)
    return figure


def _errorbars(axis, line, count, values) -> None:
    if values:
        places = np.array([x for x, _ in values]) + 0.4 * ((line.index + 0.5) / count - 0.5)
        middle, low, high = np.array([value for _, value in values]).T
        color, style = style_of(line)
        ends = np.nan_to_num([middle - low, high - middle]).clip(0)
        axis.errorbar(places, middle, ends, color=color, ls=style, marker="o", markersize=5,
                      capsize=3, linewidth=1.5)  # fmt: skip


def learning_curves(part: Part, store: Store, outcome: str) -> Figure | None:
    """Return by step, that outside the training range if the outcome is of it; an axis per level."""
    name = "outside" if "outside" in outcome else "return"
    return _curves(part, store, name, "environment steps", "learning")


def return_by_mass(part: Part, store: Store, outcome: str) -> Figure | None:
    """Return by torso mass in the last evaluations, an axis per level."""
    return _curves(
        part, store, "torso_mass", "torso mass [kg]", f"mean of the last {LAST} evaluations"
    )


def _curves(part, store, name, x_label, title) -> Figure | None:
    lines, found = _lines(part), []
    for level, arm in itertools.product(part.levels, lines):
        keys = store.cell(part, arm, part.level_of(arm, level))
        if series := [store.curves[k][name] for k in keys if name in store.curves.get(k, {})]:
            found.append((words(level), lines[arm], *_extended(series)))
    if not found:
        return None
    values = iter(estimates(iqm, [(point,) for *_, scores in found for point in scores.T]))
    panels = {}
    for panel, line, steps, _ in found:
        curve = np.array([next(values) for _ in steps]).T
        panels.setdefault(panel, []).append((line, Curve(steps, *curve)))
    title = f"{part.title}, {title}: interquartile mean, 95% interval over seeds"
    figure, axes = grid(len(panels), title, lines.values())
    for axis, (panel, curves) in zip(axes, panels.items(), strict=True):
        for line, curve in curves:
            plot_curve(axis, line, curve)
        label_axis(axis, panel, "return outside" if name == "outside" else "return", x_label)
        step_axis(axis)
    return figure


def _extended(series) -> tuple[np.ndarray, np.ndarray]:
    """The steps of the longest curve, and all at them, `[seeds, steps]`: one that failed stays."""
    steps = max((x for x, _ in series), key=len)
    return steps, np.array([np.interp(steps, x, y) for x, y in series])


def _lines(part: Part) -> dict[str, Line]:
    return {arm: Line(i, arm) for i, arm in enumerate(part.arms)}


FIGURES = {"outcome": outcome_by_level, "curves": learning_curves, "masses": return_by_mass}
