"""The one place where the project compiles: library code below stays plain eager TensorFlow."""

from collections.abc import Callable

import tensorflow as tf
from tensorflow.types.experimental import PolymorphicFunction


def compiled(function: Callable) -> PolymorphicFunction:
    """XLA-compiles a step; `tf.config.run_functions_eagerly(True)` turns it back into Python.

    Without AutoGraph, whose rewriting of the source took most of the time of tracing.
    """
    return tf.function(function, jit_compile=True, reduce_retracing=True, autograph=False)


def called_directly(function: PolymorphicFunction) -> Callable:
    """A compiled function of one tensor without the cost of dispatch, 0.2 ms a call."""
    by_shape = {}

    def call(x: tf.Tensor):
        if tf.config.functions_run_eagerly():
            return function(x)
        if x.shape not in by_shape:
            by_shape[x.shape] = function.get_concrete_function(x)
        return by_shape[x.shape](x)

    return call


def compile_updates(update: Callable[[tf.Tensor], tuple], num_metrics: int, dtype: str) -> Callable:
    """Returns one compiled call that applies `update` to each of K batches in turn.

    update: takes one packed batch, [B, W], and returns a NamedTuple of `num_metrics` scalars.
    The returned function takes [K, B, W] and returns the metrics' means over K, [num_metrics].
    """

    def updates(batches):
        batches = tf.convert_to_tensor(batches)  # eagerly nothing else does
        count, start = tf.shape(batches)[0], (0, tf.zeros([num_metrics], dtype))

        def step(i, total):
            return i + 1, total + tf.stack(update(batches[i]))

        _, total = tf.while_loop(lambda i, _: i < count, step, start)
        return total / tf.cast(count, dtype)

    return compiled(updates)
