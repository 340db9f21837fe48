"""The agents' policies in NumPy alone: what another process can load without TensorFlow."""

from collections.abc import Sequence
from functools import reduce

import numpy as np

from envs.wrappers import POLICY, stream

Weights = Sequence[tuple[np.ndarray, np.ndarray]]  # of each layer the kernel [I, O] and bias [O]


def numpy_mlp(layers: Weights, x: np.ndarray) -> np.ndarray:
    """`functional.mlp` on NumPy arrays: some 100 times cheaper for one row."""
    for kernel, bias in layers[:-1]:
        x = np.maximum(x @ kernel + bias, 0)
    kernel, bias = layers[-1]
    return x @ kernel + bias


def mean_values(critics: Sequence[Weights], dtype: str, obs: np.ndarray) -> np.ndarray:
    """The critics' mean value of each action, [..., O] -> [..., A]."""
    obs = obs.astype(dtype)
    return reduce(np.add, (numpy_mlp(critic, obs) for critic in critics)) / len(critics)


def best_action(critics: Sequence[Weights], dtype: str, obs: np.ndarray) -> np.ndarray:
    """The best action by `mean_values`, one-hot, [N, O] -> [N, A]."""
    values = mean_values(critics, dtype, obs)
    return np.eye(values.shape[-1])[values.argmax(-1)]


class DrawnAction:
    """A draw from softmax(mean Q / alpha), one-hot, [N, O] -> [N, A].

    `begin(seed)` at an episode's start makes its draws those of the episode, in any process.
    """

    def __init__(self, critics: Sequence[Weights], dtype: str, alpha: float):
        self._critics, self._dtype, self._alpha = critics, dtype, alpha
        self.begin(0)

    def begin(self, seed: int) -> None:
        self._rng = stream(seed, POLICY)  # not default_rng(seed), the environment's own stream

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        logits = mean_values(self._critics, self._dtype, obs) / self._alpha
        # Of logits plus Gumbel noise the largest is a draw from their softmax.
        drawn = (logits + self._rng.gumbel(size=logits.shape)).argmax(-1)
        return np.eye(logits.shape[-1])[drawn]


def mean_action(actor: Weights, dtype: str, obs: np.ndarray) -> np.ndarray:
    """The mean of a squashed Gaussian actor, [N, O] -> [N, A] in [-1, 1]."""
    return np.tanh(np.split(numpy_mlp(actor, obs.astype(dtype)), 2, axis=-1)[0])
