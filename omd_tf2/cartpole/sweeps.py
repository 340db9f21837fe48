"""The paper's CartPole figures (2106.03273, figure 4): returns by model width and by distractors."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from baselines_tf2.common.errors import TrainingError, check_types
from baselines_tf2.common.files import read_table, write_atomically
from baselines_tf2.common.train_loop import TrainConfig
from baselines_tf2.runs.checkpoint import Checkpoints
from baselines_tf2.runs.experiment import (
    FAILED,
    PRESETS,
    Experiment,
    Progress,
    RunFunction,
)
from baselines_tf2.runs.folder import CONFIG, carry_out, check_config, failure, write_config
from baselines_tf2.runs.logger import CsvTable
from envs import ConfigError, EnvSpec, backends_of, unknown
from omd_tf2.cartpole import experiments
from omd_tf2.cartpole.config import AGENTS, CartPoleConfig

Row = dict[str, float | int | str]


@dataclass(frozen=True)
class Settings:
    """Every agent at every value for every seed, and each agent's own settings."""

    agents: str  # names, with commas
    values: str  # of what is varied: whole numbers, with commas
    num_seeds: int  # seed, seed + 1, ...
    env: EnvSpec
    omd: CartPoleConfig
    mle: CartPoleConfig
    vep: CartPoleConfig
    vaml: CartPoleConfig
    qlearning: CartPoleConfig
    train: TrainConfig  # of each run

    def __post_init__(self):
        check_types(self)
        for name in self.agent_names():
            if name not in AGENTS:
                raise unknown("agent", name, AGENTS)
        if self.num_seeds < 1:
            raise ConfigError(f"num_seeds must be at least 1, not {self.num_seeds}")
        for label, entries in (("agents", self.agent_names()), ("values", self.numbers())):
            if len(set(entries)) < len(entries):
                raise ConfigError(f"{label} names one twice: leave it out")
        for name in AGENTS:
            if getattr(self, name).agent != name:
                raise ConfigError(f"{name}.agent is not to be changed: choose by agents=...")
            if name not in self.agent_names() and getattr(self, name) not in _presets(name):
                raise ConfigError(
                    f"settings of {name} do nothing here: leave them out, or add it to agents=..."
                )

    def agent_names(self) -> list[str]:
        return self.agents.split(",")

    def numbers(self) -> list[int]:
        try:
            return [int(value) for value in self.values.split(",")]
        except ValueError:
            message = f"values must be whole numbers with commas between, not '{self.values}'"
            raise ConfigError(message) from None

    def num_runs(self) -> int:
        return len(self.agent_names()) * len(self.numbers()) * self.num_seeds


def _presets(agent: str) -> list[CartPoleConfig]:
    """An agent's own settings in each preset."""
    experiment = experiments.EXPERIMENTS[f"{agent}_cartpole"]
    return [experiment.settings(preset, *experiment.backends).agent for preset in PRESETS]


@dataclass(frozen=True)
class Sweep:
    """What is varied, and how a value enters one run's settings."""

    name: str
    label: str
    values: str
    group: str  # of a run's settings
    field: str  # in it

    def apply(self, run: experiments.Settings, value: int) -> experiments.Settings:
        """The run with this value; ConfigError if it was set by hand too, or is impossible."""
        group = getattr(run, self.group)
        if getattr(group, self.field) != getattr(type(group), self.field):
            raise ConfigError(f"{self.field} is what the sweep varies: set values=... instead")
        return replace(run, **{self.group: replace(group, **{self.field: value})})


SWEEPS = (
    Sweep("cartpole_widths", "hidden units of the model", "1,2,3,4,6,12", "agent", "model_hidden_dim"),
    Sweep("cartpole_distractors", "distractors", "0,5,10,20,40", "env", "distractors"),
)  # fmt: skip


def runs(sweep: Sweep, settings: Settings, seed: int) -> list[tuple[str, int, int, object]]:
    """Every run: agent, value, seed and settings; ConfigError if one of them is impossible."""
    return [
        (agent, value, s, _settings_of(sweep, settings, agent, value))
        for s in range(seed, seed + settings.num_seeds)  # all settings early, seeds one by one
        for value in settings.numbers()
        for agent in settings.agent_names()
    ]


def _settings_of(sweep, settings, agent, value):
    try:
        run = experiments.Settings(settings.env, getattr(settings, agent), settings.train)
        return sweep.apply(run, value)
    except ConfigError as error:  # names as this experiment has them
        text = str(error).replace("agent.", f"{agent}.")
        raise ConfigError(f"{agent} at {value} {sweep.label}: {text}") from None


