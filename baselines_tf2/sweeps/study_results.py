"""What a study's numbers say: interquartile means and verdicts, in tables and figures."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from baselines_tf2.report import figures
from baselines_tf2.report.figures import BAND, Drawn, label_axis, plot_curve, plot_seeds, style_of
from baselines_tf2.report.runs import Line
from baselines_tf2.report.statistics import Estimate, estimates, iqm, iqm_curve, middles, number
from baselines_tf2.runs.judging import PERCENTILES
from baselines_tf2.sweeps.study import Part, words
from baselines_tf2.sweeps.study_outcomes import LAST, OUTCOMES, TORSO_MASS
from baselines_tf2.sweeps.study_store import FINISHED, Key, Place, Store

TOO_FEW = "too few runs"
MASS = "torso mass [kg]"
SAID = f"interquartile mean over seeds, {BAND}"
VERDICTS = {1: ("worse", "better"), -1: ("better", "worse"), 0: ("lower", "higher")}


class Result(NamedTuple):
    """Of an arm at a level, beside the baseline at that level."""

    value: Estimate
    seeds: int  # that have the outcome
    difference: Estimate | None = None  # of interquartile means; None of the baseline itself
    improvement: Estimate | None = None  # probability that a run is better than one of the baseline


Found = Mapping[Place, Result]  # what came out at each place


def scores(part: Part, store: Store, outcome: str) -> dict[Place, np.ndarray]:
    """The outcome of the runs at each place, `[seeds]`, where there is one.

    An arm without a factor is at all its levels. A run that failed before it had a value that can
    be good or bad has the worst of its part; one that finished without a value is left out.
    """
    places = store.places(part)
    found = {
        place: np.array([store.number(key, outcome) for key in keys], float)
        for place, keys in places.items()
    }
    every = np.concatenate([*found.values()])
    if np.isnan(every).all():
        return {}
    sign = OUTCOMES[outcome].sign
    worst = sign * np.nanmin(sign * every) if sign else np.nan
    for place, x in found.items():
        lost = [store.has_lost(key, outcome) for key in places[place]]
        x[np.isnan(x) & np.array(lost, bool)] = worst
    return {place: kept for place, x in found.items() if (kept := x[~np.isnan(x)]).size}


def results(part: Part, store: Store, outcome: str) -> Found:
    """What came out at each place where a run was done."""
    samples, sign = scores(part, store, outcome), OUTCOMES[outcome].sign or 1
    values = middles(samples)
    pairs = {
        (level, arm): (x, samples[level, part.baseline])
        for (level, arm), x in samples.items()
        if arm != part.baseline and (level, part.baseline) in samples
    }
    gains = estimates(lambda x, y, axis=0: iqm(x, axis) - iqm(y, axis), pairs)
    chances = estimates(improvement, {at: (sign * x, sign * y) for at, (x, y) in pairs.items()})
    return {
        at: Result(values[at], len(x), gains.get(at), chances.get(at)) for at, x in samples.items()
    }


def improvement(x: np.ndarray, y: np.ndarray, axis: int = 0) -> np.ndarray:
    """Probability that a score of x is above one of y, a tie counting half: `[points]`.

    x, y: `[seeds, points]`. For each point rliable's `probability_of_improvement`, all at once.
    """
    x, y = np.moveaxis(x, axis, -1)[..., None], np.moveaxis(y, axis, -1)[..., None, :]
    return ((x > y) + (x == y) / 2).mean((-2, -1))


def verdict(gain: Estimate, sign: int) -> str:
    """'none' if the interval of the difference holds 0."""
    if np.isnan(gain.low):
        return TOO_FEW
    return VERDICTS[sign][gain.low > 0] if gain.low > 0 or gain.high < 0 else "none"


def set_apart(one: Result, outcome: str) -> Sequence:
    """Difference, probability and verdict; of few runs the last alone."""
    said = verdict(one.difference or Estimate(np.nan), OUTCOMES[outcome].sign)
    return ("–", "–", said) if said == TOO_FEW else (one.difference, one.improvement, said)


def comparison(part: Part, store: Store, outcome: str, found: Found) -> str:
    """Every arm at every level: its value, and what sets it apart from the baseline."""
    width = 7 if part.baseline else 4
    few = any(one.value.is_range for one in found.values())
    value = "IQM [95% interval]" + " or (lowest to highest)" * few
    beside = f"minus {part.baseline}", "P(better)", "difference"
    rows: list[Sequence] = [("level", "arm", "runs", value, *beside)[:width]]
    places = store.places(part)
    for (level, arm), one in found.items():
        end: Sequence = ("", "", "baseline" if arm == part.baseline else "–")
        if one.difference is not None:
            end = set_apart(one, outcome)
        done = places[level, arm]
        runs = counted(store, done) + f", {one.seeds} counted" * (one.seeds < len(done))
        rows.append((level or "–", arm, runs, one.value, *end)[:width])
    return markdown(*rows)


def summary(part: Part, store: Store, outcome: str, found: Found) -> str:
    """Arms by levels: interquartile means with their intervals."""
    values = {place: one.value for place, one in found.items()}
    levels, arms = (dict.fromkeys(place[i] for place in values) for i in (0, 1))
    head = ("arm", *(level or OUTCOMES[outcome].words for level in levels))
    return markdown(head, *((arm, *(values.get((x, arm), "–") for x in levels)) for arm in arms))


def outcomes(part: Part, store: Store, outcome: str, found: Found) -> str:
    """Interquartile means of everything that was measured; the given outcome first."""
    names = dict.fromkeys((outcome, *part.outcomes))
    columns = {name: scores(part, store, name) for name in names}
    rows = [("level", "arm", *(OUTCOMES[name].words for name in names))]
    for place, runs in store.places(part).items():
        if place not in found:
            continue
        means = (_mean_of(columns[name].get(place, np.array([])), len(runs)) for name in names)
        rows.append((place[0] or "–", place[1], *means))
    return markdown(*rows)


def _mean_of(values: np.ndarray, runs: int) -> str:
    """Interquartile mean; of how many of the runs, where not all have such a number."""
    if not len(values):
        return "–"
    return number(float(iqm(values))) + f" ({len(values)} of {runs})" * (len(values) < runs)


def markdown(head: Sequence, *rows: Sequence) -> str:
    first, *others = ("| " + " | ".join(map(str, row)) + " |" for row in (head, *rows))
    return "\n".join((first, "|---" * len(head) + "|", *others))


TABLES = {"comparison": comparison, "summary": summary, "outcomes": outcomes}


def counted(store: Store, keys: Sequence[Key]) -> str:
    """How many runs, and of them failed ones."""
    failed = sum(store.rows[key]["status"] != FINISHED for key in keys)
    return f"{len(keys)} ({failed} failed)" if failed else str(len(keys))


def outcome_by_level(part: Part, store: Store, outcome: str) -> Figure | None:
    """The outcome with its interval against the first factor, an axis for each level of the others.

    Of a part without factors: against the arms.
    """
    found = results(part, store, outcome)
    if not found:
        return None
    seeds, lines = scores(part, store, outcome), _lines(part)
    factor, ticks = next(iter(part.factors.items()), ("", [figures.wrap(arm, 18) for arm in lines]))
    title = f"{part.title}\n{SAID}, seeds small"
    panels = (words(level, [factor]) for level in part.levels)
    figure, axes = _axes(panels, title, _legend(lines, found) if factor else [], 4.4)
    for panel, axis in axes.items():
        levels = [words(level) for level in part.levels if words(level, [factor]) == panel]
        for arm, line in lines.items():
            (color, style), points = style_of(line), []
            for i, level in enumerate(levels):
                one = found.get((level, arm))
                shift = 0.6 * ((line.index + 0.5) / len(lines) - 0.5)
                x = i + shift if factor else line.index
                points.append((x, one.value.middle if one else np.nan))  # no line across a gap
                if one:
                    plot_seeds(axis, line, x, seeds[level, arm], one.value.interval)
            axis.plot(*zip(*points, strict=True), color=color, linestyle=style, marker="D",
                      markersize=6, linewidth=1)  # fmt: skip
        axis.set_xticks(range(len(ticks)), list(ticks))
        axis.set_xlim(-0.5, len(ticks) - 0.5)
        label_axis(axis, panel, OUTCOMES[outcome].words, factor)
    return figure


def _axes(panels: Iterable, title: str, lines: Collection[Line], height: float = 4.0) -> Drawn:
    """A figure with an axis for each of the panels, of one scale of returns."""
    figure, axes = figures.grid(dict.fromkeys(panels), title, lines, height=height)
    first, *others = axes.values()
    for axis in others:
        axis.sharey(first)
    return figure, axes


def learning_curves(part: Part, store: Store, outcome: str) -> Figure | None:
    """Return by step, that outside the training range if the outcome is of it; an axis per level."""
    name = "outside" if "outside" in outcome else "return"
    return _curves(part, store, name, figures.STEPS, "learning")


def return_by_mass(part: Part, store: Store, outcome: str) -> Figure | None:
    """Return by torso mass in the last evaluations, an axis per level."""
    return _curves(part, store, TORSO_MASS, MASS, f"mean of the last {LAST} evaluations", "o")


def percentiles_by_mass(part: Part, store: Store, outcome: str) -> Figure | None:
    """Mean and percentiles of the return by torso mass, as in EPOpt's figures; an axis per arm."""
    names = [TORSO_MASS, *(f"{TORSO_MASS}_p{percent}" for percent in PERCENTILES)]
    found = {name: _by_place(part, store, name) for name in names}
    if not found[names[-1]]:
        return None
    title = f"{part.title}\nlast {LAST} evaluations: mean (diamonds), median (dashed), "
    title += "percentiles 10 to 90 (shaded); means over seeds"
    figure, axes = _axes(found[names[-1]], title, (), 3.4)
    for (level, arm), axis in axes.items():
        x, _ = found[names[0]][level, arm]
        middle, low, half, high = (iqm(found[name][level, arm][1]) for name in names)
        color, _ = style_of(_lines(part)[arm])
        axis.fill_between(x, low, high, color=color, alpha=0.2, linewidth=0)
        axis.plot(x, half, color=color, linestyle="dashed", linewidth=1.5)
        axis.plot(x, middle, color=color, marker="D", markersize=4.5, linewidth=2)
        label_axis(axis, ", ".join(filter(None, (arm, level))), "return per episode", MASS)
    return figure


