"""The page of a report: one HTML file that needs nothing beside it, of the template beside this."""

import base64
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from baselines_tf2.report import statistics
from baselines_tf2.report.figures import number, span, style_of
from baselines_tf2.report.runs import Group, Run, differing, settings_of, show
from envs.errors import ConfigError

FEW_SEEDS = 5


def page(
    groups: Sequence[Group], pictures: Mapping[str, bytes], left_out: Mapping[str, Sequence[Path]]
) -> str:
    """The HTML. pictures: PNGs by the names that page.html has captions for. left_out: why -> the folders that are not in `groups` for that reason.

    Raises ConfigError if Jinja2 is not installed.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ConfigError(f"a report needs Jinja2 ({error}): pip install '.[report]'") from None
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters["base64"] = lambda png: base64.b64encode(png).decode()
    seeds = [(group.name, len(group.evaluated)) for group in groups]
    return templates.get_template("page.html").render(
        groups=groups,
        pictures=pictures,
        left_out=left_out,
        single=[name for name, count in seeds if count == 1],
        few=[name for name, count in seeds if 1 < count < FEW_SEEDS],
        few_seeds=FEW_SEEDS,
        unfinished={
            title: [text for group in groups if (text := of(group))]
            for title, of in UNFINISHED.items()
        },
        own=[
            (group, run, _pictures(run))
            for group in groups
            for run in group.runs
            if run.has_results
        ],
        **_configuration(groups),
        **{f.__name__.strip("_"): f for f in (style_of, show, _summary, _values)},
        statistics=statistics,
    )


def _failed(group: Group) -> str:
    parts = [f"{_where(run)} ({run.failure})" for run in group.runs if run.failure is not None]
    return f"{group.name}: {'; '.join(parts)}" * bool(parts)


def _where(run: Run) -> str:
    return f"seed {run.seed} at {run.steps:,} of {run.planned or run.steps:,} steps"


def _unfinished(group: Group) -> str:
    runs = [run for run in group.runs if run.failure is None]
    parts = [_where(run) for run in runs if not run.is_finished]
    missing = [run.seed for run in runs if group.evaluated and not run.evaluations]
    parts += [f"seed {seed} has no evaluation yet" for seed in missing]
    return f"{group.name}: {', '.join(parts)}" * bool(parts)


UNFINISHED = {
    "Failed, and counted as far as it came": _failed,
    "Still running or cut short, shown as far as it is": _unfinished,
}


def _summary(group: Group) -> list[list[str]]:
    """The lines of each cell of its row."""
    final = mean = percentiles = "–"
    if group.evaluated:
        scores, middle, interval = statistics.final_returns(group)
        final = number(middle) + (f" {span(interval)}" if interval is not None else "")
        mean = number(float(np.mean(scores)))
        percentiles = " / ".join(map(number, statistics.last_percentiles(group)))
    speed = statistics.median_speed(group)
    texts = [final, mean, percentiles, "–" if speed is None else number(speed)]
    done, planned = [run.steps for run in group.runs], group.runs[0].planned
    reached = [f"{min(done):,}" + f" to {max(done):,}" * (min(done) < max(done))]
    reached += [f"of {planned:,}"] * (min(done) < planned)
    return [reached, *([text] for text in texts)]


def _pictures(run: Run) -> list[tuple[Path, bytes]]:
    """The PNGs in a run's folder, but for those of a report."""
    paths = [p for p in sorted(run.folder.glob("*.png")) if not p.name.startswith("report_")]
    pictures = [(path, path.read_bytes()) for path in paths]
    return [(path, png) for path, png in pictures if png.startswith(b"\x89PNG\r\n\x1a\n")]


def _configuration(groups: Sequence[Group]) -> dict[str, object]:
    """Which settings differ, what the others and the versions are; groups by experiment."""
    different = differing([group.config for group in groups])
    same = {path: x for path, x in settings_of(groups[0].config).items() if path not in different}
    packages = [path for path in same if path.startswith("versions.")]
    experiments = defaultdict(list)
    for group in groups:
        experiments[f"{group.config['exp']}, {group.config['backend']}"].append(group)
    return {
        "different": different,
        "common": {path: x for path, x in same.items() if path not in packages},
        "versions": {path.removeprefix("versions."): same[path] for path in packages},
        "experiments": experiments,
        "differing": lambda members: differing([group.config for group in members]),
    }


def _values(path: str, groups: Sequence[Group]) -> str:
    values = (show(settings_of(group.config).get(path)) for group in groups)
    return " or ".join(dict.fromkeys(values))
