"""Spaces of actions and observations as the agents need them."""

import gymnasium as gym
import numpy as np

from envs.errors import ConfigError


def action_scale(space: gym.Space) -> np.ndarray:
    """The bounds, [A], that actions in [-1, 1] are multiplied with.

    Raises ConfigError unless the space is a flat Box with finite, symmetric, positive bounds.
    """
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise ConfigError(
            f"the agent needs a continuous action space, Box([A]); this one is {space}"
        )
    if not np.isfinite(space.low).all() or not np.isfinite(space.high).all():
        raise ConfigError(
            f"the action space is unbounded, {space}: wrap the environment in "
            "gymnasium.wrappers.RescaleAction or ClipAction"
        )
    if not np.array_equal(space.low, -space.high) or not (space.high > 0).all():
        raise ConfigError(
            f"the action space must be symmetric around 0 and is {space}: wrap the environment "
            "in gymnasium.wrappers.RescaleAction(env, -1, 1)"
        )
    return space.high


class BoxActions:
    """Actions in [-1, 1], [N, A], of a symmetric Box; ConfigError for another space."""

    def __init__(self, space: gym.Space):
        self._scale = action_scale(space)
        self.dim = len(self._scale)

    def sample(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Uniform actions, [num, A]."""
        return rng.uniform(-1, 1, (num, self.dim))

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """The same in the bounds' units."""
        return actions * self._scale


class OneHotActions:
    """Discrete actions as one-hot rows, [N, A]; ConfigError for another space."""

    def __init__(self, space: gym.Space):
        if not isinstance(space, gym.spaces.Discrete) or space.start != 0:
            raise ConfigError(f"the agent needs discrete actions, Discrete(n); these are {space}")
        self.dim = int(space.n)

    def sample(self, rng: np.random.Generator, num: int) -> np.ndarray:
        """Uniform actions, [num, A]."""
        return np.eye(self.dim)[rng.integers(self.dim, size=num)]

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Their indices, [N]."""
        return actions.argmax(-1)


def actions_of(space: gym.Space) -> BoxActions | OneHotActions:
    """How a space's actions are written in rows of numbers."""
    kind = OneHotActions if isinstance(space, gym.spaces.Discrete) else BoxActions
    return kind(space)


def observation_dim(space: gym.Space) -> int:
    """O of a flat Box of observations, else ConfigError."""
    if not isinstance(space, gym.spaces.Box) or len(space.shape) != 1:
        raise ConfigError(
            f"the agent needs flat observations, Box([O]), and these are {space}: wrap the "
            "environment in gymnasium.wrappers.FlattenObservation"
        )
    return space.shape[0]


def as_observations(obs: np.ndarray, obs_dim: int) -> np.ndarray:
    """An array [..., obs_dim] of what a caller gave; ConfigError if it is none."""
    try:
        obs = np.asarray(obs, float)
    except (TypeError, ValueError):  # what env.reset() gives, for instance: (observation, info)
        raise ConfigError(f"observations must be numbers of shape [..., {obs_dim}]") from None
    if obs.shape[-1:] != (obs_dim,):
        raise ConfigError(f"observations must be of shape [..., {obs_dim}], not {list(obs.shape)}")
    return obs
