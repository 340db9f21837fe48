"""Physics of Gymnasium's Pendulum and CartPole."""

import os
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.classic_control import CartPoleEnv

from envs.display import has_screen
from envs.errors import ConfigError
from envs.physics import PARAMETERS, Physics

# By our name Gymnasium's, and ours over it.
ATTRIBUTES = {
    "mass": ("m", 1),
    "length": ("l", 1),
    "cart_mass": ("masscart", 1),
    "pole_mass": ("masspole", 1),
    "pole_length": ("length", 2),
}


def make_original(env_id: str, render_mode: str | None) -> tuple[gym.Env, Physics]:
    """Gymnasium's own environment, without its wrappers, and its physics."""
    if render_mode and find_spec("pygame") is None:
        raise ConfigError("pictures need pygame: pip install 'gymnasium[classic-control]'")
    if render_mode and not has_screen():  # else SDL looks for one, and prints that there is none
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
    env = gym.make(env_id, render_mode=render_mode, disable_env_checker=True).unwrapped
    return env, (CartPolePhysics if isinstance(env, CartPoleEnv) else PendulumPhysics)(env)


class PendulumPhysics(Physics):
    """Physics of PendulumEnv: `mass` [kg] and `length` [m]."""

    names = PARAMETERS["pendulum"]

    def __init__(self, env: Any) -> None:
        self._env = env
        self._nominal = self.read_all()

    def _read(self, name: str) -> float:
        attribute, scale = ATTRIBUTES[name]
        return float(scale * getattr(self._env, attribute))

    def _set(self, values: Mapping[str, float]) -> None:
        for name, value in (self._nominal | dict(values)).items():
            attribute, scale = ATTRIBUTES[name]
            setattr(self._env, attribute, float(value) / scale)

    def get_state(self) -> np.ndarray:
        return np.array(self._env.state)

    def set_state(self, state: np.ndarray) -> None:
        self._env.state = np.array(state)


class CartPolePhysics(PendulumPhysics):
    """Physics of CartPoleEnv, which keeps half of the `pole_length`, as `length`."""

    names = PARAMETERS["cartpole"]

    def _set(self, values: Mapping[str, float]) -> None:
        super()._set(values)
        env = self._env  # What CartPoleEnv derives, once, when it is made:
        env.total_mass = env.masspole + env.masscart
        env.polemass_length = env.masspole * env.length

    def get_state(self) -> np.ndarray:
        """[5]: position [m] and velocity [m/s], angle [rad] and its rate [rad/s], steps since
        the fall, -1 before it; CartPoleEnv rewards no step after the fall.
        """
        steps = self._env.steps_beyond_terminated
        return np.append(self._env.state, -1 if steps is None else steps)

    def set_state(self, state: np.ndarray) -> None:
        self._env.state = np.array(state[:4])
        self._env.steps_beyond_terminated = None if state[4] < 0 else int(state[4])
