"""What the tests of OMD share: draws, and structures compared, flattened and differentiated."""

from itertools import pairwise

import numpy as np
import tensorflow as tf


class Draw:
    """Draws tensors one after the other."""

    def __init__(self, seed=0):
        self._rng = np.random.default_rng(seed)

    def __call__(self, *shape):
        return tf.constant(self._rng.normal(size=shape))

    def layers(self, *sizes):
        return tuple((self(i, o) / i**0.5, 0.1 * self(o)) for i, o in pairwise(sizes))


def flat(structure):
    """All entries as one NumPy vector."""
    return np.concatenate([np.zeros(0), *(np.ravel(leaf) for leaf in tf.nest.flatten(structure))])


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
