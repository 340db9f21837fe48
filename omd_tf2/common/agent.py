"""What the agents of both settings have in common: all but how they act and what they learn."""

from pathlib import Path

from baselines_tf2.common.replay import Transitions
from omd_tf2.common.learner import Learner, check_finite
from omd_tf2.common.solver import SolverConfig


class LearnerAgent:
    """An agent whose learning is a `Learner`'s; subclasses set what is declared here, and act."""

    refresh_each_cycle = True
    _learner: Learner
    _solver: SolverConfig
    _updates: int  # per cycle

    def store(self, new: Transitions) -> None:
        """Adds transitions to the replay."""
        self._learner.replay.add(new)

    def can_train(self) -> bool:
        """Whether there is anything to sample."""
        return len(self._learner.replay) > 0

    def adapt_noise(self) -> None:
        """Nothing to adapt."""

    def statistics(self, latest: Transitions) -> dict[str, float]:
        """Nothing beyond what each update reports."""
        return {}

    def diagnostics(self) -> dict[str, float]:
        """Nothing beyond what each update reports."""
        return {}

    def train(self) -> dict[str, float]:
        """Runs one cycle's updates.

        Raises TrainingError if a metric is not finite, or a solve failed that is to stop the run.
        """
        metrics = self._learner.train(self._updates)
        self._solver.check(metrics)
        check_finite(metrics)
        return metrics

    def save(self, path: str | Path) -> None:
        """Writes all that is learned to one .npz."""
        self._learner.save(path)

    def load(self, path: str | Path) -> None:
        """Restores what `save` wrote; ConfigError if it is damaged or does not fit."""
        self._learner.load(path)
