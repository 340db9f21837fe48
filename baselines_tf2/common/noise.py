"""Exploration noise: on the actions, and on the actor's parameters."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from baselines_tf2.common.state import Stateful
from envs.errors import ConfigError, check_known


class NormalNoise(Stateful):
    """Independent Gaussian action noise of standard deviation `stddev`."""

    def __init__(self, stddev: float):
        self.stddev = stddev

    def sample(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """One step's noise, [N, A]."""
        return rng.normal(0.0, self.stddev, shape)

    def reset(self, ended: np.ndarray) -> None:
        """Nothing to forget at an episode's end."""


class OrnsteinUhlenbeckNoise(Stateful):
    """Action noise dx = -theta x dt + stddev sqrt(dt) N(0, 1), from 0 at each episode's start."""

    STATE = ("_x",)

    def __init__(self, stddev: float, theta: float = 0.15, dt: float = 1e-2):
        self.stddev, self.theta, self.dt = stddev, theta, dt
        self._x = np.zeros(())

    def sample(self, rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
        """One step's noise, [N, A]; every environment has a process of its own."""
        if self._x.shape != shape:
            self._x = np.zeros(shape)
        diffusion = self.stddev * np.sqrt(self.dt) * rng.normal(size=shape)
        self._x = self._x * (1 - self.theta * self.dt) + diffusion
        return self._x

    def reset(self, ended: np.ndarray) -> None:
        """Starts again the processes of the environments whose episode ended, [N] bool."""
        if self._x.ndim:
            self._x = np.where(ended[:, None], 0.0, self._x)


ACTION_NOISES: dict[str, Any] = {"normal": NormalNoise, "ou": OrnsteinUhlenbeckNoise}


def adapted_stddev(stddev: float, distance: float, desired: float) -> float:
    """The parameter noise's next stddev, by the distance in action space that this one made.

    Plappert et al. 2018 (arXiv 1706.01905): too far from the unperturbed actor divides the
    stddev by 1.01, else multiplies it.
    """
    return stddev * (1 / 1.01 if distance > desired else 1.01)


def perturb(
    rng: np.random.Generator,
    stddev: float,
    weights: Sequence[np.ndarray],
    perturbable: Sequence[bool],
) -> list[np.ndarray]:
    """A copy of the weights with Gaussian noise on those that may be perturbed."""
    return [
        w + rng.normal(0.0, stddev, w.shape).astype(w.dtype) if moves else w
        for w, moves in zip(weights, perturbable, strict=True)
    ]


def action_distance(actions: np.ndarray, perturbed: np.ndarray) -> float:
    """Root mean square over a batch of actions, [B, A] both."""
    return float(np.sqrt(np.mean(np.square(actions - perturbed))))


def parse_noise(noise_type: str) -> tuple[list, float | None]:
    """Reads Baselines' comma list, as in "adaptive-param_0.2,ou_0.1" or "none".

    Returns the action noises, which add up, and the parameter noise's stddev, the distance that it
    is to make, or None. Raises ConfigError for an unknown type or a standard deviation that is not
    a number of at least 0.
    """
    action_noises, param_stddev = [], None
    for item in noise_type.split(","):
        name, _, number = item.strip().partition("_")
        check_known("noise type", name, ["none", "adaptive-param", *ACTION_NOISES])
        if name == "none":
            continue
        stddev = -1.0
        with suppress(ValueError):
            stddev = float(number)
        if not 0 <= stddev < np.inf:
            raise ConfigError(f"noise type {item!r} needs a standard deviation, as in 'normal_0.2'")
        if name in ACTION_NOISES:
            action_noises.append(ACTION_NOISES[name](stddev))
        elif stddev == 0 or param_stddev is not None:
            raise ConfigError(f"noise type {item!r}: write one, with a stddev above 0")
        else:
            param_stddev = stddev
    return action_noises, param_stddev
