"""A report on runs: one self-contained HTML page, and its figures as PNGs beside it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from baselines_tf2.common.files import write_bytes, write_text
from baselines_tf2.report import figures
from baselines_tf2.report.page import page
from baselines_tf2.report.runs import Group, Run, find_runs, group_runs, read_run
from envs.errors import ConfigError

# By the name of the PNG and of its place in what write_report returns; page.html has the captions.
FIGURES: dict[str, Callable[[Sequence[Group]], Figure | None]] = {
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
    pictures = {name: figures.render(draw, groups) for name, draw in FIGURES.items()}
    html = page(groups, pictures, left_out)
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
