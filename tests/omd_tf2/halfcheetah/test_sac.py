"""The losses against hand computation and NumPy, and where their gradients may not flow."""

import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from omd_tf2.common.acting import numpy_mlp
from omd_tf2.common.transition import Transition
from omd_tf2.halfcheetah.sac import (
    actor_loss,
    critic_loss,
    critic_targets,
    gaussian,
    in_model,
    model_loss,
    sample_actions,
    temperature_loss,
    values,
)
from tests.omd_tf2.halfcheetah.small import A, B, O, make_batch, make_config, make_state
from tests.omd_tf2.small import Draw, flat

DRAW = Draw()
STATE, BATCH, NOISE = make_state(DRAW), make_batch(DRAW), DRAW(B, A)
GAMMA, LOG_2PI = 0.9, np.log(2 * np.pi)


def const(x):
    return tf.constant(x, tf.float64)


def linear(kernel, bias):
    return ((const(kernel), const(bias)),)


def constant(inputs, *outputs):
    """A network whose outputs do not depend on its inputs."""
    return linear(np.zeros((inputs, len(outputs))), outputs)


def toy(**fields):
    """Two transitions of one observation and one action; the second is terminal."""
    batch = Transition(
        obs0=const([[1.0], [2.0]]),
        actions=const([[0.5], [-0.5]]),
        rewards=const([1.0, 10.0]),
        obs1=const([[3.0], [4.0]]),
        terminals1=const([0.0, 1.0]),
    )
    return batch._replace(**fields)


def numpy_draw(actor, obs, noise):
    """Actions and log densities by SciPy."""
    mean, log_std = np.split(numpy_mlp(actor, obs.numpy()), 2, -1)
    std = np.exp(np.clip(log_std, -10, 2))
    u = mean + std * noise.numpy()
    log_prob = stats.norm.logpdf(u, mean, std).sum(-1) - np.log(1 - np.tanh(u) ** 2).sum(-1)
    return np.tanh(u), log_prob


def numpy_values(critics, obs, actions):
    x = np.concatenate([obs, actions], -1)
    return np.stack([numpy_mlp(critic, x)[:, 0] for critic in critics], 1)


def test_the_model_predicts_next_observations_then_reward():
    # columns: obs1 = (obs + 2 action, 3), reward = obs - action
    model = linear([[1.0, 0.0, 1.0], [2.0, 0.0, -1.0]], [0.0, 3.0, 0.0])
    batch = toy(obs0=const([[5.0], [6.0]]), actions=const([[1.0], [0.5]]))
    predicted = in_model(model, batch, None, make_config())
    np.testing.assert_array_equal(predicted.rewards, [4.0, 5.5])
    np.testing.assert_array_equal(predicted.obs1, [[7.0, 3.0], [7.0, 3.0]])


def test_the_models_transitions_keep_the_rest_of_the_real_ones():
    batch = in_model(STATE.model, BATCH, None, make_config())
    assert batch.rewards.shape == [B] and batch.obs1.shape == [B, O]
    for name in ("obs0", "actions", "terminals1"):
        assert getattr(batch, name) is getattr(BATCH, name)


def test_model_loss_by_hand():
    # Predicted obs1 (1, 2) and reward 3 throughout. Errors of the first: 1 + 4 + (3 - 1)^2 = 9, of
    # the second: 0 + 1 + 0 = 1; mean 5.
    model = constant(2, 1.0, 2.0, 3.0)
    batch = toy(obs1=const([[0.0, 0.0], [1.0, 1.0]]), rewards=const([1.0, 3.0]))
    assert float(model_loss(model, batch, make_config())) == 5.0


def test_a_residual_model_predicts_the_observations_change():
    # Change 1 and reward 3 throughout: obs1 = 1 + 1 and 2 + 1 against the real 3 and 4, rewards
    # against 1 and 10: (1 + 4 + 1 + 49) / 2.
    model, batch = constant(2, 1.0, 3.0), toy()
    config = make_config(residual_model=True)
    predicted = in_model(model, batch, None, config)
    np.testing.assert_array_equal(predicted.obs1, [[2.0], [3.0]])
    np.testing.assert_array_equal(predicted.rewards, [3.0, 3.0])
    assert float(model_loss(model, batch, config)) == 27.5


