"""What a study's numbers say: interquartile means, differences and verdicts, as tables of text."""

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import numpy as np

from baselines_tf2.report.figures import number, span
from baselines_tf2.report.statistics import FINAL_REPS, interval, iqm
from baselines_tf2.sweeps.study import Part
from baselines_tf2.sweeps.study_outcomes import OUTCOMES
from baselines_tf2.sweeps.study_store import FINISHED, Key, Store

# Runs, below which there is no 95%: if three of one arm all beat three of another, chance does that
# one time in ten (two of 20 orders), and a bootstrap's interval is their range.
FEWEST = 4
NOT_RUN, TOO_FEW = "not run yet", "too few runs"
VERDICTS = {1: ("worse", "better"), -1: ("better", "worse"), 0: ("lower", "higher")}


class Estimate(NamedTuple):
    """A statistic over seeds, and the ends of its 95% interval, NaN of few seeds."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return number(self.middle) + ("" if np.isnan(self.low) else f" {span(self[1:])}")


class Range(Estimate):
    """The mean of few seeds, and the lowest and highest of them."""

    def __str__(self) -> str:
        low, high = map(number, self[1:])
        return number(self.middle) + (f" ({low} to {high})" if low != high else "")


class Result(NamedTuple):
    """An arm at a level, beside the baseline at that level."""

    arm: str
    level: str
    value: Estimate
    difference: Estimate | None = None  # of interquartile means; None of the baseline itself
    improvement: Estimate | None = None  # probability that a run is better than one of the baseline


def scores(part: Part, store: Store, outcome: str) -> dict[tuple[str, str], np.ndarray]:
    """(level, arm) -> the outcome of its runs, `[seeds]`, where there is one.

    An arm without a factor is at all its levels. A run that failed before it had a value that can
    be good or bad has the worst of its part.
    """
    found = {
        place: np.array([store.number(key, outcome) for key in keys], float)
        for place, keys in store.places(part).items()
    }
    every = np.concatenate([*found.values()])
    if np.isnan(every).all():
        return {}
    if sign := OUTCOMES[outcome].sign:
        worst = sign * np.nanmin(sign * every)
        found = {place: np.nan_to_num(values, nan=worst) for place, values in found.items()}
    found = {place: values[~np.isnan(values)] for place, values in found.items()}
    return {place: values for place, values in found.items() if values.size}


def results(part: Part, store: Store, outcome: str) -> list[Result]:
    """Every arm at every level of which a run was done."""
    samples = scores(part, store, outcome)
    others = [at for at in samples if at[1] != part.baseline and (at[0], part.baseline) in samples]
    pairs = [(samples[level, arm], samples[level, part.baseline]) for level, arm in others]
    sign = OUTCOMES[outcome].sign or 1
    gains = estimates(difference, pairs)
    chances = estimates(improvement, [(sign * x, sign * y) for x, y in pairs])
    beside = dict(zip(others, zip(gains, chances, strict=True), strict=True))
    found = []
    values = estimates(iqm, [(x,) for x in samples.values()])
    for ((level, arm), x), value in zip(samples.items(), values, strict=True):
        shown = Range(value.middle, x.min(), x.max()) if len(x) < FEWEST else value
        found.append(Result(arm, level, shown, *beside.get((level, arm), ())))
    return found


def difference(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Of the interquartile means: scores `[seeds, points]` each to `[points]`."""
    return iqm(x) - iqm(y)


