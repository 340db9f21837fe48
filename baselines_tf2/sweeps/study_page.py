"""A study's page, and the blocks of other pages that are made of studies' numbers."""

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from baselines_tf2.common.files import write_bytes, write_text
from baselines_tf2.report.figures import render
from baselines_tf2.sweeps.study import Part
from baselines_tf2.sweeps.study_outcomes import OUTCOMES
from baselines_tf2.sweeps.study_results import FIGURES, TABLES, Found, counted, results, set_apart
from baselines_tf2.sweeps.study_store import Key, Store
from envs.errors import ConfigError, check_known

BLOCK = re.compile(r"(?<!`)(<!-- study:(\S+) (.*?) -->)(.*?)(<!-- end -->)", re.DOTALL)
NOT_RUN = "not run yet"
KEYS = ("part", "outcome", "baseline", "table", "figure", "arm", "level")


class Picture(NamedTuple):
    """A figure of a part."""

    store: Store
    part: Part
    kind: str  # of FIGURES
    outcome: str

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.store.study.name}_{self.part.name}_{self.kind}_{self.outcome}.png"

    @property
    def digest(self) -> str:
        """A short hash of all numbers of the part, which the file keeps as its description."""
        store = self.store
        numbers = [[store.rows[key], store.curves.get(key, {})] for key in store.keys(self.part)]
        text = json.dumps(numbers, sort_keys=True, default=list)  # curves are arrays
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def draw(self, folder: Path) -> bool:
        """Draws it into the folder; False if there is nothing to show."""
        draw = FIGURES[self.kind]
        png = render(draw, self.part, self.store, self.outcome, note=self.digest)
        if png:
            write_bytes(folder / self.name, png)
        return bool(png)


def write_page(store: Store, folder: Path) -> str:
    """Writes study.md, all that is known, and its figures; returns what to tell the user."""
    study, done = store.study, facts(store)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"# {study.question}", "", *(f"- {text}" for text in study.hypotheses), ""]
    lines += [f"Settings: {study.tuning}", "", done, ""]
    for part in study.parts.values():
        left = missing(part, store.places(part).values())
        if left == NOT_RUN:
            continue
        lines += [f"## {part.title}", "", *((f"*{left}*", "") if left else ())]
        for kind in FIGURES:
            picture = Picture(store, part, kind, part.primary)
            if picture.draw(folder):
                lines += [f"![{part.title}]({picture.name})", ""]
        found = results(part, store, part.primary)
        for name, table in TABLES.items():
            title = f"{OUTCOMES[part.primary].words}, {name}"
            lines += [title, "", table(part, store, part.primary, found), ""]
    path = folder / "study.md"
    write_text(path, "\n".join(lines))
    return f"{done}\npage     {path}\nnumbers  {study.path.with_suffix('.csv')}"


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
    hours = np.nansum([store.number(key, "seconds") for key in keys]) / 3600
    commits = ", ".join(sorted({store.rows[key]["commit"] for key in keys} - {""})) or "unknown"
    text = f"Runs: {counted(store, keys)} of {planned}; {hours:.1f} hours of runs, a core each; "
    text += f"commits: {commits}"
    if others := len(store.rows) - len(keys):
        text += f"; and {others} rows of runs that the study no longer has"
    return text


def fill(text: str, stores: Mapping[str, Store], prefix: str) -> tuple[str, list[Picture]]:
    """The text with its blocks made anew of the studies' numbers, and the pictures they show.

    A block, which no backtick precedes, is `<!-- study:NAME part=PART table=comparison -->`, what
    follows it, and `<!-- end -->`. `table=` is comparison, summary or outcomes, or of the whole
    study facts; `figure=` is outcome, curves, masses or percentiles; `arm=` with `level=` puts a
    number into a line, and with `baseline=` what sets it apart from that arm; `outcome=` and
    `baseline=` are others than the part's own. What is not run yet, or not to the last seed, says
    so. prefix: of a picture's path. Raises ConfigError naming the block.
    """
    pictures: list[Picture] = []

    @cache  # many blocks are of one part, whose bootstrap takes a good part of a second
    def known(name: str, part: str, baseline: str, outcome: str) -> Found:
        store = stores[name]
        return results(replace(store.study.parts[part], baseline=baseline), store, outcome)

    def filled(match: re.Match) -> str:
        start, name, words, _, end = match.groups()
        try:
            given = dict(word.partition("=")[::2] for word in shlex.split(words))
            content = _content(_choose("study", name, stores), given, prefix, pictures, known)
        except ConfigError as error:
            raise ConfigError(f"{start}: {error}") from None
        return f"{start}{content}{end}"

    return BLOCK.sub(filled, text), pictures


def _content(
    store: Store, given: Mapping[str, str], prefix: str, pictures: list[Picture], known: Callable
) -> str:
    for name in given:
        check_known("key", name, KEYS)
    if given == {"table": "facts"}:
        return f"\n{facts(store)}\n"
    part = _choose("part", given.get("part", ""), store.study.parts)
    outcome = given.get("outcome", part.primary)
    check_known("outcome", outcome, OUTCOMES)
    if "baseline" in given:
        if given.get("table") != "comparison" and "arm" not in given:
            raise ConfigError("baseline= is for table=comparison, or beside arm=: leave it out")
        check_known("baseline", given["baseline"], part.arms)
        part = replace(part, baseline=given["baseline"])
    if "arm" in given:
        return _number(store, part, outcome, given, known)
    kind, kinds = ("figure", FIGURES) if "figure" in given else ("table", TABLES)
    show = _choose(kind, given.get(kind, ""), kinds)
    left = missing(part, store.places(part).values())
    note = f"\n*{part.title}: {left}.*\n" if left else ""
    if left == NOT_RUN:
        return note
    if kind == "table":
        found = known(store.study.name, part.name, part.baseline, outcome)
        return f"{note}\n{show(part, store, outcome, found)}\n"
    pictures.append(Picture(store, part, given["figure"], outcome))
    return f"{note}\n![{part.title}]({prefix}{pictures[-1].name})\n"


def _number(
    store: Store, part: Part, outcome: str, given: Mapping[str, str], known: Callable
) -> str:
    """The arm's value at the level; what sets it apart from a baseline that the block names."""
    level, arms = given.get("level", ""), [given[x] for x in ("arm", "baseline") if x in given]
    places = {f"{arm}, {x}": keys for (x, arm), keys in store.places(part).items()}
    left = missing(part, [_choose("arm and level", f"{arm}, {level}", places) for arm in arms])
    if left == NOT_RUN:
        return left
    found = known(store.study.name, part.name, part.baseline, outcome)
    one = found.get((level, given["arm"]))
    if one and "baseline" in given:  # within a sentence, which says itself how many seeds
        difference, _, said = set_apart(one, outcome)
        return f"{difference}, {said}"
    return (str(one.value) if one else "–") + (f" ({left})" if left else "")


def _choose(kind: str, name: str, choices: Mapping):
    check_known(kind, name, choices)
    return choices[name]
