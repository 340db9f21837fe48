"""What a study's numbers say: interquartile means, differences and verdicts, as tables of text."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from baselines_tf2.common.report_figures import number, span
from baselines_tf2.common.report_statistics import FINAL_REPS, interval, iqm
from baselines_tf2.common.study import Part
from baselines_tf2.common.study_outcomes import OUTCOMES
from baselines_tf2.common.study_store import FINISHED, Key, Store


class Estimate(NamedTuple):
    """A statistic over seeds, and the ends of its 95% interval, NaN for a single seed."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return number(self.middle) + ("" if np.isnan(self.low) else f" {span(self[1:])}")


class Result(NamedTuple):
    """An arm at a level, beside the baseline at that level."""

    arm: str
    level: str
    runs: list[Key]
    value: Estimate
    difference: Estimate | None = None  # of interquartile means; None of the baseline itself
    improvement: Estimate | None = None  # probability that a run is better than one of the baseline


def results(part: Part, store: Store, outcome: str) -> list[Result]:
    """Every arm at every level of which a run was done; an arm without a factor at all its levels."""
    places = [(arm, level) for level in part.levels for arm in part.arms]
    runs = [store.cell(part, arm, part.level_of(arm, level)) for arm, level in places]
    scores = _scores(part, store, outcome)
    shown = [i for i, keys in enumerate(runs) if any(key in scores for key in keys)]
    samples = {i: np.array([scores[key] for key in runs[i]]) for i in shown}
    own = _estimates(iqm, [(samples[i],) for i in shown])
    found = {
        i: Result(places[i][0], ", ".join(f"{f}={x}" for f, x in places[i][1].items()), runs[i], x)
        for i, x in zip(shown, own, strict=True)
    }
    first = {result.level: i for i, result in found.items() if result.arm == part.baseline}
    others = {
        i: first[r.level] for i, r in found.items() if r.level in first and r.arm != part.baseline
    }
    pairs = [(samples[i], samples[j]) for i, j in others.items()]
    sign = OUTCOMES[outcome].sign or 1
    differences = _estimates(difference, pairs)
    chances = _estimates(improvement, [(sign * x, sign * y) for x, y in pairs])
    for i, gain, chance in zip(others, differences, chances, strict=True):
        found[i] = found[i]._replace(difference=gain, improvement=chance)
    return list(found.values())


def _scores(part: Part, store: Store, outcome: str) -> dict[Key, float]:
    """Each run's outcome; a run without one, which failed before it had any, has the worst."""
    keys = {key for cell in part.cells() for key in store.cell(part, *cell)}
    scores = {key: store.number(key, outcome) for key in keys}
    known = [x for x in scores.values() if not np.isnan(x)]
    if not known:
        return {}
    worst = max(known) if OUTCOMES[outcome].sign < 0 else min(known)
    failed = {key for key in keys if store.rows[key]["status"] != FINISHED}
    return {
        key: worst if np.isnan(x) else x
        for key, x in scores.items()
        if key in failed or not np.isnan(x)
    }


def difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of the interquartile means: scores `[seeds, points]` each to `[points]`."""
    return iqm(x) - iqm(y)


def improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Probability that a score of x is above one of y, a tie counting half; shapes as above.

    For each point rliable's `probability_of_improvement`, of all points at once.
    """
    x, y = x[:, None], y[None]
    return (x > y).mean((0, 1)) + (x == y).mean((0, 1)) / 2


def _estimates(
    statistic: Callable[..., np.ndarray], samples: Sequence[tuple[np.ndarray, ...]]
) -> list[Estimate]:
    """The statistic of each entry, one or two samples `[seeds]`; those of equal sizes at once."""
    by_size, found = defaultdict(list), {}
    for i, arrays in enumerate(samples):
        by_size[tuple(map(len, arrays))].append(i)
    for places in by_size.values():
        stacked = [np.stack(x, axis=1) for x in zip(*(samples[i] for i in places), strict=True)]
        ends = interval(statistic, *stacked, reps=FINAL_REPS)
        ends = np.full((2, len(places)), np.nan) if ends is None else ends
        found |= dict(zip(places, zip(statistic(*stacked), *ends, strict=True), strict=True))
    return [Estimate(*map(float, found[i])) for i in range(len(samples))]


def verdict(gain: Estimate, sign: int) -> str:
    """'none' if the interval of the difference holds 0, as that of a single seed does."""
    if not (gain.low > 0 or gain.high < 0):
        return "none"
    rises = gain.low > 0
    return (
        ("higher" if rises else "lower")
        if not sign
        else "better"
        if rises == (sign > 0)
        else "worse"
    )


def comparison(part: Part, store: Store, outcome: str) -> str:
    """Every arm at every level: its value, and what sets it apart from the baseline."""
    rows = [("level", "arm", "runs", "IQM [95% interval]", f"minus {part.baseline}",
             "P(better)", "difference")]  # fmt: skip
    for one in results(part, store, outcome):
        failed = sum(store.rows[key]["status"] != FINISHED for key in one.runs)
        runs = str(len(one.runs)) + (f", {failed} failed" if failed else "")
        end = ("", "", "baseline" if one.arm == part.baseline else "–")
        if one.difference is not None:
            end = (one.difference, one.improvement, verdict(one.difference, OUTCOMES[outcome].sign))
        rows.append((one.level or "–", one.arm, runs, one.value, *end))
    return _table(rows)


def summary(part: Part, store: Store, outcome: str) -> str:
    """Arms by levels: interquartile means with their intervals."""
    found = results(part, store, outcome)
    levels = list(dict.fromkeys(one.level for one in found))
    rows = [("arm", *(level or OUTCOMES[outcome].words for level in levels))]
    for arm in dict.fromkeys(one.arm for one in found):
        values = {one.level: one.value for one in found if one.arm == arm}
        rows.append((arm, *(values.get(level, "–") for level in levels)))
    return _table(rows)


def outcomes(part: Part, store: Store, outcome: str) -> str:
    """Interquartile means of everything that was measured; the given outcome first."""
    names = dict.fromkeys((outcome, *part.outcomes))
    columns = {
        name: {(r.level, r.arm): r.value for r in results(part, store, name)} for name in names
    }
    rows = [("level", "arm", *(OUTCOMES[name].words for name in names))]
    for level, arm in columns[outcome]:
        values = (columns[name].get((level, arm)) for name in names)
        rows.append((level or "–", arm, *("–" if v is None else number(v.middle) for v in values)))
    return _table(rows)


def _table(rows: Sequence[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join((lines[0], "|---" * len(rows[0]) + "|", *lines[1:]))


TABLES = {"comparison": comparison, "summary": summary, "outcomes": outcomes}


def facts(store: Store) -> str:
    """How much was run, how long it took, and what failed."""
    keys = [
        k
        for part in store.study.parts.values()
        for cell in part.cells()
        for k in store.cell(part, *cell)
    ]
    planned = sum(len(part.cells()) * len(part.seeds) for part in store.study.parts.values())
    hours = sum(store.number(key, "seconds") for key in keys) / 3600
    failed = sum(store.rows[key]["status"] != FINISHED for key in keys)
    commits = sorted({store.rows[key]["commit"] for key in keys} - {""})
    text = f"{len(keys)} of {planned} runs done, {failed} failed; {hours:.1f} hours of one core"
    return text + (f"; commits {', '.join(commits)}" if commits else "")
