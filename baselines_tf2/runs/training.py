"""What every run that trains an agent has in common: seeds, rows of its log, evaluation, folder."""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from baselines_tf2.common.rollout import Envs, Episode, SerialEnvs, failing_at
from baselines_tf2.common.state import Part, Stateful, state_of
from baselines_tf2.common.train_loop import Agent, Epoch, TrainLoop
from baselines_tf2.runs.adaptation import TargetAdaptation
from baselines_tf2.runs.checkpoint import Checkpoints
from baselines_tf2.runs.experiment import Progress, RunFunction
from baselines_tf2.runs.folder import VIDEOS, WEIGHTS
from baselines_tf2.runs.judging import PHYSICS, Judge
from baselines_tf2.runs.logger import Logger
from baselines_tf2.runs.plots import plot_run
from envs import make_env
from envs.errors import check_at_least

MakeAgent = Callable[[Envs, Any, int], Any]  # (envs, config, seed); ConfigError for wrong spaces
RETURN_HISTORY = 100  # episodes in rollout/return_history and its std, as in Baselines


class Seeds(NamedTuple):
    """One seed for each purpose, all spawned from the run's."""

    agent: int
    exploration: int
    envs: int
    evaluation: int
    target: int


def spawn_seeds(seed: int | None) -> Seeds:
    """A run's seeds; None draws them from the system's entropy."""
    if seed is not None:
        check_at_least(0, seed=seed)
    states = np.random.SeedSequence(seed).generate_state(len(Seeds._fields))
    return Seeds(*(int(state) % 2**31 for state in states))


