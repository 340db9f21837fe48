"""Judging a run over a grid of physical parameters: `--mode=evaluate`."""

import shutil
from collections.abc import Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from baselines_tf2.common.files import read_arrays, table_text, write_text
from baselines_tf2.common.rollout import Episode
from baselines_tf2.runs.experiment import Experiment, find_experiment, settings_from
from baselines_tf2.runs.folder import (
    CONFIG,
    SWEEP,
    WEIGHTS,
    failure,
    is_finished,
    locked,
    read_config,
    remove,
)
from baselines_tf2.runs.judging import PHYSICS, Robot, by_robot, summarise, verdict
from baselines_tf2.runs.plots import plot_sweeps
from baselines_tf2.runs.workers import Workers
from envs import EnvSpec, default_ensemble, robots_of, sweeps, training_ranges
from envs.ensemble import Ensemble
from envs.errors import ConfigError, check_at_least, check_known
from envs.grid import Grid, Ranges
from envs.physics import REWARD_OFFSET, read_parameters
from envs.spec import NAMED_SETS
from envs.uncertainty import SETS, VARIANTS, uncertainty_grid


def load_agent(experiments: Mapping[str, Experiment], folder: Path) -> tuple:
    """A run's agent and settings.

    Raises ConfigError if the folder holds no run, a damaged one, one without an agent, or weights
    that are not there yet or not finite.
    """
    if not (folder / CONFIG).exists():
        raise ConfigError(
            f"there is no run in {folder}: name the folder of its {CONFIG}, as in "
            "runs/<exp>/<backend>/seed_<n>"
        )
    config = read_config(folder)
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
    return experiment.load(settings, folder), settings


def unfinished(folder: Path) -> str | None:
    """What to know of weights whose run did not come to its end; None if it did."""
    if is_finished(folder):
        return None
    if (error := failure(folder)) is not None:
        return f"the run in {folder} failed ({error}): its weights are of that moment"
    return f"{folder} is not finished: its weights are of its latest stop; --resume finishes it"


def parse_grid(text: str) -> Grid:
    """Reads "torso_mass:3,6,9;friction:0.5,1"; ConfigError for what cannot be read."""
    kinds = {0: lambda *values: tuple(sorted(set(values)))}
    grid = read_parameters(text, "grid", kinds, "'name:value,value'")
    if REWARD_OFFSET in grid:
        raise ConfigError(f"{REWARD_OFFSET} is added in training only: leave it out of the grid")
    return grid


def default_grids(spec: EnvSpec) -> list[Grid]:
    """Nine values of each parameter that the ensemble varies, inside and outside of it.

    Where there is none, those of the task's default ensemble.
    """
    default = default_ensemble(spec.task, spec.backend)
    return sweeps(Ensemble.parse(spec.ensemble)) or sweeps(Ensemble.parse(default))


def make_plan(
    spec: EnvSpec, grid: str, protocol: str | None, variant: str | None
) -> tuple[str, EnvSpec, list[Grid], Ranges]:
    """A grid, or a protocol's: an uncertainty set, 10 values of each parameter, all else nominal.

    Returns the files' name, the robot, its grids, and the ranges trained on, if these are to be
    told from the others. With a protocol the run's own ensemble and physics are left out; as
    published a mass changes without inertia. Raises ConfigError where the robot has no such set.
    """
    if protocol is None:
        if variant is not None:
            raise ConfigError("--variant is a protocol's: add --protocol, or leave it out")
        grids = [values] if (values := parse_grid(grid)) else default_grids(spec)
        return SWEEP, spec, grids, training_ranges(Ensemble.parse(spec.ensemble))
    if grid:
        raise ConfigError("--protocol has a grid of its own: leave --grid out")
    variant = variant or VARIANTS[0]
    check_known("protocol", protocol, NAMED_SETS)
    if spec.backend != "mujoco" or spec.task not in SETS:
        robots = ", ".join(SETS)
        raise ConfigError(
            f"--protocol={protocol} is for mujoco's {robots}; this run's robot is the {spec.task} "
            f"of {spec.backend}: name its values with --grid"
        )
    values = uncertainty_grid(spec.task, NAMED_SETS[protocol], variant)
    bare = variant == "as_published"
    robot = replace(spec, ensemble="", target="", ensemble_size=0, physics="", bare_mass=bare)
    return f"{SWEEP}_{protocol}_{variant}", robot, [values], {}