def _curves(part, store, name, x_label, title, marker="") -> Figure | None:
    lines, found = _lines(part), _by_place(part, store, name)
    if not found:
        return None
    title = f"{part.title}, {title}\n{SAID}"
    figure, axes = _axes((level for level, _ in found), title, _legend(lines, found))
    for (level, arm), (x, seeds) in found.items():
        curve = iqm_curve(x, seeds)
        plot_curve(axes[level], lines[arm], curve, marker)
        for y in seeds if curve.ends is None else ():
            axes[level].plot(x, y, color=style_of(lines[arm])[0], linewidth=0.7, alpha=0.5)
    side = " outside the training range" * (name == "outside")
    for level, axis in axes.items():
        label_axis(axis, level, f"return per episode{side}", x_label)
    return figure


def _by_place(part: Part, store: Store, name: str) -> dict[Place, tuple]:
    """The points of this curve, and its values there, `[seeds, points]`."""
    found = {}
    for place, keys in store.places(part).items():
        if series := [store.curves[k][name] for k in keys if name in store.curves.get(k, {})]:
            steps = max((x for x, _ in series), key=len)  # one that failed stays where it was
            found[place] = steps, np.array([np.interp(steps, x, y) for x, y in series])
    return found


def _legend(lines: Mapping[str, Line], found: Collection[Place]) -> list[Line]:
    """Of the arms that there is something of."""
    arms = {arm for _, arm in found}
    return [line for arm, line in lines.items() if arm in arms]


def _lines(part: Part) -> dict[str, Line]:
    return {arm: Line(i, arm) for i, arm in enumerate(part.arms)}


FIGURES = {
    "outcome": outcome_by_level,
    "curves": learning_curves,
    "masses": return_by_mass,
    "percentiles": percentiles_by_mass,
}
