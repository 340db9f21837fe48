"""Judging a run over a grid of physical parameters: `--mode=evaluate`."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from baselines_tf2.common.evaluate import summarise, verdict
from baselines_tf2.common.experiment import Experiment, find_experiment, settings_from
from baselines_tf2.common.files import read_arrays, read_json, write_atomically
from baselines_tf2.common.logger import CsvTable
from baselines_tf2.common.plots import axis_label
from baselines_tf2.common.returns import by_robot, percentiles
from baselines_tf2.common.rollout import Episode
from baselines_tf2.common.run_folder import (
    CONFIG,
    SWEEP_FIGURE,
    SWEEP_TABLE,
    SWEEP_VIDEOS,
    WEIGHTS,
    failure,
    is_finished,
)
from baselines_tf2.common.workers import evaluate_on_cores
from envs import Ensemble, default_ensemble, robots_of, sweeps, training_ranges
from envs.errors import ConfigError
from envs.grid import Grid, Ranges
from envs.physics import REWARD_OFFSET

Robot = dict[str, float]


def load_agent(experiments: Mapping[str, Experiment], folder: Path) -> tuple:
    """A run's agent and settings.

    Raises ConfigError if the folder holds no run, a damaged one, or one without an agent.
    """
    if not (folder / CONFIG).exists():
        raise ConfigError(
            f"there is no run in {folder}: name the folder of its {CONFIG}, as in "
            "runs/<exp>/<backend>/seed_<n>"
        )
    config = read_json(folder / CONFIG)
    try:
        experiment = find_experiment(experiments, config["exp"])
        kind = type(experiment.settings("default", config["backend"]))
        settings = settings_from(kind, config["settings"])
    except (KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{folder / CONFIG} is no run's: {error}") from None
    except ConfigError as error:
        raise ConfigError(f"{folder / CONFIG}: {error}") from None
    if experiment.load is None:
        raise ConfigError(f"a run of {experiment.name} leaves no agent to evaluate")
    _check_weights(folder)
    return experiment.load(settings, folder), settings


def _check_weights(folder: Path) -> None:
    """ConfigError if there are none yet, or the run left some that are not finite."""
    path = folder / WEIGHTS
    if not path.exists():
        raise ConfigError(
            f"{path} is not there yet: its run writes it in the end, and --resume goes on with it"
        )
    for name, array in read_arrays(path).items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ConfigError(
                f"{path} holds numbers that are not finite ({name}): its run diverged, "
                "train it again with other settings"
            )


def unfinished(folder: Path) -> str | None:
    """What to know of weights whose run did not come to its end; None if it did."""
    if is_finished(folder):
        return None
    if (error := failure(folder)) is not None:
        return f"the run in {folder} failed ({error}): its weights are of that moment"
    return f"{folder} is not finished: its weights are of its latest stop; --resume finishes it"


def parse_grid(text: str) -> Grid:
    """Reads "torso_mass=3,6,9;friction=0.5,1"; ConfigError for what cannot be read."""
    grid: Grid = {}
    for entry in filter(None, (part.strip() for part in text.split(";"))):
        name, _, numbers = (part.strip() for part in entry.partition("="))
        if name == REWARD_OFFSET:
            raise ConfigError(f"{name} is added in training only: leave it out of the grid")
        if name in grid:
            raise ConfigError(f"the grid names '{name}' twice: leave one out")
        try:
            grid[name] = tuple(float(number) for number in numbers.split(","))
        except ValueError:
            message = f"cannot read grid entry '{entry}': write 'name=value,value;name=value'"
            raise ConfigError(message) from None
    return grid


def default_grids(settings) -> list[Grid]:
    """Nine values of each parameter that the ensemble varies, inside and outside of it.

    Where there is none, those of the task's default ensemble.
    """
    spec = settings.env
    default = default_ensemble(spec.task, spec.backend)
    return sweeps(Ensemble.parse(spec.ensemble)) or sweeps(Ensemble.parse(default))


def evaluate_run(
    experiments: Mapping[str, Experiment],
    folder: Path,
    grid: str,
    *,
    episodes: int,
    seed: int,
    overwrite: bool = False,
    video: bool = False,
    cores: int | None = None,
) -> dict[str, str]:
    """Evaluates a run on every combination of the grid; writes sweep.csv and sweep.png beside it.

    grid: as `parse_grid` reads it; "" takes `default_grids`. episodes: for each combination. video:
    records the first episode of each, in the run's folder `sweep_videos`. cores: how many step,
    None: all. Returns {what: text} for the terminal. Raises ConfigError as `load_agent` and
    `video_env` do, and for parameters that the robot does not have.
    """
    if episodes < 1:
        raise ConfigError(f"episodes must be at least 1, not {episodes}")
    if (folder / SWEEP_TABLE).exists() and not overwrite:
        raise ConfigError(
            f"{folder} was evaluated already: add --overwrite to replace {SWEEP_TABLE}"
        )
    agent, settings = load_agent(experiments, folder)
    grids = [values] if (values := parse_grid(grid)) else default_grids(settings)
    robots = robots_of(grids)
    repeated = [robot for robot in robots for _ in range(episodes)]
    videos = [folder / SWEEP_VIDEOS / _video_name(robot) for robot in robots] if video else []
    recorded = [path if i == 0 else None for path in videos for i in range(episodes)]
    rng, policy = np.random.default_rng(seed), agent.policy()
    done = evaluate_on_cores(policy, settings.env, rng, repeated, recorded or None, cores=cores)
    _keep_only(videos, folder / SWEEP_VIDEOS)
    _write(folder / SWEEP_TABLE, repeated, done)
    plot_sweeps(folder / SWEEP_FIGURE, grids, repeated, done)
    ranges = training_ranges(Ensemble.parse(settings.env.ensemble))
    return _summary(folder, done, ranges, len(robots), video)


def _keep_only(videos: Sequence[Path], folder: Path) -> None:
    """Removes an earlier evaluation's videos."""
    if not videos:
        shutil.rmtree(folder, ignore_errors=True)
    for old in set(folder.glob("*.mp4")) - set(videos):
        old.unlink()


