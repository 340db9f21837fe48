"""The robots in training as a Q critic may know them: the level of their rewards, and what they are.

Two remedies for simulators that disagree, which a difference critic does without.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from baselines_tf2.common.replay import Layout
from baselines_tf2.common.state import Stateful
from baselines_tf2.ddpg.config import DDPGConfig
from envs import Ensemble, training_ranges
from envs.errors import ConfigError


class Sight(NamedTuple):
    """What the critic sees of a robot, F numbers."""

    unknown: np.ndarray  # [F], of no robot in particular
    of: Callable[[int, Mapping[str, float]], np.ndarray]  # number and parameters -> [F]


NOTHING = Sight(np.zeros(0), lambda number, physics: np.zeros(0))


def make_sight(seen: str, ensemble: Ensemble, num_robots: int) -> Sight:
    """What `critic_sees` names; num_robots: that return, 0 if each episode has a new one.

    `physics` is what the ensemble varies but for the reward's offset, scaled to [-1, 1] by the
    ensemble's ends, as M2TD3's critic is given it (Tanabe et al. 2022, arXiv 2211.03413); `robot`
    one-hot which one it is. Raises ConfigError where there is nothing to see.
    """
    if seen == "robot":
        if not num_robots:
            raise ConfigError("critic_sees 'robot' needs robots that return: set env.ensemble_size")
        one_hot = np.eye(num_robots)
        return Sight(one_hot.mean(0), lambda number, physics: one_hot[number])
    ranges = training_ranges(ensemble)
    if not ranges:
        raise ConfigError("critic_sees 'physics' needs an ensemble of physics: set env.ensemble")

    def scaled(number, physics):
        shares = [(physics[name] - low) / (high - low) for name, (low, high) in ranges.items()]
        return 2 * np.array(shares) - 1

    return Sight(np.zeros(len(ranges)), scaled)


class Robots(Stateful):
    """A row for each robot met, by its number: what the critic sees of it, and its mean reward.

    Robots are met while another thread completes batches, of robots that it knows from before.
    """

    STATE = ("_features", "_sums", "_counts")

    def __init__(self, config: DDPGConfig, layout: Layout, sight: Sight, dtype: str):
        self._layout, self._sight, self._dtype = layout, sight, dtype
        self._centred = config.reward_centering == "robot"
        self._n_step, self._gamma = config.n_step, config.gamma
        self._features = self.unknown(0)
        self._sums, self._counts = np.zeros((2, 0))  # of rewards

    def meet(self, number: int, physics: Mapping[str, float]) -> None:
        """Takes note of a robot that is new in training: its number and its parameters."""
        self._grow(number)
        self._features[number] = self._sight.of(number, physics)

    def add(self, members: np.ndarray, rewards: np.ndarray) -> None:
        """Takes rewards, as they are stored, into the means of `members`, of the same shape."""
        self._grow(members.max())
        np.add.at(self._sums, members, rewards)
        np.add.at(self._counts, members, 1)

    def features(self, members: np.ndarray) -> np.ndarray:
        """What the critic sees of robots [...]: [..., F]."""
        return self._features[members]

    def unknown(self, num: int) -> np.ndarray:
        """What stands for robots that nothing is known of, [num, F]."""
        return np.tile(self._sight.unknown, (num, 1)).astype(self._dtype)

    def complete(self, packed: np.ndarray) -> np.ndarray:
        """Rows [..., W] as the replay gives them, centred in place, with what the critic sees.

        A window's reward loses mean * sum_k gamma^k. After a terminal nothing more is paid or
        taken, so an episode's end is worth what going on at the robot's mean reward is.
        """
        layout = self._layout
        if not (self._centred or len(self._sight.unknown)):
            return packed
        members = packed[..., layout.members].astype(int)
        if self._centred:
            discounts = packed[..., layout.discounts]
            steps = (1 - discounts) / (1 - self._gamma) if self._n_step > 1 else 1.0
            packed[..., layout.rewards] -= self._sums[members] / self._counts[members] * steps
        return np.concatenate([packed, self._features[members]], axis=-1)

    def _grow(self, number):
        held = len(self._counts)
        if number < held:
            return
        more = max(number + 1, 2 * held) - held  # there may be a robot for each episode
        self._features = np.concatenate([self._features, self.unknown(more)])
        self._sums, self._counts = (np.pad(x, (0, more)) for x in (self._sums, self._counts))