def test_the_policys_log_std_is_clipped():
    mean, std = gaussian(constant(1, 0.5, -7.0, 5.0, -20.0), const([[1.0]]))
    np.testing.assert_array_equal(mean, [[0.5, -7.0]])
    np.testing.assert_allclose(std, np.exp([[2.0, -10.0]]), rtol=1e-15)


def test_actions_and_log_densities_equal_scipys():
    actions, log_prob = sample_actions(STATE.actor, BATCH.obs0, NOISE)
    expected = numpy_draw(STATE.actor, BATCH.obs0, NOISE)
    assert actions.shape == [B, A] and log_prob.shape == [B]
    np.testing.assert_allclose(actions, expected[0], rtol=1e-13)
    np.testing.assert_allclose(log_prob, expected[1], rtol=1e-12)


def test_the_density_is_the_slope_of_the_distribution():
    # P(action < a) = Phi((atanh a - mean) / std), differentiated numerically.
    actions, log_prob = sample_actions(STATE.actor, BATCH.obs0, NOISE)
    mean, std = gaussian(STATE.actor, BATCH.obs0)

    def distribution(a):
        return stats.norm.cdf(np.arctanh(a), mean, std)

    h = 1e-6
    slope = (distribution(actions.numpy() + h) - distribution(actions.numpy() - h)) / (2 * h)
    np.testing.assert_allclose(np.exp(log_prob), slope.prod(-1), rtol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mean", [-40.0, 40.0])
def test_saturated_actions_stay_finite(mean, dtype):
    # 1 - tanh(u)^2 = 4 exp(-2 |u|) up to exp(-80): log density = -log(2 pi) / 2 - log 4 + 2 |u|.
    actor = ((tf.zeros([1, 2], dtype), tf.constant([mean, 0.0], dtype)),)
    with tf.GradientTape() as tape:
        tape.watch(actor)
        actions, log_prob = sample_actions(actor, tf.zeros([1, 1], dtype), tf.zeros([1, 1], dtype))
    assert float(actions[0, 0]) == np.sign(mean)
    np.testing.assert_allclose(log_prob, [-LOG_2PI / 2 - np.log(4) + 80], rtol=1e-6)
    # d log_prob / d mean = 2 tanh(u); in log std: -1, the noise being 0
    np.testing.assert_allclose(tape.gradient(log_prob, actor)[0][1], [2 * np.sign(mean), -1])


def test_values_by_hand():
    critics = linear([[2.0], [4.0]], [1.0]), linear([[-1.0], [0.0]], [0.0])
    batch = toy()
    # Q1 = 2 s + 4 a + 1: 2 + 2 + 1 = 5, 4 - 2 + 1 = 3; Q2 = -s
    np.testing.assert_array_equal(
        values(critics, batch.obs0, batch.actions), [[5.0, -1.0], [3.0, -2.0]]
    )


@pytest.mark.parametrize(
    ("terminals", "expected"),
    [
        # The action is tanh(0) = 0 of density N(0; 0, 1), log pi = -log(2 pi) / 2, so that with a
        # temperature of 2 the entropy term is log(2 pi). Q1 = s' = (3, 4), Q2 = 10 - 2 s' = (4, 2).
        ((0.0, 0.0), [1 + 0.9 * (3 + LOG_2PI), 10 + 0.9 * (2 + LOG_2PI)]),
        ((0.0, 1.0), [1 + 0.9 * (3 + LOG_2PI), 10]),
        ((1.0, 0.0), [1, 10 + 0.9 * (2 + LOG_2PI)]),
    ],
)
def test_critic_targets_by_hand(terminals, expected):
    target = linear([[1.0], [7.0]], [0.0]), linear([[-2.0], [7.0]], [10.0])
    batch = toy(terminals1=const(terminals))
    got = critic_targets(
        target, constant(1, 0.0, 0.0), const(np.log(2.0)), batch, tf.zeros_like(batch.obs1), 0.9
    )
    np.testing.assert_allclose(got, expected, rtol=1e-14)


def test_critic_targets_equal_numpys():
    got = critic_targets(STATE.target, STATE.actor, STATE.log_temperature, BATCH, NOISE, GAMMA)
    actions, log_prob = numpy_draw(STATE.actor, BATCH.obs1, NOISE)
    lowest = numpy_values(STATE.target, BATCH.obs1, actions).min(-1)
    soft = lowest - np.exp(-0.5) * log_prob
    expected = BATCH.rewards + GAMMA * (1 - BATCH.terminals1) * soft
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_critic_loss_by_hand():
    # Q1 = (1, 2), Q2 = (3, 6), y = (2, 4): (1 + 1 + 4 + 4) / 2
    critics = linear([[1.0], [0.0]], [0.0]), linear([[3.0], [0.0]], [0.0])
    assert float(critic_loss(critics, toy(), const([2.0, 4.0]))) == 5.0


def test_actor_loss_and_entropy_equal_numpys():
    loss, entropy = actor_loss(STATE.actor, STATE.critics, STATE.log_temperature, BATCH.obs0, NOISE)
    actions, log_prob = numpy_draw(STATE.actor, BATCH.obs0, NOISE)
    lowest = numpy_values(STATE.critics, BATCH.obs0, actions).min(-1)
    np.testing.assert_allclose(loss, np.mean(np.exp(-0.5) * log_prob - lowest), rtol=1e-12)
    np.testing.assert_allclose(entropy, -log_prob.mean(), rtol=1e-12)


def test_temperature_loss_by_hand():
    # Temperature 2, entropy 3 above its target: 6, which is its own derivative in the logarithm:
    # the temperature falls while the policy is more random than wanted.
    log_temperature = const(np.log(2.0))
    with tf.GradientTape() as tape:
        tape.watch(log_temperature)
        loss = temperature_loss(log_temperature, const(2.0), -1.0)
    np.testing.assert_allclose([loss, tape.gradient(loss, log_temperature)], [6.0, 6.0])


def test_targets_pass_gradients_to_rewards_and_through_the_critic_alone():
    args = STATE.target, STATE.actor, STATE.log_temperature, BATCH, NOISE, GAMMA
    with tf.GradientTape() as tape:
        tape.watch(BATCH)
        targets = critic_targets(*args)
    got = tape.gradient(targets, BATCH)
    np.testing.assert_array_equal(got.rewards, np.ones(B))
    assert got.obs0 is None and got.actions is None

    def through(obs_of_action):
        """The gradient in obs1 of the formula, with the action drawn at `obs_of_action(obs1)`."""
        with tf.GradientTape() as tape:
            tape.watch(BATCH.obs1)
            actions, log_prob = sample_actions(STATE.actor, obs_of_action(BATCH.obs1), NOISE)
            lowest = tf.reduce_min(values(STATE.target, BATCH.obs1, actions), -1)
            soft = lowest - tf.exp(STATE.log_temperature) * log_prob
            out = GAMMA * (1 - BATCH.terminals1) * soft
        return tape.gradient(out, BATCH.obs1)

    np.testing.assert_allclose(got.obs1, through(tf.stop_gradient), rtol=1e-13)
    assert not np.allclose(got.obs1, through(tf.identity))
    np.testing.assert_array_equal(got.obs1[1], np.zeros(O))  # the terminal


def test_the_temperatures_loss_gives_the_actor_no_gradient():
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(STATE.actor)
        _, entropy = actor_loss(
            STATE.actor, STATE.critics, STATE.log_temperature, BATCH.obs0, NOISE
        )
        loss = temperature_loss(STATE.log_temperature, entropy, -A / 2)
    assert all(x is None for x in tf.nest.flatten(tape.gradient(loss, STATE.actor)))
    assert np.abs(flat(tape.gradient(entropy, STATE.actor))).max() > 0