def _summary(
    folder: Path, done: Sequence[Episode], ranges: Ranges, robots: int, video: bool
) -> dict[str, str]:
    summary = verdict(summarise(done, ranges), ranges, f"{len(done)} episodes on {robots} robots")
    summary |= {"numbers": SWEEP_TABLE, "figure": SWEEP_FIGURE}
    summary |= {"videos": SWEEP_VIDEOS} if video else {}
    warning = unfinished(folder)
    return summary | {"folder": str(folder)} | ({"warning": warning} if warning else {})


def _video_name(robot: Robot) -> str:
    """E.g. torso_mass=3,friction=0.5.mp4; a body's mass/foot becomes mass_foot."""
    values = (f"{name.replace('/', '_')}={value:.12g}" for name, value in robot.items())
    return ",".join(values) + ".mp4"


def _write(path: Path, robots: Sequence[Robot], episodes: Sequence[Episode]) -> None:
    path.unlink(missing_ok=True)
    rows = []
    for robot, episode in zip(robots, episodes, strict=True):
        row = {f"physics/{name}": value for name, value in robot.items()}
        rows.append(row | {"return": episode.episode_return, "length": episode.length})
    CsvTable(path).append(rows)


def plot_sweeps(
    path: Path, grids: Sequence[Grid], robots: Sequence[Robot], episodes: Sequence[Episode]
) -> None:
    """Draws the return on each grid by its first parameter, a line for each of the others' values."""
    figure = Figure(figsize=(1 + 4.5 * len(grids), 3.8), layout="constrained")
    returns = by_robot(robots, [episode.episode_return for episode in episodes])
    for axis, grid in zip(figure.subplots(1, len(grids), squeeze=False)[0], grids, strict=True):
        _plot_lines(axis, grid, returns)
    figure.suptitle("Median, 10th to 90th percentile")
    write_atomically(path, lambda file: figure.savefig(file, dpi=150))


def _plot_lines(axis: Axes, grid: Grid, returns: Mapping[frozenset, list[float]]) -> None:
    first, *others = grid
    for rest in robots_of([{name: grid[name] for name in others}]):
        line = [percentiles(returns[frozenset({first: x, **rest}.items())]) for x in grid[first]]
        low, middle, high = np.transpose(line)
        label = ", ".join(f"{name} {value:g}" for name, value in rest.items())
        axis.plot(grid[first], middle, ".-", label=label or "median")
        axis.fill_between(grid[first], low, high, alpha=0.2)
    axis.set(xlabel=axis_label(first), ylabel="return per episode")
    axis.legend(fontsize="small")
    axis.grid(alpha=0.3)
