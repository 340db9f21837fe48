"""A report on runs: one HTML page, which needs nothing beside itself, and its figures as PNGs."""

import base64
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from baselines_tf2.common.files import write_bytes, write_text
from baselines_tf2.report import figures, runs, statistics
from baselines_tf2.report.figures import style_of
from baselines_tf2.report.statistics import FEWEST, number
from envs.errors import ConfigError

# By the name of the PNG and of its place in what write_report returns; page.html has the captions.
FIGURES: dict[str, Callable[[Sequence[runs.Group]], Figure | None]] = {
    "curves": figures.learning_curves,
    "final": figures.final_returns,
    "robots": figures.robot_response,
    "spread": figures.percentiles,
    "speed": figures.speed,
    "solver": figures.solver_health,
}


def write_report(patterns: Sequence[str] | str, out: Path) -> dict[str, str]:
    """Writes `report.html` and `report_<figure>.png` to `out`; returns {what: path}.

    patterns: globs of run folders or of their parents; a run folder is one with a config.json.
    Runs that are equal but for the seed form a group. Runs without any row are left out, and so are
    damaged ones and a second run of the same configuration and seed; "left out" in what is returned
    names them. The same runs give the same bytes.

    Raises ConfigError if `out` is a file, there is nothing sound to report on, or Jinja2 is not
    installed.
    """
    if out.exists() and not out.is_dir():
        raise ConfigError(f"--out={out} is a file: name a folder for the page and its pictures")
    found, damaged = [], {}
    for folder in runs.find_runs(patterns):
        try:
            found.append(runs.read_run(folder))
        except ConfigError as error:
            damaged[folder] = error
    if not found:
        raise next(iter(damaged.values()))
    empty = [run.folder for run in found if run.is_empty]
    if len(empty) == len(found):
        raise ConfigError(f"no run has logged anything yet: {', '.join(map(str, empty))}")
    groups, repeated = runs.group_runs([run for run in found if not run.is_empty])
    left_out = {
        "without any row": empty,
        "of a configuration and seed that another folder has too": [r.folder for r in repeated],
        **{f"since {error}": [folder] for folder, error in damaged.items()},
    }
    pictures = {name: figures.render(draw, groups) for name, draw in FIGURES.items()}
    paths = _write(out, _page(groups, pictures, left_out), pictures)
    if skipped := [f"{folder}, {why}" for why, f in left_out.items() for folder in f]:
        paths["left out"] = "\n".join(skipped)
    return paths


def _write(out: Path, html: str, pictures: dict[str, bytes]) -> dict[str, str]:
    """Replaces an earlier report in `out`, figures that this one lacks too."""
    out.mkdir(parents=True, exist_ok=True)
    paths = {}
    for name, png in pictures.items():
        path = out / f"report_{name}.png"
        if png:
            write_bytes(path, png)
            paths[name] = str(path)
        else:
            path.unlink(missing_ok=True)
    write_text(out / "report.html", html)
    return {"page": str(out / "report.html")} | paths


def _page(
    groups: Sequence[runs.Group],
    pictures: Mapping[str, bytes],
    left_out: Mapping[str, Sequence[Path]],
) -> str:
    """The HTML; ConfigError if Jinja2 is not installed.

    pictures: PNGs by the names that page.html has captions for. left_out: why -> the folders that
    are not in `groups` for that reason.
    """
    try:
        import jinja2
    except ImportError as error:
        raise ConfigError(f"a report needs Jinja2 ({error}): pip install -e '.[report]'") from None
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters["base64"] = lambda png: base64.b64encode(png).decode()
    few = [group.name for group in groups if 0 < len(group.evaluated) < FEWEST]
    return templates.get_template("page.html").render(
        groups=groups,
        pictures=pictures,
        left_out=left_out,
        few=few,
        **_configuration(groups),
        **{f.__name__.strip("_"): f for f in (style_of, _summary, _values)},
        statistics=statistics,
    )


def _summary(group: runs.Group) -> list[list[str]]:
    """The lines of each cell of its row."""
    final = mean = percentiles = "–"
    if group.evaluated:
        scores, middle = statistics.final_returns(group)
        final = str(middle)
        mean = number(float(np.mean(scores)))
        percentiles = " / ".join(map(number, statistics.last_percentiles(group)))
    speed = statistics.median_speed(group)
    texts = [final, mean, percentiles, "–" if speed is None else number(speed)]
    done, planned = [run.steps for run in group.runs], group.runs[0].planned
    reached = [f"{min(done):,}" + f" to {max(done):,}" * (min(done) < max(done))]
    reached += [f"of {planned:,}"] * (min(done) < planned)
    return [reached, *([text] for text in texts)]


def _configuration(groups: Sequence[runs.Group]) -> dict[str, object]:
    """Which settings differ, what the others and the versions are; groups by experiment."""
    different = runs.differing([group.config for group in groups])
    leaves = runs.settings_of(groups[0].config)
    same = {path: x for path, x in leaves.items() if path not in different}
    packages = [path for path in same if path.startswith("versions.")]
    experiments = defaultdict(list)
    for group in groups:
        experiments[f"{group.config['exp']}, {group.config['backend']}"].append(group)
    return {
        "different": different,
        "common": {path: x for path, x in same.items() if path not in packages},
        "versions": {path.removeprefix("versions."): same[path] for path in packages},
        "experiments": experiments,
        "differing": lambda members: runs.differing([group.config for group in members]),
    }


def _values(path: str, groups: Sequence[runs.Group]) -> str:
    values = (runs.settings_of(group.config).get(path, runs.NOTHING) for group in groups)
    return " or ".join(dict.fromkeys(values))
