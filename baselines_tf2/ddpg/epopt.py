"""EPOpt's selection of trajectories for an off-policy learner."""

import numpy as np

from baselines_tf2.common.replay import Transitions
from baselines_tf2.common.rollout import Episode
from envs import epsilon_at, worst_episodes


class WorstEpisodes:
    """Keeps, of every N whole episodes, the worst epsilon-quantile by return.

    Rajeswaran et al. 2017 (arXiv 1610.01283), algorithm 1, with the paper's schedule of epsilon;
    an iteration is one batch of N trajectories. A running episode waits until it has ended.
    """

    def __init__(self, num_trajectories: int, epsilon: float = 0.1, warmup: int = 100):
        self._wanted, self._iteration = num_trajectories, 0
        self._epsilon, self._warmup = epsilon, warmup
        self._running: list[Transitions] = []
        self._trajectories: list[Transitions] = []
        self._returns: list[float] = []

    def __call__(self, new: Transitions, finished: list[Episode]) -> Transitions | None:
        """Takes one environment's next steps; returns what is to be stored now, or None."""
        start = 0
        for end, episode in zip(np.flatnonzero(new.ends[:, 0]) + 1, finished, strict=True):
            self._running.append(_slice(new, start, end))
            self._trajectories.append(_join(self._running))
            self._returns.append(episode.episode_return)
            self._running, start = [], end
        if start < len(new.ends):
            self._running.append(_slice(new, start, len(new.ends)))
        return self._select() if len(self._returns) >= self._wanted else None

    def end_episodes(self) -> None:
        """Forgets the running episode, which will not be finished."""
        self._running = []

    def get_state(self) -> dict:
        """All that waits for its batch, for a checkpoint."""
        return {
            "iteration": self._iteration,
            "returns": self._returns,
            "running": self._running,
            "trajectories": self._trajectories,
        }

    def set_state(self, state: dict) -> None:
        """Puts back what `get_state` gave."""
        self._iteration, self._returns = state["iteration"], state["returns"]
        self._running = [Transitions(*part) for part in state["running"]]
        self._trajectories = [Transitions(*part) for part in state["trajectories"]]

    def _select(self):
        worst = worst_episodes(
            np.array(self._returns), epsilon_at(self._iteration, self._epsilon, self._warmup)
        )
        kept = _join([self._trajectories[i] for i in sorted(worst)])
        self._iteration += 1
        self._trajectories, self._returns = [], []
        return kept


def _slice(new, start, stop):
    return Transitions(*(field[start:stop] for field in new))


def _join(parts):
    return Transitions(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))