def prepare(sweep: Sweep, settings: Settings, seed: int) -> RunFunction:
    """Checks every run; the returned function does them one after the other.

    Each fills a folder <agent>/<value>/seed_<n>, and `results.csv` grows by its row. A run that
    diverges is named in the end and does not stop the others. Runs that are finished are not done
    again, nor are those that failed, and one that was stopped goes on. The figure is drawn after
    Ctrl-C too.
    """
    planned = runs(sweep, settings, seed)

    def run(folder: Path, progress: Progress, checkpoints: Checkpoints) -> dict[str, str]:
        table, rows, failed = CsvTable(folder / "results.csv"), [], []
        try:
            for i, (agent, value, s, chosen) in enumerate(planned):
                own = folder / agent / str(value) / f"seed_{s}"
                own.mkdir(parents=True, exist_ok=True)
                flags = {"exp": f"{agent}_cartpole", "backend": chosen.env.backend, "seed": s}
                if (own / CONFIG).exists():
                    for text in check_config(own, flags, chosen):
                        checkpoints.tell(f"warning: {own.relative_to(folder)}: {text}")
                else:
                    write_config(own, flags, chosen)
                part = _Part(progress, i * settings.train.num_timesteps)
                row = {"agent": agent, "value": value, "seed": s}
                try:
                    _check_not_failed(own)
                    carry_out(experiments.prepare(chosen, s), own, part, checkpoints.of(own))
                    part.resume(settings.train.num_timesteps)  # also if it was finished before
                    rows.append(row | _returns(own) | {"error": ""})
                    table.append(rows[-1:])
                except (TrainingError, ConfigError) as error:
                    failed.append(f"{own.relative_to(folder)}: {error}")
                    table.append([row | {"error": str(error)}])
        finally:
            plot(folder / "sweep.png", sweep, rows)
        summary = {
            "returns": format_table(sweep, settings, rows),
            "figure": "sweep.png",
            "numbers": "results.csv",
        }
        return summary | ({FAILED: "\n".join(failed)} if failed else {})

    return run


def _check_not_failed(folder: Path) -> None:
    """TrainingError if this run failed before: from the same state it would again."""
    if (error := failure(folder)) is not None:
        raise TrainingError(f"failed before: {error}")


class _Part:
    """One run's share of the sweep's progress."""

    def __init__(self, progress: Progress, start: int):
        self._progress, self._start = progress, start

    def update(self, step: int, episode_return: float | None) -> None:
        self._progress.update(self._start + step, episode_return)

    def resume(self, step: int) -> None:
        self._progress.resume(self._start + step)


def _returns(folder: Path) -> Row:
    """Mean return over all of a run's evaluations, and over its last ten."""
    by_step = defaultdict(list)
    for row in read_table(folder / "eval.csv"):
        by_step[int(row["step"])].append(float(row["return"]))
    means = [float(np.mean(returns)) for returns in by_step.values()]
    return {"return_mean": float(np.mean(means)), "return_last10": float(np.mean(means[-10:]))}


def _groups(rows: Sequence[Row]) -> dict[str, dict[int, np.ndarray]]:
    """Agent -> value -> the seeds' mean returns."""
    groups: dict = defaultdict(lambda: defaultdict(list))
    for row in rows:
        groups[row["agent"]][row["value"]].append(row["return_mean"])
    return {a: {v: np.array(x) for v, x in by_value.items()} for a, by_value in groups.items()}


def format_table(sweep: Sweep, settings: Settings, rows: Sequence[Row]) -> str:
    """Mean over seeds (± standard deviation) of the return averaged over a run's evaluations.

    rows: of the runs that came to their end. Where some failed the number of the others is said.
    """
    groups, agents = _groups(rows), settings.agent_names()
    lines = [f"{sweep.label:>26}" + "".join(f"{agent:>16}" for agent in agents)]
    for value in settings.numbers():
        cells = (groups.get(agent, {}).get(value, np.array([])) for agent in agents)
        texts = (_cell(x, settings.num_seeds) for x in cells)
        lines.append(f"{value:>26}" + "".join(f"{text:>16}" for text in texts))
    return "\n".join(lines)


def _cell(returns: np.ndarray, num_seeds: int) -> str:
    if not len(returns):
        return "failed"
    text = f"{returns.mean():.0f}"
    if len(returns) > 1:
        text += f" ± {returns.std(ddof=1):.0f}"
    return text if len(returns) == num_seeds else f"{text} ({len(returns)} of {num_seeds})"


def plot(path: Path, sweep: Sweep, rows: Sequence[Row]) -> None:
    """Draws the mean over seeds by value, a line an agent, with ± 1.96 standard errors."""
    figure = Figure(figsize=(5, 3.6), layout="constrained")
    axis = figure.subplots()
    for agent, by_value in _groups(rows).items():
        mean = np.array([x.mean() for x in by_value.values()])
        error = np.array(
            [1.96 * x.std(ddof=min(len(x) - 1, 1)) / len(x) ** 0.5 for x in by_value.values()]
        )
        axis.plot(list(by_value), mean, ".-", label=agent)
        axis.fill_between(list(by_value), mean - error, mean + error, alpha=0.2)
    axis.set(xlabel=sweep.label, ylabel="return, mean of all evaluations", title="CartPole")
    if rows:
        axis.legend(fontsize="small")
    write_atomically(path, lambda file: figure.savefig(file, dpi=150))


def _settings(sweep: Sweep) -> Callable[[str, str], Settings]:
    def settings(preset: str, backend: str) -> Settings:
        agents = {
            name: experiments.EXPERIMENTS[f"{name}_cartpole"].settings(preset, backend).agent
            for name in AGENTS
        }
        original = preset == "original"
        return Settings(
            agents="omd,mle,vep",
            values=sweep.values,
            num_seeds=10,
            env=EnvSpec("cartpole", backend),
            train=TrainConfig(
                200_000 if original else 50_000, 1_000, 10, original, random_steps=1_000
            ),
            **agents,
        )

    return settings


def _experiment(sweep: Sweep) -> Experiment:
    return Experiment(
        name=sweep.name,
        description=f"cartpole: returns by {sweep.label}, all agents and seeds",
        source="OMD, arXiv 2106.03273",
        backends=backends_of("cartpole"),
        settings=_settings(sweep),
        prepare=lambda settings, seed: prepare(sweep, settings, seed),
        num_timesteps=lambda settings: settings.num_runs() * settings.train.num_timesteps,
    )


EXPERIMENTS = {sweep.name: _experiment(sweep) for sweep in SWEEPS}
