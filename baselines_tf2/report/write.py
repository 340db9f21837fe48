"""A report on runs: one self-contained HTML page, and its figures as PNGs beside it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from baselines_tf2.common.files import write_bytes, write_text
from baselines_tf2.report import figures
from baselines_tf2.report.page import Section, page
from baselines_tf2.report.runs import Group, Run, find_runs, group_runs, read_run
from envs.errors import ConfigError


class Kind(NamedTuple):
    """A figure of the report."""

    draw: Callable[[Sequence[Group]], Figure | None]
    title: str
    caption: str


# By the name of the PNG and of its place in what write_report returns.
KINDS = {
    "curves": Kind(
        figures.learning_curves,
        "Learning curves",
        "Mean return of each evaluation, by environment steps. Thick: interquartile mean over "
        "seeds; shaded: its 95% interval at each step; thin: the seeds.",
    ),
    "final": Kind(
        figures.final_returns,
        "Final returns",
        "Diamonds: interquartile mean over seeds; bars: its 95% interval; dots: the seeds.",
    ),
    "robots": Kind(
        figures.robot_response,
        "Return by robot",
        "Mean return of the episodes at each value of a parameter, the others at their medians, in "
        "the last evaluation of every seed. Shaded grey: the robots trained on; beyond them the "
        "agent was never trained.",
    ),
    "spread": Kind(
        figures.percentiles,
        "Percentiles of the return",
        "10th, 50th and 90th percentile of the episodes of all seeds together, at each evaluation "
        "that all seeds have. Groups of one environment share the scale of returns.",
    ),
    "speed": Kind(
        figures.speed,
        "Steps per second",
        "Wall-clock speed between two rows of the log, evaluations not counted. It starts high "
        "where the first steps are random and nothing is trained. Runs side by side on one "
        "machine slow each other down.",
    ),
    "solver": Kind(
        figures.solver_health,
        "Health of the hypergradient's solver",
        "Means over the updates between two rows of the log. The implicit function theorem holds "
        "where the inner optimality condition is 0. What was 0 throughout has no panel, and a 0 "
        "no place on a logarithmic axis: the identity solver neither iterates nor has a residual.",
    ),
}


def write_report(patterns: Sequence[str] | str, out: Path) -> dict[str, str]:
    """Writes `report.html` and `report_<figure>.png` to `out`; returns {what: path}.

    patterns: globs of run folders or of their parents; a run folder is one with a config.json.
    Runs that are equal but for the seed form a group. Runs without any row are left out, and so
    are damaged ones and a second run of the same configuration and seed; "left out" in what is returned names them.
    The same runs give the same bytes.

    Raises ConfigError if there is nothing sound to report on, the tables of one
    group differ in columns, or rliable is needed and not installed.
    """
    runs, damaged = _read_runs(find_runs(patterns))
    empty = [run.folder for run in runs if run.is_empty]
    if len(empty) == len(runs):
        raise ConfigError(f"no run has logged anything yet: {', '.join(map(str, empty))}")
    groups, repeated = group_runs([run for run in runs if not run.is_empty])
    left_out = {
        "without any row": empty,
        "of a configuration and seed that another folder has too": [r.folder for r in repeated],
        **damaged,
    }
    pictures = {name: figures.render(kind.draw, groups) for name, kind in KINDS.items()}
    sections = [
        Section(kind.title, kind.caption, pictures[name])
        for name, kind in KINDS.items()
        if pictures[name]
    ]
    html = page(groups, sections, left_out)
    paths = _write(out, html, pictures)
    if skipped := [f"{folder}, {why}" for why, f in left_out.items() for folder in f]:
        paths["left out"] = "\n".join(skipped)
    return paths


def _read_runs(folders: Sequence[Path]) -> tuple[list[Run], dict[str, list[Path]]]:
    """The runs, and {why: folder} of those that cannot be read; ConfigError if none can."""
    runs, damaged = [], {}
    for folder in folders:
        try:
            runs.append(read_run(folder))
        except ConfigError as error:
            damaged[folder] = error
    if not runs:
        raise next(iter(damaged.values()))
    return runs, {f"since {error}": [folder] for folder, error in damaged.items()}


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