def improvement(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Probability that a score of x is above one of y, a tie counting half; shapes as above.

    For each point rliable's `probability_of_improvement`, of all points at once.
    """
    x, y = x[:, None], y[None]
    return (x > y).mean((0, 1)) + (x == y).mean((0, 1)) / 2


def estimates(
    statistic: Callable[..., np.ndarray], samples: Sequence[tuple[np.ndarray, ...]]
) -> list[Estimate]:
    """The statistic of each entry, one or two samples `[seeds]`; those of equal sizes at once."""
    by_size = defaultdict(list)
    found: dict[int, Estimate] = {}
    for i, arrays in enumerate(samples):
        by_size[tuple(map(len, arrays))].append(i)
    for sizes, places in by_size.items():
        stacked = [np.stack(x, axis=1) for x in zip(*(samples[i] for i in places), strict=True)]
        ends = None if min(sizes) < FEWEST else interval(statistic, *stacked, reps=FINAL_REPS)
        ends = np.full((2, len(places)), np.nan) if ends is None else ends
        for i, *numbers in zip(places, statistic(*stacked), *ends, strict=True):
            found[i] = Estimate(*map(float, numbers))
    return [found[i] for i in range(len(samples))]


def verdict(gain: Estimate, sign: int) -> str:
    """'none' if the interval of the difference holds 0."""
    if np.isnan(gain.low):
        return TOO_FEW
    return VERDICTS[sign][gain.low > 0] if gain.low > 0 or gain.high < 0 else "none"


def comparison(part: Part, store: Store, outcome: str) -> str:
    """Every arm at every level: its value, and what sets it apart from the baseline."""
    found, width = results(part, store, outcome), 7 if part.baseline else 4
    few = any(isinstance(one.value, Range) for one in found)
    value = f"IQM {'(lowest to highest)' if few else '[95% interval]'}"
    beside = f"minus {part.baseline}", "P(better)", "difference"
    rows: list[Sequence] = [("level", "arm", "runs", value, *beside)[:width]]
    places = store.places(part)
    for one in found:
        end: Sequence = ("", "", "baseline" if one.arm == part.baseline else "–")
        if one.difference is not None:
            said = verdict(one.difference, OUTCOMES[outcome].sign)
            end = (one.difference, "–" if said == TOO_FEW else one.improvement, said)
        runs = _runs(store, places[one.level, one.arm])
        rows.append((one.level or "–", one.arm, runs, one.value, *end)[:width])
    return markdown(*rows)


def summary(part: Part, store: Store, outcome: str) -> str:
    """Arms by levels: interquartile means with their intervals."""
    values = {(one.level, one.arm): one.value for one in results(part, store, outcome)}
    levels, arms = dict.fromkeys(at[0] for at in values), dict.fromkeys(at[1] for at in values)
    head = ("arm", *(level or OUTCOMES[outcome].words for level in levels))
    return markdown(head, *((arm, *(values.get((x, arm), "–") for x in levels)) for arm in arms))


def outcomes(part: Part, store: Store, outcome: str) -> str:
    """Interquartile means of everything that was measured; the given outcome first."""
    names = dict.fromkeys((outcome, *part.outcomes))
    columns = {name: scores(part, store, name) for name in names}
    rows = [("level", "arm", *(OUTCOMES[name].words for name in names))]
    for place in columns[outcome]:
        samples = (columns[name].get(place) for name in names)
        means = ("–" if x is None else number(float(iqm(x))) for x in samples)
        rows.append((place[0] or "–", place[1], *means))
    return markdown(*rows)


def markdown(head: Sequence, *rows: Sequence) -> str:
    first, *others = ("| " + " | ".join(map(str, row)) + " |" for row in (head, *rows))
    return "\n".join((first, "|---" * len(head) + "|", *others))


TABLES = {"comparison": comparison, "summary": summary, "outcomes": outcomes}


def missing(part: Part, places: Collection[Collection[Key]]) -> str:
    """What is left to do where these runs are done, in words; "" if nothing is."""
    few, many, planned = min(map(len, places)), max(map(len, places)), len(part.seeds)
    if not many:
        return NOT_RUN
    if few == planned:
        return ""
    return f"not finished: {few if few == many else f'{few} to {many}'} of {planned} seeds"


def facts(store: Store) -> str:
    """How much was run, how long it took, and what failed."""
    parts = store.study.parts.values()
    keys = [key for part in parts for key in store.keys(part)]
    planned = sum(len(part.cells()) * len(part.seeds) for part in parts)
    hours = sum(store.number(key, "seconds") for key in keys) / 3600
    commits = ", ".join(sorted({store.rows[key]["commit"] for key in keys} - {""})) or "unknown"
    text = f"Runs: {_runs(store, keys)} of {planned}; {hours:.1f} hours of a core; "
    text += f"commits: {commits}"
    if others := len(store.rows) - len(keys):
        text += f"; and {others} rows of runs that the study no longer has"
    return text


def _runs(store: Store, keys: Sequence[Key]) -> str:
    """How many runs, and of them failed ones."""
    failed = sum(store.rows[key]["status"] != FINISHED for key in keys)
    return f"{len(keys)} ({failed} failed)" if failed else str(len(keys))
