"""Networks and optimisers as pure functions of their weights, as implicit differentiation needs.

A network is a tuple of layers, each a pair (kernel `[I, O]`, bias `[O]`).
"""

from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from omd_tf2.implicit import dense_layers_kernel
from omd_tf2.implicit.structures import Structure, ravel

Layers = tuple[tuple[tf.Tensor, tf.Tensor], ...]

ADAM_BETA1, ADAM_BETA2, ADAM_EPSILON = 0.9, 0.999, 1e-8


def init_mlp(
    sizes: Sequence[int], seed: np.random.SeedSequence, *, output_gain: float, dtype: str
) -> Layers:
    """Draws the layers of an MLP: orthogonal, hidden ones of gain sqrt(2), biases 0.

    sizes: input, hidden and output widths.
    """
    gains = [np.sqrt(2)] * (len(sizes) - 2) + [output_gain]
    layers = []
    for fan_in, fan_out, gain, state in zip(
        sizes[:-1], sizes[1:], gains, seed.generate_state(len(gains)), strict=True
    ):
        init = keras.initializers.Orthogonal(gain, seed=int(state))
        layers.append((init((fan_in, fan_out), dtype), tf.zeros([fan_out], dtype)))
    return tuple(layers)


def orthogonal_mlp(draws: Sequence[tf.Tensor], *, output_gain: float) -> Layers:
    """The layers that `init_mlp` makes, of kernels drawn from N(0, 1), `[I, O]` each.

    In the graph, for compiled code, in which nothing is drawn: the factor Q of a draw's QR
    decomposition, its signs chosen such that R's diagonal is positive.
    """
    gains = [np.sqrt(2)] * (len(draws) - 1) + [output_gain]
    layers = []
    for draw, gain in zip(draws, gains, strict=True):
        wide = draw.shape[0] < draw.shape[1]
        q, r = tf.linalg.qr(tf.transpose(draw) if wide else draw)
        q *= gain * tf.sign(tf.linalg.diag_part(r))
        layers.append((tf.transpose(q) if wide else q, tf.zeros([draw.shape[1]], draw.dtype)))
    return tuple(layers)


def stacked(networks: Sequence[Layers]) -> Layers:
    """H networks of one shape as one, its kernels [H, I, O], its biases [H, 1, O].

    `mlp` gives all their outputs, [H, B, O], in one product for each layer.
    """
    join = tf.nest.map_structure(lambda *each: tf.stack(each), *networks)
    return tuple((kernel, bias[:, None]) for kernel, bias in join)


def mlp(layers: Layers, x: tf.Tensor) -> tf.Tensor:
    """[B, I] -> [B, O]: dense layers with relu between them."""
    for kernel, bias in layers[:-1]:
        x = tf.nn.relu(x @ kernel + bias)
    kernel, bias = layers[-1]
    return x @ kernel + bias


def mlp_kernel(layers: Layers, x: tf.Tensor, output_weights: tf.Tensor) -> tf.Tensor:
    """J J^T / B, [B, B], of the per-sample scalars sum(mlp(layers, x) * output_weights, -1).

    x: [B, I]; output_weights: [B, O]. J is taken in the layers' weights.
    """
    inputs = [x]
    for kernel, bias in layers[:-1]:
        inputs.append(tf.nn.relu(inputs[-1] @ kernel + bias))
    cotangents = [output_weights]
    for (kernel, _), hidden in zip(layers[:0:-1], inputs[:0:-1], strict=True):
        back = tf.matmul(cotangents[0], kernel, transpose_b=True)
        cotangents.insert(0, tf.where(hidden > 0, back, 0))
    return dense_layers_kernel(inputs, cotangents)


class AdamState(NamedTuple):
    """Adam's moments, structured as the parameters."""

    steps: tf.Tensor  # scalar, of the parameters' dtype
    first: Structure
    second: Structure


def adam_init(parameters: Structure) -> AdamState:
    """The state before the first step."""
    zeros = tf.nest.map_structure(tf.zeros_like, parameters)
    return AdamState(tf.zeros([], tf.nest.flatten(parameters)[0].dtype), zeros, zeros)


def adam_step(
    parameters: Structure, gradient: Structure, state: AdamState, learning_rate: float
) -> tuple[Structure, AdamState]:
    """One step of Adam (1412.6980, algorithm 1) as a pure function: (parameters, state).

    A pure function, since the inner problem's optimiser starts anew at each outer step.
    """
    (x, unravel), (g, _) = ravel(parameters), ravel(gradient)
    steps, m, v = state.steps + 1, ravel(state.first)[0], ravel(state.second)[0]
    m = ADAM_BETA1 * m + (1 - ADAM_BETA1) * g
    v = ADAM_BETA2 * v + (1 - ADAM_BETA2) * tf.square(g)
    rate1, rate2 = learning_rate / (1 - ADAM_BETA1**steps), 1 / (1 - ADAM_BETA2**steps)
    x -= rate1 * m / (tf.sqrt(rate2 * v) + ADAM_EPSILON)
    return unravel(x), AdamState(steps, unravel(m), unravel(v))


def soft_update(target: Structure, online: Structure, tau: float) -> Structure:
    """(1 - tau) target + tau online"""
    (x, unravel), (y, _) = ravel(target), ravel(online)
    return unravel((1 - tau) * x + tau * y)