def evaluate_run(
    experiments: Mapping[str, Experiment],
    folder: Path,
    grid: str = "",
    protocol: str | None = None,
    variant: str | None = None,
    *,
    episodes: int,
    seed: int,
    overwrite: bool = False,
    video: bool = False,
    cores: int | None = None,
) -> dict[str, str]:
    """Evaluates a run on every robot of a grid; writes a table and a figure of it into its folder.

    grid: as `parse_grid` reads it; "" takes `default_grids`. protocol, variant: as `make_plan`
    takes them, instead of a grid. episodes: on each robot. video: records the first one of each.
    cores: how many step, None: all. Returns {what: text} for the terminal. Raises ConfigError as
    `load_agent`, `make_plan` and `video_env` do, and for parameters that the robot does not have;
    TrainingError as `run_episode` does, and if a process that steps dies.
    """
    check_at_least(1, episodes=episodes)
    goes_on = (folder / CONFIG).exists() and not is_finished(folder)
    # Were the run to go on meanwhile, these would be weights of before.
    with closing(Workers(cores)) as workers, locked(folder) if goes_on else nullcontext():
        agent, settings = load_agent(experiments, folder)
        name, spec, grids, ranges = make_plan(settings.env, grid, protocol, variant)
        table, figure, films = (f"{name}{end}" for end in (".csv", ".png", "_videos"))
        if (folder / table).exists() and not overwrite:
            raise ConfigError(f"{folder} was evaluated already: add --overwrite to replace {table}")
        robots = robots_of(grids)
        repeated = [robot for robot in robots for _ in range(episodes)]
        videos = [folder / films / _video_name(robot) for robot in robots] if video else []
        recorded = [path if i == 0 else None for path in videos for i in range(episodes)]
        rng = np.random.default_rng(seed)
        done = workers.evaluate(agent.policy(), spec, rng, repeated, recorded)
        if not video:
            shutil.rmtree(folder / films, ignore_errors=True)
        # An earlier evaluation's, and what one left that was killed.
        remove({*(folder / films).glob("*.mp4")} - {*videos})
        remove((folder / films).glob(".video-*"))
        _write(folder / table, repeated, done)
        returns = by_robot(repeated, [episode.episode_return for episode in done])
        drawn = plot_sweeps(folder / figure, grids, returns)
    made = {"numbers": table, "figure": figure if drawn else "", "videos": films if video else ""}
    made |= {"folder": str(folder), "warning": unfinished(folder) or ""}
    told = summarise(done, ranges, repeated)
    summary = verdict(told, ranges, f"{len(done)} episodes on {len(robots)} robots")
    worst = min(returns, key=lambda robot: np.mean(returns[robot]))
    values = ", ".join(f"{name} {value:g}" for name, value in sorted(worst))
    summary["worst"] = f"{np.mean(returns[worst]):.1f} mean on {values}"
    return summary | {name: text for name, text in made.items() if text}


def _video_name(robot: Robot) -> str:
    """E.g. torso_mass=3,friction=0.5.mp4; a body's mass/foot becomes mass_foot."""
    values = (f"{name.replace('/', '_')}={value:.12g}" for name, value in robot.items())
    return ",".join(values) + ".mp4"


def _write(path: Path, robots: Sequence[Robot], episodes: Sequence[Episode]) -> None:
    rows = [
        {f"{PHYSICS}{name}": value for name, value in robot.items()}
        | {"return": episode.episode_return, "length": episode.length}
        for robot, episode in zip(robots, episodes, strict=True)
    ]
    write_text(path, table_text(dict.fromkeys(name for row in rows for name in row), rows))
