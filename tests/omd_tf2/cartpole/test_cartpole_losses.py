"""The losses against numbers by hand, NumPy and SciPy, and where their gradients flow."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import logsumexp
from scipy.stats import norm

from omd_tf2.cartpole.losses import (
    critic_loss,
    critic_targets,
    gaussian,
    in_model,
    mle_loss,
    values,
    vaml_loss,
    vep_loss,
)
from omd_tf2.cartpole.update import model_critic_loss
from omd_tf2.common.transition import Transition
from omd_tf2.implicit import loss_and_gradient
from tests.omd_tf2.cartpole.small import A, B, O, like, make_batch, make_config, make_state, slope
from tests.omd_tf2.small import Draw, assert_same, flat

# obs' = obs + (10, 0) for action 0, obs + (0, 20) for action 1; then + (1, 0).
# reward = obs0[0] - 1 for action 0, obs0[0] + 5 for action 1.
NEXT_OBS = ((np.array([[1.0, 0.0], [0.0, 1.0], [10.0, 0.0], [0.0, 20.0]]), np.array([1.0, 0.0])),)
REWARD = ((np.array([[1.0], [0.0], [-1.0], [5.0]]), np.zeros(1)),)
MODEL = NEXT_OBS, REWARD
REAL = Transition(  # predicted: obs' (15, 2), reward 3; obs' (2, 23), reward 6
    obs0=tf.constant([[4.0, 2.0], [1.0, 3.0]], tf.float64),
    actions=tf.constant([[1.0, 0.0], [0.0, 1.0]], tf.float64),
    rewards=tf.constant([2.0, 9.0], tf.float64),
    obs1=tf.constant([[13.0, 3.0], [2.0, 23.0]], tf.float64),
    terminals1=tf.constant([0.0, 1.0], tf.float64),
)
NO_NOISE = tf.zeros([2, 0], tf.float64)


def linear(kernel, bias=0.0):
    kernel = np.array(kernel, float)
    return ((kernel, np.zeros(kernel.shape[1]) + bias),)


def constant(*q):
    """A critic whose values are the same everywhere."""
    return linear(np.zeros((2, len(q))), q)


def test_predictions_by_hand():
    predicted = in_model(MODEL, REAL, NO_NOISE, make_config())
    np.testing.assert_array_equal(predicted.obs1, [[15.0, 2.0], [2.0, 23.0]])
    np.testing.assert_array_equal(predicted.rewards, [3.0, 6.0])
    assert_same(predicted._replace(obs1=REAL.obs1, rewards=REAL.rewards), REAL)


def test_stacked_batches_are_predicted_at_once():
    draw, config = Draw(), make_config(prob_model=True)
    model, batches, noise = make_state(draw, config).model, make_batch(draw, 2 * B), draw(2 * B, O)
    stack = lambda x: tf.reshape(x, [2, B, *x.shape[1:]])
    got = in_model(model, *tf.nest.map_structure(stack, (batches, noise)), config)
    expected = tf.nest.map_structure(stack, in_model(model, batches, noise, config))
    assert_same(got, expected, 1e-14)


def test_a_residual_model_predicts_the_change():
    predicted = in_model(MODEL, REAL, NO_NOISE, make_config(residual_model=True))
    np.testing.assert_array_equal(predicted.obs1, [[15.0 + 4, 2.0 + 2], [2.0 + 1, 23.0 + 3]])
    twice = ((np.concatenate([NEXT_OBS[0][0]] * 2, 1), np.concatenate([NEXT_OBS[0][1]] * 2)),)
    config = make_config(residual_model=True, prob_model=True)
    predicted = in_model((twice, REWARD), REAL, tf.zeros([2, 2], tf.float64), config)
    np.testing.assert_array_equal(predicted.obs1, [[19.0, 4.0], [3.0, 26.0]])


def test_the_rewards_are_real_where_they_are_not_learned():
    predicted = in_model(MODEL, REAL, NO_NOISE, make_config(no_learn_reward=True))
    np.testing.assert_array_equal(predicted.obs1, [[15.0, 2.0], [2.0, 23.0]])
    np.testing.assert_array_equal(predicted.rewards, REAL.rewards)


@pytest.mark.parametrize("log_std, clipped", [(-9.0, -5.0), (0.5, 0.5), (7.0, 2.0)])
def test_a_probabilistic_prediction_by_hand(log_std, clipped):
    # Means (1, 2) and log stds (log_std, 0), whatever the input.
    next_obs = ((np.zeros((4, 4)), np.array([1.0, 2.0, log_std, 0.0])),)
    noise = tf.constant([[1.0, 3.0], [-2.0, 0.0]], tf.float64)
    mean, clipped_log_std = gaussian((next_obs, REWARD), REAL.obs0, REAL.actions, make_config())
    np.testing.assert_array_equal(mean, [[1.0, 2.0]] * 2)
    np.testing.assert_array_equal(clipped_log_std, [[clipped, 0.0]] * 2)
    predicted = in_model((next_obs, REWARD), REAL, noise, make_config(prob_model=True))
    std = np.exp(clipped)
    np.testing.assert_allclose(predicted.obs1, [[1 + std, 5.0], [1 - 2 * std, 2.0]], rtol=1e-15)
    np.testing.assert_array_equal(predicted.rewards, [3.0, 6.0])


@pytest.mark.parametrize("no_learn_reward, expected", [(False, 7.5), (True, 2.5)])
def test_mle_loss_by_hand(no_learn_reward, expected):
    # Squared errors of obs' (2^2 + 1^2, 0), of rewards (1, 9): (5 + 0 + 1 + 9) / 2, or 5 / 2.
    config = make_config(agent="mle", no_learn_reward=no_learn_reward)
    assert mle_loss(MODEL, REAL, NO_NOISE, config) == expected


def test_a_probabilistic_mle_loss_is_the_negative_log_density():
    draw, config = Draw(), make_config(agent="mle", prob_model=True)
    real, (next_obs, reward) = make_batch(draw), make_state(draw, config).model
    bias = tf.constant([0.1, 0.2, 0.3, -20.0, 0.5, 20.0], tf.float64)  # clipped below and above
    model = (*next_obs[:-1], (next_obs[-1][0], bias)), reward
    mean, log_std = gaussian(model, real.obs0, real.actions, make_config())
    assert (log_std.numpy()[:, 0] == -5).all() and (log_std.numpy()[:, 2] == 2).all()
    predicted = in_model(model, real, draw(B, O), config)
    densities = norm.logpdf(real.obs1, mean, np.exp(log_std)).sum(-1)
    expected = np.mean(-densities + np.square(predicted.rewards - real.rewards))
    np.testing.assert_allclose(mle_loss(model, real, draw(B, O), config), expected, rtol=1e-13)


def test_vep_loss_by_hand():
    # v1 = s[0], v2 = 3 s[1] + 1. Predicted less real obs' is (2, -1) and (0, 0), so that the first
    # sample's squares are 2^2 + 3^2 = 13; rewards' squares (1, 9): (13 + 1 + 0 + 9) / 2.
    functions = linear([[1], [0]]), linear([[0], [3]], 1.0)
    config = make_config(agent="vep")
    assert vep_loss(MODEL, functions, REAL, NO_NOISE, config) == 11.5
    config = make_config(agent="vep", no_learn_reward=True)
    assert vep_loss(MODEL, functions, REAL, NO_NOISE, config) == 6.5


def test_vaml_loss_by_hand():
    # Q = (s[0], s[1]), discount 0.5. Sample 1: real 2 + 13 / 2 = 8.5, in the model 3 + 15 / 2 =
    # 10.5. Sample 2 ends: 9 and 6. Mean square (4 + 9) / 2; with the real rewards 1 / 2.
    target = (linear(np.eye(2)),)
    config = make_config(agent="vaml", hard=True, gamma=0.5, no_double=True)
    assert vaml_loss(MODEL, target, REAL, NO_NOISE, config) == 6.5
    config = make_config(agent="vaml", hard=True, gamma=0.5, no_learn_reward=True)
    assert vaml_loss(MODEL, target, REAL, NO_NOISE, config) == 0.5


@pytest.mark.parametrize(
    "hard, critics, best",
    [
        # The lower of (1, 4) and (3, 2) is (1, 2).
        (True, 2, 2.0),
        (False, 2, 2 + 0.5 * np.log(1 + np.exp(-2))),
        (True, 1, 4.0),
        (False, 1, 4 + 0.5 * np.log(1 + np.exp(-6))),
    ],
)
def test_critic_targets_by_hand(hard, critics, best):
    target = (constant(1, 4), constant(3, 2))[:critics]
    got = critic_targets(target, REAL, make_config(hard=hard))
    np.testing.assert_allclose(got, [2 + 0.9 * best, 9.0], rtol=1e-15)


def test_soft_targets_of_networks():
    draw, config = Draw(), make_config()
    real, target = make_batch(draw, 20), make_state(draw, config).target

    def numpy_values(layers):
        (kernel, bias), (last, last_bias) = layers
        return np.maximum(real.obs1 @ kernel + bias, 0) @ last + last_bias

    lowest = np.minimum(*(numpy_values(q) for q in target))
    best = 0.5 * logsumexp(lowest / 0.5, axis=-1)
    expected = real.rewards + 0.9 * np.where(real.terminals1, 0, best)
    np.testing.assert_allclose(critic_targets(target, real, config), expected, rtol=1e-13)


@pytest.mark.parametrize("dtype, rtol", [(tf.float32, 1e-6), (tf.float64, 1e-14)])
@pytest.mark.parametrize("scale", [1e4, -1e4])
def test_a_cold_soft_maximum_of_large_values_does_not_overflow(scale, dtype, rtol):
    target = tf.nest.map_structure(lambda x: tf.constant(x, dtype), (constant(scale, scale),))
    real = tf.nest.map_structure(lambda x: tf.cast(x, dtype), REAL)
    got = critic_targets(target, real, make_config(alpha=0.01))
    # Two equal values: the soft maximum lies alpha log 2 above.
    np.testing.assert_allclose(got, [2 + 0.9 * (scale + 0.01 * np.log(2)), 9.0], rtol=rtol)


def test_values_and_critic_loss_by_hand():
    # Q1 = (1, 4), Q2 = (3, 2); action 0 then 1: (1, 3), (4, 2). Less targets (1, 5): squares
    # 0, 4, 1, 9, mean 3.5; the first critic's alone 0, 1.
    targets = tf.constant([1.0, 5.0], tf.float64)
    critics = constant(1, 4), constant(3, 2)
    np.testing.assert_array_equal(values(critics, REAL.obs0, REAL.actions), [[1, 3], [4, 2]])
    assert critic_loss(critics, REAL, targets) == 3.5
    assert critic_loss(critics[:1], REAL, targets) == 0.5


def problem(**options):
    draw, config = Draw(1), make_config(**options)
    return make_state(draw, config), make_batch(draw), draw(B, O), config


def losses_of_the_model(state, real, noise, config):
    """Every loss that a model is moved by, as a function of the model alone."""
    return {
        "omd": lambda m: model_critic_loss(state.critics, m, state, real, noise, config),
        "mle": lambda m: mle_loss(m, real, noise, config),
        "vep": lambda m: vep_loss(m, state.value_functions, real, noise, config),
        "vaml": lambda m: vaml_loss(m, state.target, real, noise, config),
    }[config.agent]


AGENTS = ("omd", "mle", "vep", "vaml")


@pytest.mark.parametrize("options", [{}, {"prob_model": True}, {"no_learn_reward": True}], ids=str)
@pytest.mark.parametrize("agent", AGENTS)
def test_model_gradients_are_finite_differences(agent, options):
    args = problem(agent=agent, **options)
    model, loss = args[0].model, losses_of_the_model(*args)
    _, gradient = loss_and_gradient(loss, model)
    for network, part in enumerate(gradient):  # the next observation's, the reward's
        learned = network == 0 or "no_learn_reward" not in options
        assert (np.abs(flat(part)).max() > 1e-3) == learned
        direction = like(Draw(2), model[network])

        def alone(layers, network=network):
            return loss((*model[:network], layers, *model[network + 1 :]))

        expected = slope(alone, model[network], direction)
        np.testing.assert_allclose(flat(part) @ flat(direction), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("hard", [False, True])
def test_target_gradients_flow_into_reward_and_next_observation(hard):
    state, real, _, config = problem(hard=hard)

    def total(batch):
        return tf.reduce_sum(critic_targets(state.target, batch, config))

    _, gradient = loss_and_gradient(
        lambda x: total(real._replace(rewards=x[0], obs1=x[1])), (real.rewards, real.obs1)
    )
    np.testing.assert_array_equal(gradient[0], np.ones(B))
    ends = real.terminals1.numpy() == 1
    np.testing.assert_array_equal(gradient[1].numpy()[ends], 0)
    assert (np.abs(gradient[1].numpy()[~ends]).max(-1) > 1e-3).all()
    direction = Draw(2)(B, O)
    expected = slope(lambda x: total(real._replace(obs1=x)), real.obs1, direction)
    np.testing.assert_allclose(np.sum(gradient[1] * direction), expected, rtol=1e-7)


@pytest.mark.parametrize("no_learn_reward", [False, True])
def test_the_inner_loss_knows_no_real_outcome_but_rewards_that_are_not_learned(no_learn_reward):
    state, real, noise, config = problem(no_learn_reward=no_learn_reward)

    def inner(batch):
        return loss_and_gradient(
            model_critic_loss, state.critics, state.model, state, batch, noise, config
        )

    assert_same(inner(real._replace(obs1=real.obs1 - 100)), inner(real))
    paid = inner(real._replace(rewards=real.rewards + 100))
    if no_learn_reward:
        assert not np.isclose(paid[0], inner(real)[0])
    else:
        assert_same(paid, inner(real))
    for name in ("obs0", "actions", "terminals1"):
        other = inner(real._replace(**{name: 1 - getattr(real, name)}))
        assert not np.isclose(other[0], inner(real)[0])


def test_only_the_actions_taken_have_a_gradient():
    state, real, noise, config = problem()
    first = real._replace(actions=tf.constant(np.eye(A)[[0] * B]))
    _, gradient = loss_and_gradient(
        model_critic_loss, state.critics, state.model, state, first, noise, config
    )
    for critic in gradient:
        kernel, bias = critic[-1]
        assert np.abs(kernel[:, 0]).max() > 1e-3 and np.abs(bias[0]) > 1e-3
        np.testing.assert_array_equal(kernel[:, 1], 0)
        assert bias[1] == 0
