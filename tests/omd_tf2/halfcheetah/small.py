"""A small problem in 64 bits: one batch, the policy's noise, and networks of any depth."""

from itertools import pairwise

import numpy as np
import tensorflow as tf

from omd_tf2.common.functional import adam_init
from omd_tf2.common.transition import Transition
from omd_tf2.halfcheetah.config import HalfCheetahConfig
from omd_tf2.halfcheetah.update import Noise, State

O, A, B, K = 3, 2, 4, 2


class Draw:
    """Draws tensors one after the other."""

    def __init__(self, seed=0):
        self._rng = np.random.default_rng(seed)

    def __call__(self, *shape):
        return tf.constant(self._rng.normal(size=shape))

    def layers(self, *sizes):
        return tuple((self(i, o) / i**0.5, 0.1 * self(o)) for i, o in pairwise(sizes))


def make_batch(draw, num=B):
    """One transition in three is a terminal."""
    terminals1 = tf.constant(np.arange(num) % 3 == 1, tf.float64)
    return Transition(draw(num, O), tf.tanh(draw(num, A)), draw(num), draw(num, O), terminals1)


def make_noise(draw, num=B):
    return Noise(draw(K + 1, num, A), draw(num, A))


def make_state(draw, critic_hidden=(4,), hidden=(4,)):
    """The target critics are others than the critics."""
    model = draw.layers(O + A, *hidden, O + 1)
    critics, target = (
        tuple(draw.layers(O + A, *widths, 1) for _ in range(2)) for widths in (critic_hidden,) * 2
    )
    actor, log_temperature = draw.layers(O, *hidden, 2 * A), tf.constant(-0.5, tf.float64)
    adams = (adam_init(x) for x in (model, critics, actor, log_temperature))
    return State(model, critics, target, actor, log_temperature, *adams)


def make_config(**options):
    return HalfCheetahConfig(**({"inner_steps": K, "tau": 0.1, "gamma": 0.9} | options))


def flat(structure):
    """All entries as one NumPy vector."""
    return np.concatenate([np.ravel(leaf) for leaf in tf.nest.flatten(structure)])


def jacobian(function, structure):
    """d function / d structure, [outputs, entries], written out; the output is flattened."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(structure)
        out = tf.concat([tf.reshape(x, [-1]) for x in tf.nest.flatten(function(structure))], 0)
    blocks = tape.jacobian(
        out,
        tf.nest.flatten(structure),
        unconnected_gradients=tf.UnconnectedGradients.ZERO,
        experimental_use_pfor=False,
    )
    return np.concatenate([block.numpy().reshape(out.shape[0], -1) for block in blocks], 1)


def changed(before, after):
    """The names of the fields whose values differ."""
    return {
        name
        for name in before._fields
        if not np.array_equal(flat(getattr(before, name)), flat(getattr(after, name)))
    }


def assert_same(got, expected, atol=0.0):
    tf.nest.assert_same_structure(got, expected)
    np.testing.assert_allclose(flat(got), flat(expected), rtol=0, atol=atol)
