"""Cycles of stepping and training, one after the other or overlapped."""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from baselines_tf2.common.replay import Replay, Rollout
from baselines_tf2.common.rollout import Collector, Episode, Policy, failing_at
from baselines_tf2.common.state import Part, Stateful
from envs import ConfigError, EnvSpec
from envs.errors import Count, Natural, check_fields


@dataclass(frozen=True)
class TrainConfig:
    """How long to train and how to judge."""

    num_timesteps: Count = 1_000_000  # transitions
    eval_interval: Count = 50_000  # transitions between evaluations, in whole rows of the log
    eval_episodes: Count = 10  # per evaluation, or per robot of the grid on ensembles
    eval_at_start: bool = False  # judge the untrained agent as well
    adapt_every: Natural = 0  # transitions between moves of robots towards env.target; 0: none
    random_steps: Natural = 0  # uniform actions and no training before, in whole cycles

    def __post_init__(self):
        check_fields(self)
        check_random_steps(self.num_timesteps, self.random_steps)


def check_random_steps(num_timesteps: int, random_steps: int) -> None:
    """ConfigError if the random steps leave nothing to train on."""
    if random_steps and random_steps >= num_timesteps:
        raise ConfigError(
            f"train.random_steps={random_steps} leaves nothing to train on in {num_timesteps} "
            f"steps: add --set=train.random_steps={num_timesteps // 10}, or train for longer"
        )


def check_adaptation(env: EnvSpec, config: TrainConfig) -> None:
    """ConfigError unless there is a target and a time to adapt to it, or neither."""
    if bool(env.target) != bool(config.adapt_every):
        raise ConfigError("env.target and train.adapt_every need each other: set both or neither")
    if config.adapt_every >= config.num_timesteps:
        raise ConfigError(
            f"train.adapt_every={config.adapt_every} adapts to nothing that is trained on in "
            f"{config.num_timesteps} steps: adapt earlier, or train for longer"
        )


class Agent(Part, Protocol):
    """What the loop asks of an agent, whose state is all but the replay's rows."""

    replay: Replay
    refresh_each_cycle: bool  # else a policy lasts to its episode's end

    def exploring_policy(self) -> Callable[[], Policy]: ...

    def store(self, new: Rollout) -> None: ...

    def can_train(self) -> bool: ...

    def train(self) -> dict[str, float]: ...

    def statistics(self, latest: Rollout) -> dict[str, float]:
        """For each row of the log, beside the means of what `train` returned."""
        return {}

    def diagnostics(self) -> dict[str, float]:
        """For each evaluation."""
        return {}

    def policy(self) -> Policy: ...  # without exploration

    def save(self, path: str | Path) -> None: ...


class Selection(Part, Protocol):
    """Chooses what is stored of what was collected."""

    def __call__(self, new: Rollout, finished: list[Episode]) -> Rollout | None: ...

    def metrics(self) -> dict[str, float]: ...  # for each row of the log

    def end_episodes(self) -> None: ...  # the running ones will not be finished


class Adaptation(Part, Protocol):
    """Moves the robots that are trained on, while training goes on."""

    def after_cycle(self, step: int, policy: Callable[[], Policy]) -> None: ...

    def metrics(self) -> dict[str, float]: ...  # for each row of the log

    def verdict(self) -> str: ...


class Epoch(NamedTuple):
    """What happened since the last one."""

    step: int  # transitions so far
    episodes: list[Episode]
    metrics: dict[str, float]  # means over the cycles
    latest: Rollout


@dataclass(eq=False)
class TrainLoop(Stateful):
    """Runs cycles until `num_timesteps` transitions were collected, the last cycle cut to fit.

    A cycle collects `nb_rollout_steps` transitions, an equal share of each environment, stores
    them, or what `select` leaves of them, and trains: how many environments there are changes
    neither the updates per transition nor any interval. With `overlap` a cycle trains in a second
    thread on all that was stored before it, while stepping with the policy from before that
    training: the order of all random draws is fixed, so both ways are reproducible.
    """

    STATE = ("step", "_cycle", "_episodes", "_metrics", "agent", "select", "adaptation")

    agent: Agent
    collector: Collector
    _: KW_ONLY
    num_timesteps: int
    nb_rollout_steps: int  # per cycle
    nb_epoch_cycles: int
    random_steps: int = 0
    overlap: bool = False
    select: Selection | None = None
    adaptation: Adaptation | None = None

    def __post_init__(self) -> None:
        self.step, self._cycle = 0, 0
        self._episodes: list[Episode] = []  # since the last epoch
        self._metrics: list[dict[str, float]] = []

    def run(
        self,
        on_epoch: Callable[[Epoch], None],
        on_cycle: Callable[[int, list[Episode]], None] = lambda step, finished: None,
    ) -> None:
        """Trains to the end; on_cycle(step, finished episodes) comes last in each cycle.

        Raises TrainingError as collector and agent do, and what the two functions raise.
        """
        with ThreadPoolExecutor(1) if self.overlap else nullcontext() as thread:
            while self.step < self.num_timesteps:
                new, finished = self._run_cycle(thread)
                if self.adaptation is not None:
                    self.adaptation.after_cycle(self.step, self.agent.policy)
                if self._cycle % self.nb_epoch_cycles == 0 or self.step >= self.num_timesteps:
                    on_epoch(Epoch(self.step, self._episodes, self._epoch_metrics(), new))
                    self._episodes, self._metrics = [], []
                on_cycle(self.step, finished)

    def _epoch_metrics(self):
        names = self._metrics[0] if self._metrics else {}
        metrics = {name: float(np.mean([row[name] for row in self._metrics])) for name in names}
        if self.select is not None:
            metrics |= self.select.metrics()
        if self.adaptation is not None:
            metrics |= self.adaptation.metrics()
        return metrics

    def _run_cycle(self, thread):
        agent = self.agent
        num_envs = self.collector.num_envs
        remaining = -(-(self.num_timesteps - self.step) // num_envs)
        uniform, training = self.step < self.random_steps, None
        # Taken before training starts: from here on the weights belong to the other thread.
        new_policy = None if uniform else agent.exploring_policy()
        if self.overlap and not uniform and agent.can_train():
            training = thread.submit(_train, agent, self.step)
        new, finished = self.collector.collect(
            new_policy,
            min(self.nb_rollout_steps // num_envs, remaining),
            refresh=agent.refresh_each_cycle,
        )
        if training is not None:
            self._metrics.append(training.result())
        stored = new if self.select is None else self.select(new, finished)
        if stored is not None:
            agent.store(stored)
        self.step += new.rewards.size
        self._cycle += 1
        self._episodes += finished
        if not self.overlap and self.step > self.random_steps and agent.can_train():
            self._metrics.append(_train(agent, self.step))
        return new, finished

    def get_state(self) -> dict:
        """Everything that coming cycles depend on, between two of them, but for replayed rows."""
        return super().get_state() | {"collector": self.collector.get_state()}

    def set_state(self, state: Mapping) -> bool:
        """Puts back what `get_state` gave; False if the running episodes had to be cut for it."""
        super().set_state(state)
        self._episodes = [Episode(*episode) for episode in state["episodes"]]
        exact = self.collector.set_state(state["collector"], self.agent.policy)
        if not exact:
            self.agent.replay.end_episodes()
            if self.select is not None:
                self.select.end_episodes()
        return exact


def _train(agent: Agent, step: int) -> dict[str, float]:
    with failing_at(step):
        return agent.train()
