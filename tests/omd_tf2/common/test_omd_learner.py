"""The frame around an update, with an update that can be followed by hand."""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common.errors import TrainingError, check_finite
from baselines_tf2.common.replay import Rollout
from envs.errors import ConfigError
from omd_tf2.common.agent import LearnerAgent
from omd_tf2.common.solver import SolverConfig

ROWS_SHAPE, NOISE_SHAPE = (2, 3), (2, 50)


class State(NamedTuple):
    total: tf.Tensor  # of the rewards' means
    actor: tuple
    noise: tf.Tensor  # of the latest update


class Noise(NamedTuple):
    only: tf.Tensor


def init_state(config, obs_dim, action_dim, *, seed, dtype):
    actor = ((tf.ones([2, config.width], dtype), tf.zeros([config.width], dtype)),)
    return State(tf.constant(0.0, dtype), actor, tf.zeros(NOISE_SHAPE, dtype))


def update(state, real, noise, config):
    assert real.rewards.shape == ROWS_SHAPE and noise.only.shape == NOISE_SHAPE
    total = state.total + tf.reduce_mean(real.rewards)
    (kernel, bias), *_ = state.actor
    state = State(total, ((kernel + 1, bias - total),), noise.only)
    return state, (total, tf.reduce_mean(noise.only))


class Toy(LearnerAgent):
    """One layer acts, as wide as the config says."""

    FITS, ACTS = ("agent",), "actor"
    STEPS = SimpleNamespace(
        init_state=init_state,
        metric_names=lambda config: ("toy/total", "toy/noise"),
        Noise=Noise,
        update=update,
    )

    def _sizes(self, state):
        return self.config.updates, ROWS_SHAPE, NOISE_SHAPE


def make(reward=2.0, seed=0, updates=2, width=2):
    config = SimpleNamespace(
        agent="toy", replay_size=8, gamma=0.9, solver=SolverConfig(), updates=updates, width=width
    )
    learner = Toy(config, 1, 1, seed=seed, dtype="float64")
    rows = np.ones((8, 1, 1))
    no = np.zeros((8, 1), bool)
    learner.store(Rollout(rows, rows, reward * rows[:, :, 0], rows, no, no, no.astype(int)))
    return learner


def leaves(learner):
    return [x.numpy() for x in tf.nest.flatten(learner.state)]


@pytest.mark.parametrize("eager", [False, True])
def test_updates_follow_one_another_and_metrics_are_their_means(eager):
    tf.config.run_functions_eagerly(eager)
    learner = make(updates=3)
    metrics = learner.train()  # totals 2, 4, 6
    tf.config.run_functions_eagerly(False)
    assert list(metrics) == ["toy/total", "toy/noise"]
    assert metrics["toy/total"] == 4.0 and float(learner.state.total) == 6.0
    (kernel, bias), *_ = learner._acting
    np.testing.assert_array_equal(kernel, np.full((2, 2), 4.0))
    np.testing.assert_array_equal(bias, [-12.0, -12.0])
    learner.train()
    assert learner._acting[0][0][0, 0] == 7.0


def test_before_training_the_first_weights_act():
    (kernel, bias), *_ = make()._acting
    assert isinstance(kernel, np.ndarray)
    np.testing.assert_array_equal(kernel, np.ones((2, 2)))
    np.testing.assert_array_equal(bias, [0.0, 0.0])


def test_noise_is_standard_normal_and_new_for_each_update(eagerly):
    learner, seen = make(updates=1), []
    for _ in range(20):
        learner.train()
        seen.append(learner.state.noise.numpy())
    # 2,000 draws: standard errors 0.022 of the mean and 0.016 of the standard deviation
    assert abs(np.mean(seen)) < 0.11 and abs(np.std(seen) - 1) < 0.08
    assert len(np.unique(seen)) == np.size(seen)


def test_a_seed_fixes_every_bit(eagerly):
    runs = []
    for seed in (0, 0, 1):
        learner = make(seed=seed)
        learner.train()
        runs.append(learner.state.noise.numpy())
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2])


@pytest.mark.parametrize("reward", [np.nan, np.inf])
def test_an_update_that_is_not_finite_is_named_and_changes_nothing(reward, eagerly):
    learner = make(reward)
    before = leaves(learner)
    with pytest.raises(TrainingError, match=f"toy/total is {reward}"):
        learner.train()
    for a, b in zip(before, leaves(learner), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(learner._acting[0][1], [0.0, 0.0])


def test_finite_metrics_pass():
    check_finite({"loss": 1e300, "norm": 0.0})


def test_what_was_saved_is_loaded(tmp_path, eagerly):
    learner, other = make(), make(seed=1)
    learner.train()
    learner.save(tmp_path / "w.npz")
    other.load(tmp_path / "w.npz")
    for a, b in zip(leaves(learner), leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(other._acting[0][1], learner._acting[0][1])


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
    learner.train()
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
