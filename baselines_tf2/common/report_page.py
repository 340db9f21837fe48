"""The page of a report: one HTML file that needs nothing beside it."""

import base64
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np

from baselines_tf2.common import report_statistics as statistics
from baselines_tf2.common.report_figures import number, span, style_of
from baselines_tf2.common.report_runs import Group, Run, differing, settings_of, show

MAX_ROWS = 200  # of a table of results
MAX_COLUMNS = 10  # settings beside one another
COLUMNS_AT_ONCE = 5  # groups or experiments beside one another
MAX_NAMED = 4  # groups in a note
FEW_SEEDS = 5
STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 "Helvetica Neue", Helvetica, Arial, "DejaVu Sans", sans-serif; color: #1a1a1a;
  background: #fff; max-width: 1120px; margin: 0 auto; padding: 24px 32px 64px; }
h1 { font-size: 30px; margin: 8px 0 4px; }
h2 { font-size: 22px; margin: 44px 0 10px; border-bottom: 2px solid #ddd; padding-bottom: 4px; }
h3 { font-size: 17px; margin: 26px 0 8px; overflow-wrap: anywhere; }
h4 { font-size: 15px; margin: 18px 0 4px; overflow-wrap: anywhere; }
p, li { max-width: 900px; }
p.lead { color: #444; margin: 0 0 18px; }
ul { padding-left: 22px; }
li { overflow-wrap: anywhere; }
.notes { background: #fff6e0; border-left: 5px solid #e69f00; padding: 6px 18px; margin: 18px 0; }
.notes p { margin: 6px 0 0; font-weight: bold; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums;
  margin: 10px 0 18px; }
th, td { padding: 5px 10px; border-bottom: 1px solid #e2e2e2; text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
th { overflow-wrap: normal; }
table.fixed th { overflow-wrap: anywhere; }
thead th { border-bottom: 2px solid #999; vertical-align: bottom; line-height: 1.3; }
td.n, th.n { text-align: right; white-space: nowrap; }
table.wide { width: 100%; }
table.fixed { table-layout: fixed; width: 100%; }
.k { white-space: nowrap; }
.name { min-width: 220px; padding-left: 34px; text-indent: -34px; }
.swatch { display: inline-block; width: 26px; border-top: 4px; vertical-align: 4px;
  margin-right: 8px; text-indent: 0; }
.columns { columns: 3 300px; column-gap: 28px; font-size: 13px; line-height: 1.35; }
.columns div { display: flex; justify-content: space-between; gap: 12px; padding: 3px 0;
  border-bottom: 1px solid #ececec; break-inside: avoid; }
.columns span { overflow-wrap: anywhere; }
.columns span + span { text-align: right; font-weight: 600; }
figure { margin: 12px 0 6px; break-inside: avoid; }
img { max-width: 100%; height: auto; display: block; }
figure.own img { max-width: 760px; width: 100%; }
figcaption { color: #444; font-size: 14.5px; margin-top: 6px; max-width: 900px; }
@page { size: A4; margin: 12mm; }
@media print { body { padding: 0; font-size: 12px; max-width: none; } h2 { break-after: avoid; }
  table { font-size: 10.5px; } tr, .notes { break-inside: avoid; } .name { min-width: 140px; } }
"""


class Section(NamedTuple):
    """A figure on the page and what is said of it."""

    title: str
    caption: str
    png: bytes


def page(
    groups: Sequence[Group], sections: Sequence[Section], left_out: Mapping[str, Sequence[Path]]
) -> str:
    """The HTML. left_out: why -> the folders that are not in `groups` for that reason."""
    runs = sum(len(group.runs) for group in groups)
    lead = f"{_count(runs, 'run')} in {_count(len(groups), 'group')}: runs of a group differ in "
    lead += "nothing but the seed. Returns are sums of rewards over an episode, without a unit; "
    lead += "higher is better."
    body = [
        "<h1>Training report</h1>",
        f'<p class="lead">{lead}</p>',
        _notes(groups, left_out),
        "<h2>Summary</h2>",
        _summary(groups),
        _method(groups),
        *(_figure_section(section) for section in sections),
        *_results(groups),
        "<h2>Configuration</h2>",
        _configuration(groups),
        "<h2>Run folders</h2>",
        _folders(groups),
    ]
    head = f'<meta charset="utf-8"><title>Training report</title><style>{STYLE}</style>'
    head += '<meta name="viewport" content="width=device-width">'
    parts = "\n".join(filter(None, body))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head>\n<body>\n{parts}\n</body></html>\n'
    )


def _count(n: int, word: str) -> str:
    return f"{n} {word}{'s' * (n != 1)}"


def _notes(groups: Sequence[Group], left_out: Mapping[str, Sequence[Path]]) -> str:
    """What a reader must know before the numbers."""
    notes = [f"Left out, {why}: {_list(folders)}." for why, folders in left_out.items() if folders]
    if single := [g.name for g in groups if len(g.evaluated) == 1]:
        notes.append(
            "One seed only, which shows nothing of the spread between seeds, so there is no "
            f"interval: {_some(single, len(groups))}."
        )
    if few := [g.name for g in groups if 1 < len(g.evaluated) < FEW_SEEDS]:
        notes.append(
            f"Fewer than {FEW_SEEDS} seeds: the bootstrap cannot go beyond the seeds it has, and "
            f"the interval is rather too narrow: {_some(few, len(groups))}."
        )
    items = [f"<li>{escape(note)}</li>" for note in notes]
    for title, describe in UNFINISHED.items():
        if lines := [escape(line) for group in groups if (line := describe(group))]:
            inner = "".join(f"<li>{line}</li>" for line in lines)
            items.append(f"<li>{title}:<ul>{inner}</ul></li>")
    return f'<div class="notes"><p>Please note</p><ul>{"".join(items)}</ul></div>' * bool(items)


def _some(names: Sequence[str], groups: int) -> str:
    """The summary counts the seeds of each: many need not be named here."""
    if len(names) == groups:
        return "every group"
    more = len(names) - MAX_NAMED
    return _list([*names[:MAX_NAMED], *[f"and {more} more"] * (more > 0)], "; ")


def _list(items: Iterable[object], separator: str = ", ") -> str:
    return separator.join(map(str, items))


def _failed(group: Group) -> str:
    failed = [run for run in group.runs if run.failure is not None]
    parts = [f"{_where(run)} ({run.failure})" for run in failed]
    return f"{group.name}: {_list(parts, '; ')}" if parts else ""


def _where(run: Run) -> str:
    done, planned, unit = run.progress
    return f"seed {run.seed} at {done:,} of {planned or done:,} {unit}"


def _unfinished(group: Group) -> str:
    runs = [run for run in group.runs if run.failure is None]
    parts = [_where(run) for run in runs if not run.is_finished]
    missing = [run.seed for run in runs if group.evaluated and not run.evaluations]
    parts += [f"seed {seed} has no evaluation yet" for seed in missing]
    if not parts:
        return ""
    return f"{group.name}: {_list(parts)}"


UNFINISHED = {
    "Failed, and counted as far as it came": _failed,
    "Still running or cut short, shown as far as it is": _unfinished,
}


def _swatch(group: Group) -> str:
    color, line = style_of(group)
    return f'<span class="swatch" style="border-top-style:{line};border-top-color:{color}"></span>'


def _name(group: Group) -> str:
    return f'<div class="name">{_swatch(group)}{escape(group.name)}</div>'


def _breakable(path: str) -> str:
    """Escaped, and allowed to break after underscores and dots."""
    return escape(path).replace("_", "_<wbr>").replace(".", ".<wbr>")


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numeric: int, kind: str) -> str:
    """A table of ready HTML cells, the columns from `numeric` on aligned right."""

    def line(cells: Sequence[str], tag: str) -> str:
        classes = (' class="n"' if i >= numeric else "" for i in range(len(cells)))
        pairs = zip(cells, classes, strict=True)
        return "<tr>" + "".join(f"<{tag}{c}>{cell}</{tag}>" for cell, c in pairs) + "</tr>"

    body = "\n".join(line(row, "td") for row in rows)
    return (
        f'<table class="{kind}"><thead>{line(header, "th")}</thead>\n<tbody>{body}</tbody></table>'
    )


def _summary(groups: Sequence[Group]) -> str:
    header = [
        "experiment, backend", "seeds", "steps reached",
        "final return:<br>IQM [95% interval]", "final return:<br>mean over seeds",
        "last evaluation:<br>10% / 50% / 90%", "steps per<br>second",
    ]  # fmt: skip
    return _table(header, map(_summary_row, groups), 2, "wide")


def _summary_row(group: Group) -> list[str]:
    final = mean = percentiles = "–"
    if group.evaluated:
        scores, middle, interval = statistics.final_returns(group)
        final = number(middle) + (f" {span(interval)}" if interval is not None else "")
        mean = number(float(np.mean(scores)))
        percentiles = _list(map(number, statistics.last_percentiles(group)), " / ")
    speed = statistics.median_speed(group)
    return [
        _name(group), _seeds([run.seed for run in group.runs]), _reached(group), final, mean,
        percentiles, "–" if speed is None else number(speed),
    ]  # fmt: skip


def _seeds(seeds: Sequence[int]) -> str:
    """How many, and which: "4 (0–2, 7)"."""
    spans: list[list[int]] = []
    for seed in seeds:
        if spans and seed == spans[-1][1] + 1:
            spans[-1][1] = seed
        else:
            spans.append([seed, seed])
    texts = [f"{low}–{high}" if low < high else f"{low}" for low, high in spans]
    words = f"({_list(texts)})".split(" ")
    return f"{len(seeds)}&nbsp;" + _list((f'<span class="k">{word}</span>' for word in words), " ")


def _reached(group: Group) -> str:
    done = [run.progress[0] for run in group.runs]
    _, planned, unit = group.runs[0].progress
    text = f"{min(done):,}" + (f" to {max(done):,}" if min(done) < max(done) else "")
    if planned is not None and min(done) < planned:
        text += f"<br>of {planned:,}"
    return text if unit == "steps" else f"{text} {unit}"


def _method(groups: Sequence[Group]) -> str:
    if not any(group.evaluated for group in groups):
        return ""
    return (
        f"<p>A seed's final return is the mean of its last {statistics.LAST} evaluations, of all "
        "if there are fewer. IQM is the interquartile mean over seeds (of fewer than four seeds "
        "the mean), with the 95% interval of rliable's stratified bootstrap over seeds "
        f"({statistics.FINAL_REPS:,} resamples; {statistics.CURVE_REPS:,} for each curve, point by "
        "point). Percentiles are of the episodes of every seed's last evaluation. Steps per second "
        "is the median over the rows of the log in which something was trained. Curves over seeds "
        "are drawn at the steps that all seeds of the group have: they end where the shortest run "
        "ends, and nothing is interpolated.</p>"
    )


def _figure_section(section: Section) -> str:
    return (
        f"<h2>{escape(section.title)}</h2>\n"
        f"<figure>{_image(section.png, f'{section.title}: {section.caption}')}"
        f"<figcaption>{escape(section.caption)}</figcaption></figure>"
    )


def _image(png: bytes, alt: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{data}">'


def _results(groups: Sequence[Group]) -> list[str]:
    """Tables and figures that a run made itself, as tabular analyses and sweeps do."""
    runs = [(group, run) for group in groups for run in group.runs if run.results]
    parts = ["<h2>Results of analyses and sweeps</h2>"] if runs else []
    for group, run in runs:
        parts.append(f"<h3>{_swatch(group)}{escape(group.name)}, seed {run.seed}</h3>")
        for path, png in run_pictures(run):
            alt = f"{path.stem} as drawn by the run"
            parts.append(f'<figure class="own">{_image(png, alt)}</figure>')
        parts.append(_results_table(run))
    return parts


def run_pictures(run: Run) -> list[tuple[Path, bytes]]:
    """The PNGs in a run's folder, but for those of a report."""
    paths = [p for p in sorted(run.folder.glob("*.png")) if not p.name.startswith("report_")]
    pictures = [(path, path.read_bytes()) for path in paths]
    return [(path, png) for path, png in pictures if png.startswith(b"\x89PNG\r\n\x1a\n")]


def _results_table(run: Run) -> str:
    """Means over the column `seed`: those left of it tell rows apart, those right were found."""
    columns = [name for name in run.results[0] if any(row[name] for row in run.results)]
    if "seed" not in columns:
        rows, header, numeric = [list(row.values()) for row in run.results], columns, len(columns)
        note = ""
    else:
        at = columns.index("seed")
        keys, found, numeric = columns[:at], columns[at + 1 :], at
        header = [*keys, "seeds", *found]
        rows = _means(run.results, keys, found)
        note = "Mean over seeds ± standard deviation between them. "
    if len(rows) > MAX_ROWS:
        note += f"The first {MAX_ROWS} of {len(rows)} rows; the run's results.csv has them all."
    cells = [[escape(cell) for cell in row] for row in rows[:MAX_ROWS]]
    return f"<p>{note}</p>" * bool(note) + _table(list(map(escape, header)), cells, numeric, "")


def _means(
    rows: Sequence[Mapping[str, str]], keys: Sequence[str], found: Sequence[str]
) -> list[list[str]]:
    alike = defaultdict(list)
    for row in rows:
        alike[tuple(row[key] for key in keys)].append(row)
    out = []
    for key, same in alike.items():
        cells = [_mean([row[name] for row in same]) for name in found]
        out.append([*map(_short, key), str(len(same)), *cells])
    return out


def _mean(texts: Sequence[str]) -> str:
    try:
        values = np.array([float(text) for text in texts if text])
    except ValueError:
        return _list(dict.fromkeys(texts))
    if not len(values):
        return "–"
    mean = f"{values.mean():,.4g}" if abs(values.mean()) < 1000 else f"{values.mean():,.0f}"
    return mean if len(values) == 1 else f"{mean} ± {values.std(ddof=1):.2g}"


def _short(text: str) -> str:
    """A number with at most four digits; any other text as it is."""
    try:
        return f"{float(text):.4g}"
    except ValueError:
        return text or "–"


def _configuration(groups: Sequence[Group]) -> str:
    configs = [group.config for group in groups]
    different = differing(configs)
    common = {k: v for k, v in settings_of(configs[0]).items() if k not in different}
    versions = {k: v for k, v in common.items() if k.startswith("versions.")}
    settings = {k: v for k, v in common.items() if k not in versions}
    parts = []
    if len(groups) > 1:
        parts += ["<h3>What differs between groups</h3>", _differences(groups, different)]
    title = "Settings common to all runs" if len(groups) > 1 else "Settings"
    parts += [f"<h3>{title}</h3>", _pairs(settings)]
    if versions:
        versions = {k.removeprefix("versions."): v for k, v in versions.items()}
        parts += ["<h3>Versions</h3>", _pairs(versions)]
    return "\n".join(parts)


def _pairs(values: Mapping[str, object]) -> str:
    rows = (
        f"<div><span>{escape(name)}</span><span>{escape(show(value))}</span></div>"
        for name, value in values.items()
    )
    return f'<div class="columns">{"".join(rows)}</div>'


def _differences(groups: Sequence[Group], paths: Sequence[str]) -> str:
    """First between experiments, then within each that has several groups."""
    if not paths:
        return "<p>Nothing that config.json tells.</p>"
    experiments = defaultdict(list)
    for group in groups:
        experiments[f"{group.config['exp']}, {group.config['backend']}"].append(group)
    parts = []
    if len(experiments) > 1:
        parts.append(_across(experiments, [p for p in paths if p not in ("exp", "backend")]))
    for name, members in experiments.items():
        if len(members) > 1:
            parts += [f"<h4>Within {escape(name)}</h4>" * (len(experiments) > 1), _within(members)]
    return "\n".join(parts) + "<p>A dash: none, empty, or a setting this experiment lacks.</p>"


def _across(experiments: Mapping[str, Sequence[Group]], paths: Sequence[str]) -> str:
    """A row per setting, a column per experiment with the values in its groups."""
    tables = []
    for names in _chunks(list(experiments), COLUMNS_AT_ONCE):
        leaves = [[settings_of(group.config) for group in experiments[name]] for name in names]
        rows = [
            [_breakable(path), *(escape(_values(path, members)) for members in leaves)]
            for path in paths
        ]
        header = ["setting", *map(_breakable, names)]
        tables.append(_table(header, rows, len(header), "fixed"))
    return "\n".join(tables)


def _values(path: str, leaves: Sequence[Mapping[str, object]]) -> str:
    return _list(dict.fromkeys(show(one.get(path)) for one in leaves), " or ")


def _within(groups: Sequence[Group]) -> str:
    """A row per group, a column per setting in which they differ."""
    tables = []
    for paths in _chunks(differing([group.config for group in groups]), MAX_COLUMNS):
        rows = []
        for group in groups:
            own = settings_of(group.config)
            cells = (escape(show(own.get(path))) for path in paths)
            rows.append([_name(group), *(cell.replace("_", "_<wbr>") for cell in cells)])
        tables.append(_table(["group", *map(_breakable, paths)], rows, len(paths) + 1, "wide"))
    return "\n".join(tables)


def _chunks(items: Sequence, most: int) -> list[Sequence]:
    """Parts of about equal length, at most `most` each."""
    count = -(-len(items) // most)
    ends = [i * len(items) // count for i in range(count + 1)]
    return [items[start:end] for start, end in itertools.pairwise(ends)]


def _folders(groups: Sequence[Group]) -> str:
    items = (
        f"<li>{_swatch(group)}seed {run.seed}: {escape(str(run.folder))}</li>"
        for group in groups
        for run in group.runs
    )
    return f"<ul>{''.join(items)}</ul>"
