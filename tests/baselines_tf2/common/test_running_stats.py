import keras
import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common.running_stats import RunningStats, popart_rescale


def test_moments_of_two_batches_are_those_of_all_rows():
    stats = RunningStats((3,), dtype="float64")
    x = np.random.default_rng(0).normal(2.0, 3.0, (1000, 3))
    stats.update(tf.constant(x[:300]))
    stats.update_on_host(x[300:])
    # The prior of weight 0.01 pulls by 1e-5 at 1000 rows.
    np.testing.assert_allclose(stats.mean, x.mean(0), rtol=1e-4)
    np.testing.assert_allclose(stats.std, x.std(0), rtol=1e-4)


def test_before_any_data_nothing_is_changed():
    stats = RunningStats((2,))
    np.testing.assert_array_equal(stats.normalise(tf.constant([[1.0, -4.0]])), [[1.0, -4.0]])


def test_the_variance_has_a_floor():
    stats = RunningStats((), dtype="float64")
    stats.update(tf.constant([7.0] * 100, tf.float64))
    assert float(stats.std) == pytest.approx(0.1, rel=0.2)


def test_uncentred_statistics_scale_without_moving_zero():
    stats = RunningStats((), dtype="float64", centred=False)
    stats.update(tf.constant([3.0, 5.0] * 500, tf.float64))
    assert float(stats.mean) == 0
    assert float(stats.std) == pytest.approx(np.sqrt(17), rel=1e-4)
    assert float(stats.normalise(tf.constant(0.0, tf.float64))) == 0


def test_denormalise_undoes_normalise():
    stats = RunningStats((), dtype="float64")
    stats.update(tf.constant([1.0, 2.0, 6.0], tf.float64))
    x = tf.constant([-3.0, 0.5], tf.float64)
    np.testing.assert_allclose(stats.denormalise(stats.normalise(x)), x, rtol=1e-12)


def test_popart_by_hand_and_preserves_outputs():
    layer = keras.layers.Dense(1, dtype="float64")
    layer.build((None, 1))
    layer.kernel.assign([[3.0]])
    layer.bias.assign([0.5])
    popart_rescale(layer, old=(1.0, 2.0), new=(4.0, 6.0))
    # W' = 3 * 2 / 6 = 1; b' = (0.5 * 2 + 1 - 4) / 6 = -1/3
    np.testing.assert_allclose(layer.kernel.numpy(), [[1.0]])
    np.testing.assert_allclose(layer.bias.numpy(), [-1 / 3])
    # Before: (3 x + 0.5) * 2 + 1 at x = 2 is 14; after: (x - 1/3) * 6 + 4 is 14 as well.
    assert float(layer(np.array([[2.0]]))[0, 0]) * 6 + 4 == pytest.approx(14)


def test_the_hosts_moments_are_the_steps():
    stats = RunningStats((3,), dtype="float64")
    stats.update_on_host(np.random.default_rng(0).normal([0.0, 5, 5], [1e-9, 1, 9], (50, 3)))
    mean, std = stats.numpy()
    np.testing.assert_allclose(mean, stats.mean, rtol=1e-14)
    np.testing.assert_allclose(std, stats.std, rtol=1e-14)
