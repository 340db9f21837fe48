"""The frame around an update, with an update that can be followed by hand."""

from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common.errors import TrainingError, check_finite
from baselines_tf2.common.replay import Replay, Rollout
from envs.errors import ConfigError
from omd_tf2.common.learner import Learner

ROWS_SHAPE, NOISE_SHAPE = (2, 3), (2, 5)


class State(NamedTuple):
    total: tf.Tensor  # of the rewards' means
    actor: tuple
    noise: tf.Tensor  # of the latest update


def initial(width=2):
    actor = ((tf.ones([2, width], tf.float64), tf.zeros([width], tf.float64)),)
    return State(tf.constant(0.0, tf.float64), actor, tf.zeros(NOISE_SHAPE, tf.float64))


def make(reward=2.0, seed=0, **options):
    replay = Replay(1, 1, capacity=8, gamma=0.9, dtype="float64")
    rows = np.ones((8, 1, 1))
    no = np.zeros((8, 1), bool)
    replay.add(Rollout(rows, rows, reward * rows[:, :, 0], rows, no, no, no.astype(int)))

    def update(state, rows, noise):
        assert rows.shape == (*ROWS_SHAPE, replay.layout.width) and noise.shape == NOISE_SHAPE
        total = state.total + tf.reduce_mean(replay.layout.unpack(rows).rewards)
        (kernel, bias), *_ = state.actor
        state = State(total, ((kernel + 1, bias - total),), noise)
        return state, (total, tf.reduce_mean(noise))

    return Learner(
        initial(**options),
        update,
        lambda state: state.actor,
        ("toy/total", "toy/noise"),
        replay,
        rows_shape=ROWS_SHAPE,
        noise_shape=NOISE_SHAPE,
        fits={"agent": "toy"},
        seed=seed,
        dtype="float64",
    )


def leaves(learner):
    return [x.numpy() for x in tf.nest.flatten(learner.state)]


@pytest.mark.parametrize("eager", [False, True])
def test_updates_follow_one_another_and_metrics_are_their_means(eager):
    tf.config.run_functions_eagerly(eager)
    learner = make()
    metrics = learner.train(3)  # totals 2, 4, 6
    tf.config.run_functions_eagerly(False)
    assert list(metrics) == ["toy/total", "toy/noise"]
    assert metrics["toy/total"] == 4.0 and float(learner.state.total) == 6.0
    (kernel, bias), *_ = learner.acting
    np.testing.assert_array_equal(kernel, np.full((2, 2), 4.0))
    np.testing.assert_array_equal(bias, [-12.0, -12.0])
    learner.train(1)
    assert learner.acting[0][0][0, 0] == 5.0


def test_before_training_the_first_weights_act():
    (kernel, bias), *_ = make().acting
    assert isinstance(kernel, np.ndarray)
    np.testing.assert_array_equal(kernel, np.ones((2, 2)))
    np.testing.assert_array_equal(bias, [0.0, 0.0])


def test_noise_is_standard_normal_and_new_for_each_update(eagerly):
    learner, seen = make(), []
    for _ in range(200):
        learner.train(1)
        seen.append(learner.state.noise.numpy())
    # 2,000 draws: standard errors 0.022 of the mean and 0.016 of the standard deviation
    assert abs(np.mean(seen)) < 0.11 and abs(np.std(seen) - 1) < 0.08
    assert len(np.unique(seen)) == np.size(seen)


def test_a_seed_fixes_every_bit(eagerly):
    runs = []
    for seed in (0, 0, 1):
        learner = make(seed=seed)
        learner.train(2)
        runs.append(learner.state.noise.numpy())
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2])


@pytest.mark.parametrize("reward", [np.nan, np.inf])
def test_an_update_that_is_not_finite_is_named_and_changes_nothing(reward, eagerly):
    learner = make(reward)
    before = leaves(learner)
    metrics = learner.train(2)
    with pytest.raises(TrainingError, match=f"toy/total is {reward}"):
        check_finite(metrics)
    for a, b in zip(before, leaves(learner), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(learner.acting[0][1], [0.0, 0.0])


def test_finite_metrics_pass():
    check_finite({"loss": 1e300, "norm": 0.0})


def test_what_was_saved_is_loaded(tmp_path, eagerly):
    learner, other = make(), make(seed=1)
    learner.train(2)
    learner.save(tmp_path / "w.npz")
    other.load(tmp_path / "w.npz")
    for a, b in zip(leaves(learner), leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(other.acting[0][1], learner.acting[0][1])


DAMAGE = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "no archive": lambda path: path.write_text("weights"),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused(damage, tmp_path, eagerly):
    path = tmp_path / "w.npz"
    learner = make()
    learner.save(path)
    DAMAGE[damage](path)
    learner.train(1)
    before = leaves(learner)
    with pytest.raises(ConfigError, match="w.npz cannot be read, it is damaged or no .npz"):
        learner.load(path)
    for a, b in zip(before, leaves(learner), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no file"):
        make().load(tmp_path / "w.npz")


def test_other_shapes_are_refused(tmp_path):
    make(width=3).save(tmp_path / "w.npz")
    with pytest.raises(ConfigError, match="w.npz was saved by an agent with other settings"):
        make().load(tmp_path / "w.npz")