class EpochRows(Stateful):
    """Turns epochs into rows of what Baselines logs, for `on_epoch(step, metrics)`."""

    STATE = ("_returns", "_episodes", "_step")

    def __init__(self, agent: Agent, on_epoch: Callable):
        self._agent, self._on_epoch = agent, on_epoch
        self._returns: list[float] = []
        self._episodes = self._step = 0
        self._start = self._last = time.perf_counter()

    def get_state(self) -> dict:
        """What coming rows continue from."""
        now = time.perf_counter()
        clock = {"elapsed": now - self._start, "since_last": now - self._last}
        return super().get_state() | clock

    def set_state(self, state: Mapping) -> None:
        """Puts back what `get_state` gave."""
        super().set_state(state)
        now = time.perf_counter()
        self._start, self._last = now - state["elapsed"], now - state["since_last"]

    def epoch(self, epoch: Epoch) -> None:
        now = time.perf_counter()
        self._episodes += len(epoch.episodes)
        metrics: dict[str, float] = {"rollout/episodes": self._episodes}
        if epoch.episodes:
            returns = [episode.episode_return for episode in epoch.episodes]
            self._returns = [*self._returns, *returns][-RETURN_HISTORY:]
            metrics["rollout/return"] = float(np.mean(returns))
            metrics["rollout/return_std"] = float(np.std(returns))
            metrics["rollout/return_history"] = float(np.mean(self._returns))
            metrics["rollout/return_history_std"] = float(np.std(self._returns))
            metrics["rollout/episode_steps"] = float(np.mean([e.length for e in epoch.episodes]))
        metrics |= epoch.metrics
        if self._agent.can_train():
            with np.errstate(invalid="ignore", over="ignore"):  # diverged: the next update says so
                metrics |= self._agent.statistics(epoch.latest)
        metrics["time/steps_per_second"] = (epoch.step - self._step) / (now - self._last)
        metrics["time/elapsed"] = now - self._start
        self.log(epoch.step, metrics)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Gives a row; what that costs, as an evaluation, counts for no speed."""
        self._on_epoch(step, metrics)
        self._step, self._last = step, time.perf_counter()


def run_training(
    folder: Path, progress: Progress, checkpoints: Checkpoints, loop: TrainLoop, judge: Judge
) -> dict[str, str]:
    """Trains, evaluates and fills the run's folder; returns the last evaluation in words.

    Goes on from the latest checkpoint if there is one. Raises TrainingError as the loop does,
    Interrupted if the user stops it, OSError where a file cannot be written.
    """
    agent, logger = loop.agent, Logger(folder)

    def on_row(step, metrics):
        if judge.due(step):
            with failing_at(step):
                episodes = judge.episodes(agent.policy(), folder / VIDEOS / f"step_{step:09d}.mp4")
            logger.log_episodes(step, [_row(i, e) for i, e in enumerate(episodes)])
            metrics = metrics | judge.summary(episodes)
            metrics |= agent.diagnostics() if agent.can_train() else {}
        logger.log(step, metrics)

    rows = EpochRows(agent, on_row)
    # The loop last: put back, it may cut the replay's episodes.
    parts: dict[str, Part] = {"rows": rows, "judge": judge, "logger": logger}
    parts |= {"replay": agent.replay, "loop": loop}

    def on_cycle(step, episodes):
        returns = [episode.episode_return for episode in episodes]
        progress.update(step, np.mean(returns) if returns else None)
        checkpoints.after_cycle(step, partial(state_of, parts), agent.replay)

    with closing(logger):
        # If that fails the folder's weights stay.
        if returned := checkpoints.resume(parts, agent.replay):
            progress.resume(checkpoints.step)
            if not returned["loop"]:
                told = "this simulator cannot go on within an episode: the next one begins"
                checkpoints.tell(told)
        try:
            if loop.step == 0 and judge.at_start:
                rows.log(0, {})
            loop.run(rows.epoch, on_cycle)
            if checkpoints.step != loop.step:  # weights and pictures can still fail
                checkpoints.save(loop.step, state_of(parts), agent.replay)
        finally:  # a run that was stopped leaves what it had
            agent.save(folder / WEIGHTS)
            plot_run(folder, judge.training_ranges)
    summary = judge.verdict()
    if loop.adaptation is not None:
        summary["ensemble"] = loop.adaptation.verdict()
    summary["curves"] = "curves.png, and TensorBoard's events"
    summary["numbers"] = "metrics.csv, eval.csv, config.json, weights.npz"
    return summary | ({"videos": VIDEOS} if (folder / VIDEOS).exists() else {})


def _row(index: int, episode: Episode) -> dict[str, float]:
    row = {"episode": index, "return": episode.episode_return, "length": episode.length}
    return row | {f"{PHYSICS}{name}": value for name, value in episode.physics.items()}


def prepare(
    settings: Any, seed: int, *, make_agent: MakeAgent, make_loop: Callable, video: bool = False
) -> RunFunction:
    """Builds environments and agent; the returned function trains and fills the run folder.

    settings: env, agent and train. make_loop(agent, envs, settings, seeds, adaptation) gives the
    TrainLoop.
    """
    seeds, train = spawn_seeds(seed), settings.train
    made, envs = _make_envs(settings, training=True)
    agent = make_agent(envs, settings.agent, seeds.agent)
    judge = Judge(settings.env, train, seeds.evaluation, video=video)
    adaptation = None
    if train.adapt_every:
        adaptation = TargetAdaptation(made, settings.env, train.adapt_every, seeds.target)

    def run(folder: Path, progress: Progress, checkpoints: Checkpoints) -> dict[str, str]:
        loop = make_loop(agent, envs, settings, seeds, adaptation)
        return run_training(folder, progress, checkpoints, loop, judge)

    return run


def load(settings: Any, folder: Path, *, make_agent: MakeAgent) -> Any:
    """The trained agent of a run's folder; ConfigError if its weights are missing or damaged."""
    made, envs = _make_envs(settings, training=False)
    agent = make_agent(envs, settings.agent, 0)
    for env in made:
        env.close()
    agent.load(folder / WEIGHTS)
    return agent


def _make_envs(settings, *, training):
    # Agents that do not say how many environments they step take one, and no pairs.
    num_envs = getattr(settings.train, "num_envs", 1)
    made = [make_env(settings.env, training=training) for _ in range(num_envs)]
    twins = getattr(settings.agent, "pairing", "independent") == "coupled"
    return made, SerialEnvs(made, twins=twins)
