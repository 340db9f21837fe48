"""A study's page, and the blocks of other pages that are made of studies' numbers."""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

from baselines_tf2.common.files import write_atomically
from baselines_tf2.common.report_figures import render
from baselines_tf2.common.study import Part, Study, read_study
from baselines_tf2.common.study_figures import FIGURES
from baselines_tf2.common.study_outcomes import OUTCOMES
from baselines_tf2.common.study_store import Store
from baselines_tf2.common.study_tables import TABLES, facts, results
from envs.errors import ConfigError, unknown

BLOCK = re.compile(r"(<!-- study:(\S+) (.*?) -->)(.*?)(<!-- end -->)", re.DOTALL)
KEYS = ("part", "outcome", "table", "figure", "arm", "level")


def write_page(study: Study, store: Store, folder: Path) -> str:
    """Writes study.md, everything that is known, and its figures; returns what to tell the user."""
    lines = [f"# {study.question}", "", *(f"- {text}" for text in study.hypotheses), ""]
    lines += [f"Settings: {study.tuning}", ""] if study.tuning else []
    lines += [facts(study, store), ""]
    folder.mkdir(parents=True, exist_ok=True)
    for part in study.parts.values():
        if not any(store.cell(part, *cell) for cell in part.cells()):
            continue
        lines += [f"## {part.title}", ""]
        for name in FIGURES:
            path = folder / figure_name(study, part, name, part.primary)
            if draw(part, store, name, part.primary, path):
                lines += [f"![{part.title}]({path.name})", ""]
        for name, table in TABLES.items():
            lines += [
                f"{OUTCOMES[part.primary].words}, {name}",
                "",
                table(part, store, part.primary),
                "",
            ]
    text = "\n".join(lines)
    write_atomically(folder / "study.md", lambda file: file.write(text.encode()))
    return f"{facts(study, store)}\npage     {folder / 'study.md'}\nnumbers  {study.path.with_suffix('.csv')}"


def figure_name(study: Study, part: Part, figure: str, outcome: str) -> str:
    return f"{study.name}_{part.name}_{figure}_{outcome}.png"


def digest(part: Part, store: Store) -> str:
    """A short hash of all numbers of a part, which its figures keep."""
    keys = [key for cell in part.cells() for key in store.cell(part, *cell)]
    curves = [{n: [list(a) for a in xy] for n, xy in store.curves.get(k, {}).items()} for k in keys]
    text = json.dumps([[store.rows[key] for key in keys], curves], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def draw(part: Part, store: Store, figure: str, outcome: str, path: Path) -> bool:
    """Draws a figure; False if there is nothing to show."""
    png = render(FIGURES[figure], part, store, outcome, note=digest(part, store))
    if png:
        write_atomically(path, lambda file: file.write(png))
    return bool(png)


class Studies(dict):
    """The studies of a folder by name, each read when it is asked for."""

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def __missing__(self, name: str) -> tuple[Study, Store]:
        path = self.folder / f"{name}.toml"
        if not path.exists():
            raise unknown("study", name, (one.stem for one in self.folder.glob("*.toml")))
        self[name] = read_study(path), Store(path)
        return self[name]


Figure = tuple[Part, Store, str, str, Path]


def fill(
    text: str, studies: Mapping[str, tuple[Study, Store]], prefix: str
) -> tuple[str, list[Figure]]:
    """The text with its blocks made anew of the studies' numbers, and the figures they show.

    A block is `<!-- study:NAME part=PART table=comparison -->`, what follows it, and
    `<!-- end -->`; `outcome=` takes another one than the part's primary, `figure=` shows a figure,
    `arm=` with `level=` writes a number in a line. prefix: of a figure's path.
    """
    figures: list[Figure] = []

    def replace(match: re.Match) -> str:
        start, name, words, _, end = match.groups()
        try:
            return f"{start}{_content(*studies[name], _attributes(words), prefix, figures)}{end}"
        except ConfigError as error:
            raise ConfigError(f"{start}: {error}") from None

    return BLOCK.sub(replace, text), figures


def _attributes(words: str) -> dict[str, str]:
    pairs = [word.partition("=")[::2] for word in shlex.split(words)]
    for name, _ in pairs:
        if name not in KEYS:
            raise unknown("key", name, KEYS)
    return dict(pairs)


def _content(study, store, given, prefix, figures) -> str:
    part = _one_of("part", given, study.parts)
    outcome = given.get("outcome", part.primary)
    if outcome not in OUTCOMES:
        raise unknown("outcome", outcome, OUTCOMES)
    if "arm" in given:
        found = {(one.arm, one.level): one.value for one in results(part, store, outcome)}
        place = given["arm"], given.get("level", "")
        if place not in found:
            raise unknown("arm and level", str(place), map(str, found))
        return str(found[place])
    if "figure" in given:
        _one_of("figure", given, FIGURES)
        name = figure_name(study, part, given["figure"], outcome)
        figures.append((part, store, given["figure"], outcome, study.path.with_name(name)))
        return f"\n![{part.title}]({prefix}{name})\n"
    return f"\n{_one_of('table', given, TABLES)(part, store, outcome)}\n"


def _one_of(key: str, given: Mapping[str, str], choices: Mapping):
    if given.get(key) not in choices:
        raise unknown(key, given.get(key, ""), choices)
    return choices[given[key]]
