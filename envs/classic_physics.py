"""Physics of Gymnasium's Pendulum."""

from collections.abc import Mapping

import gymnasium as gym
import numpy as np

from envs.physics import PARAMETERS, check_name, check_values

ATTRIBUTES = {"mass": "m", "length": "l"}


def make_original(env_id: str, render_mode: str | None) -> gym.Env:
    """Gymnasium's own environment, without its wrappers."""
    return gym.make(env_id, render_mode=render_mode, disable_env_checker=True).unwrapped


class PendulumPhysics:
    """The Physics protocol for PendulumEnv: `mass` [kg] and `length` [m]."""

    def __init__(self, env: gym.Env) -> None:
        self._env = env
        self._nominal = {name: getattr(env, attribute) for name, attribute in ATTRIBUTES.items()}

    def names(self) -> tuple[str, ...]:
        return PARAMETERS["classic"]

    def read(self, name: str) -> float:
        check_name(name, self.names(), "the pendulum")
        return float(getattr(self._env, ATTRIBUTES[name]))

    def read_all(self) -> dict[str, float]:
        return {name: self.read(name) for name in self.names()}

    def set(self, values: Mapping[str, float]) -> None:
        check_values(values, self.names(), "the pendulum")
        for name, value in (self._nominal | dict(values)).items():
            setattr(self._env, ATTRIBUTES[name], float(value))

    def get_state(self) -> np.ndarray:
        return np.array(self._env.state)

    def set_state(self, state: np.ndarray) -> None:
        self._env.state = np.array(state)

    def before_step(self) -> None:
        """Nothing: the pendulum knows no force of one step."""
