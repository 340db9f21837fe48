"""What the agents of both settings have in common: all but how they act and what they learn."""

from pathlib import Path

import numpy as np

from baselines_tf2.common.errors import check_finite
from baselines_tf2.common.replay import Replay, Rollout
from baselines_tf2.common.train_loop import Agent
from omd_tf2.common.learner import Learner
from omd_tf2.common.solver import SolverConfig


class LearnerAgent(Agent):
    """An agent whose learning is a `Learner`'s; subclasses set what is declared here, and act."""

    refresh_each_cycle = True
    _learner: Learner
    _solver: SolverConfig
    _updates: int  # per cycle
    _rng: np.random.Generator  # of exploration

    def store(self, new: Rollout) -> None:
        """Adds transitions to the replay."""
        self.replay.add(new)

    def can_train(self) -> bool:
        """Whether there is anything to sample."""
        return len(self.replay) > 0

    def train(self) -> dict[str, float]:
        """Runs one cycle's updates.

        Raises TrainingError if a metric is not finite, or a solve failed that is to stop the run.
        """
        metrics = self._learner.train(self._updates)
        self._solver.check(metrics)
        check_finite(metrics)
        return metrics

    @property
    def replay(self) -> Replay:
        return self._learner.replay

    def get_state(self) -> dict:
        """All that coming cycles depend on, but for the replay."""
        return {"learner": self._learner.get_state(), "rng": self._rng.bit_generator.state}

    def set_state(self, state: dict) -> None:
        """Puts back what `get_state` gave."""
        self._learner.set_state(state["learner"])
        self._rng.bit_generator.state = state["rng"]

    def save(self, path: str | Path) -> None:
        """Writes all that is learned to one .npz."""
        self._learner.save(path)

    def load(self, path: str | Path) -> None:
        """Restores what `save` wrote; ConfigError if it is damaged or does not fit."""
        self._learner.load(path)
