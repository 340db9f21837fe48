"""Cycles of stepping and training, one after the other or overlapped."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.replay import Transitions
from baselines_tf2.common.rollout import Collector, Episode, Policy


class Agent(Protocol):
    """What the loop asks of an agent."""

    refresh_each_cycle: bool  # else a policy lasts to its episode's end

    def exploring_policy(self) -> Callable[[], Policy]: ...

    def store(self, new: Transitions) -> None: ...

    def can_train(self) -> bool: ...

    def adapt_noise(self) -> None: ...

    def train(self) -> dict[str, float]: ...

    def statistics(self, latest: Transitions) -> dict[str, float]: ...  # for each row of the log

    def diagnostics(self) -> dict[str, float]: ...  # for each evaluation

    def policy(self) -> Policy: ...  # without exploration

    def save(self, path: str | Path) -> None: ...


class Epoch(NamedTuple):
    """What happened since the last one."""

    step: int  # transitions so far
    episodes: list[Episode]
    metrics: dict[str, float]  # means over the cycles
    latest: Transitions


def train_loop(
    agent: Agent,
    collector: Collector,
    *,
    num_timesteps: int,
    num_envs: int,
    nb_rollout_steps: int,
    nb_epoch_cycles: int,
    random_steps: int,
    overlap: bool,
    on_cycle: Callable[[int, list[Episode]], None],
    on_epoch: Callable[[Epoch], None],
    select: Callable[[Transitions, list[Episode]], Transitions | None] | None = None,
) -> None:
    """Runs cycles until `num_timesteps` transitions were collected, the last cycle cut to fit.

    A cycle collects `nb_rollout_steps` of each environment, stores them, or what `select` leaves
    of them, and trains. With `overlap` a cycle trains in a second thread on all that was stored
    before it, while stepping with the policy from before that training: the order of all random
    draws is fixed, so both ways are reproducible. Raises TrainingError as collector and agent do.
    """
    step, cycle, episodes, metrics = 0, 0, [], []
    with ThreadPoolExecutor(1) if overlap else nullcontext() as thread:
        while step < num_timesteps:
            remaining = -(-(num_timesteps - step) // num_envs)
            uniform, training = step < random_steps, None
            # Taken before training starts: from here on the weights belong to the other thread.
            new_policy = None if uniform else agent.exploring_policy()
            if overlap and not uniform and agent.can_train():
                agent.adapt_noise()
                training = thread.submit(_train, agent, step)
            new, finished = collector.collect(
                new_policy, min(nb_rollout_steps, remaining), refresh=agent.refresh_each_cycle
            )
            if training is not None:
                metrics.append(training.result())
            stored = new if select is None else select(new, finished)
            if stored is not None:
                agent.store(stored)
            step += new.rewards.size
            cycle += 1
            episodes += finished
            if not overlap and step > random_steps and agent.can_train():
                agent.adapt_noise()
                metrics.append(_train(agent, step))
            on_cycle(step, finished)
            if cycle % nb_epoch_cycles == 0 or step >= num_timesteps:
                on_epoch(Epoch(step, episodes, _means(metrics), new))
                episodes, metrics = [], []


def _train(agent: Agent, step: int) -> dict[str, float]:
    try:
        return agent.train()
    except TrainingError as error:
        message = f"{error} at step {step}: training stops, and what was logged is kept"
        raise TrainingError(message) from None


def _means(metrics: list[dict[str, float]]) -> dict[str, float]:
    names = metrics[0] if metrics else {}
    return {name: float(np.mean([row[name] for row in metrics])) for name in names}
