"""Policies in NumPy alone, made of what another process can load without TensorFlow."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice

import numpy as np

from baselines_tf2.common.state import Stateful


def elu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


ACTIVATIONS: dict[str, Callable] = {
    "linear": np.positive,
    "tanh": np.tanh,
    "relu": partial(np.maximum, 0),
    "elu": elu,
}


def dense(activation: Callable, x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """activation(x kernel + bias), [..., I] -> [..., O]."""
    return activation(np.add(x := x @ kernel, bias, out=x))


def layer_norm(epsilon: float, x: np.ndarray, gamma: np.ndarray, beta: np.ndarray) -> np.ndarray:
    """Each row of x centred and divided by its standard deviation, then scaled and shifted."""
    centred = x - x.mean(-1, keepdims=True)
    variance = np.square(centred).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + epsilon) * gamma + beta


def forward(
    layers: Sequence[tuple[Callable, int]], weights: Sequence[np.ndarray], x: np.ndarray
) -> np.ndarray:
    """A network's layers in turn, each with as many of the weights as it has."""
    left = iter(weights)
    for layer, count in layers:
        x = layer(x, *islice(left, count))
    return x


@dataclass
class ActorPolicy(Stateful):
    """An actor's weights and the observations' moments as they once were, [N, O] -> [N, A]."""

    STATE = ("weights", "moments")

    forward: Callable
    weights: Sequence[np.ndarray]
    moments: Sequence[np.ndarray] | None
    clip: float
    dtype: str

    def __call__(self, obs: np.ndarray) -> np.ndarray:
        x = obs.astype(self.dtype)
        if self.moments is not None:
            mean, std = self.moments
            x = np.maximum(np.minimum((x - mean) / std, self.clip), -self.clip)
        return self.forward(self.weights, x)
