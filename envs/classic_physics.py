"""Physics of Gymnasium's Pendulum."""

from collections.abc import Mapping
from importlib.util import find_spec

import gymnasium as gym
import numpy as np

from envs.errors import ConfigError
from envs.physics import PARAMETERS, Physics, check_name, check_values

ATTRIBUTES = {"mass": "m", "length": "l"}


def make_original(env_id: str, render_mode: str | None) -> gym.Env:
    """Gymnasium's own environment, without its wrappers."""
    if render_mode and find_spec("pygame") is None:
        raise ConfigError("pictures need pygame: pip install 'gymnasium[classic-control]'")
    return gym.make(env_id, render_mode=render_mode, disable_env_checker=True).unwrapped


class PendulumPhysics(Physics):
    """Physics of PendulumEnv: `mass` [kg] and `length` [m]."""

    def __init__(self, env: gym.Env) -> None:
        self._env = env
        self._nominal = {name: getattr(env, attribute) for name, attribute in ATTRIBUTES.items()}

    def names(self) -> tuple[str, ...]:
        return PARAMETERS["classic"]

    def read(self, name: str) -> float:
        check_name(name, self.names(), "the pendulum")
        return float(getattr(self._env, ATTRIBUTES[name]))

    def set(self, values: Mapping[str, float]) -> None:
        check_values(values, self.names(), "the pendulum")
        for name, value in (self._nominal | dict(values)).items():
            setattr(self._env, ATTRIBUTES[name], float(value))

    def get_state(self) -> np.ndarray:
        return np.array(self._env.state)

    def set_state(self, state: np.ndarray) -> None:
        self._env.state = np.array(state)
