"""The one place where the project compiles: library code below stays plain eager TensorFlow."""

from collections.abc import Callable

import tensorflow as tf


def compiled(function: Callable) -> Callable:
    """XLA-compiles a step; `tf.config.run_functions_eagerly(True)` turns it back into Python."""
    return tf.function(function, jit_compile=True, reduce_retracing=True)


def compile_updates(
    update: Callable[[tf.Tensor], tuple],
    num_metrics: int,
    dtype: str,
    *,
    result: Callable[[], tf.Tensor] | None = None,
) -> Callable:
    """Returns one compiled call that applies `update` to each of K batches in turn.

    update: takes one packed batch, [B, W], and returns a tuple of `num_metrics` scalars.
    result: a vector to read once all are applied, weights to act with for instance.
    The returned function takes [K, B, W] and returns the metrics' means over K, [num_metrics],
    followed by the result.
    """

    def updates(batches):
        batches = tf.convert_to_tensor(batches)  # eagerly nothing else does
        total = tf.zeros([num_metrics], dtype)
        for i in tf.range(tf.shape(batches)[0]):
            total += tf.stack(update(batches[i]))
        means = total / tf.cast(tf.shape(batches)[0], dtype)
        return means if result is None else tf.concat([means, result()], 0)

    return compiled(updates)
