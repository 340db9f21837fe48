"""Running moments of observations and returns, and PopArt."""

import keras
import numpy as np
import tensorflow as tf

MIN_VARIANCE = 1e-2  # Baselines' floor: a constant input is not blown up
PRIOR_COUNT = 1e-2  # Baselines' weight, in rows, of the mean 0 and variance 1 before any data


class RunningStats(tf.Module):
    """Running mean and standard deviation, in variables that compiled steps can read and move.

    With `centred=False` the mean is held at 0 and std is the root mean square: the scale of a
    difference of returns, whose sign must survive normalisation. Sums are 64-bit.
    """

    def __init__(self, shape: tuple[int, ...], *, dtype: str = "float32", centred: bool = True):
        super().__init__()
        self.dtype, self.centred = dtype, centred
        self.count = tf.Variable(PRIOR_COUNT, dtype=tf.float64, trainable=False)
        self.sum = tf.Variable(tf.zeros(shape, tf.float64), trainable=False)
        self.sum_squares = tf.Variable(tf.fill(shape, self.count), trainable=False)

    def update(self, x: tf.Tensor) -> None:
        """Adds the rows of x, [B, *shape], to the moments."""
        x = tf.cast(x, tf.float64)
        self._add(tf.cast(tf.shape(x)[0], tf.float64), tf.reduce_sum(x, 0), tf.reduce_sum(x**2, 0))

    def update_on_host(self, x: np.ndarray) -> None:
        """The same with NumPy's sums: a third of the cost outside compiled steps."""
        x = x.astype(np.float64)
        self._add(float(len(x)), x.sum(0), np.square(x).sum(0))

    def _add(self, count, total, total_squares):
        self.count.assign_add(count)
        if self.centred:
            self.sum.assign_add(total)
        self.sum_squares.assign_add(total_squares)

    @property
    def mean(self) -> tf.Tensor:
        """[*shape]"""
        return tf.cast(self.sum / self.count, self.dtype)

    @property
    def std(self) -> tf.Tensor:
        """[*shape], at least 0.1"""
        variance = self.sum_squares / self.count - tf.square(self.sum / self.count)
        return tf.cast(tf.sqrt(tf.maximum(variance, MIN_VARIANCE)), self.dtype)

    def normalise(self, x: tf.Tensor) -> tf.Tensor:
        return (x - self.mean) / self.std

    def denormalise(self, x: tf.Tensor) -> tf.Tensor:
        return x * self.std + self.mean

    def numpy(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and std for the host, without a dozen eager operations."""
        count, total, squares = (x.numpy() for x in (self.count, self.sum, self.sum_squares))
        mean = total / count
        std = np.sqrt(np.maximum(squares / count - np.square(mean), MIN_VARIANCE))
        return mean.astype(self.dtype), std.astype(self.dtype)


def popart_rescale(layer: keras.layers.Dense, old: tuple, new: tuple) -> None:
    """Moves an output layer so that its denormalised outputs survive new return statistics.

    old, new: (mean, std) before and after. With W' = W s / s' and b' = (b s + m - m') / s' the
    value W' x s' + b' s' + m' equals W x s + b s + m (van Hasselt et al. 2016, arXiv 1602.07714).
    """
    (mean, std), (new_mean, new_std) = old, new
    layer.kernel.assign(layer.kernel * std / new_std)
    layer.bias.assign((layer.bias * std + mean - new_mean) / new_std)
