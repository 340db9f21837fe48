"""Losses, bounds, projections and updates against numbers worked by hand, in 64 bits."""

import doctest
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

import omd_tf2.tabular
from baselines_tf2.common.compile import compiled
from omd_tf2.common.functional import adam_init
from omd_tf2.tabular.evaluate import evaluate, mle_bound, omd_bound
from omd_tf2.tabular.mdp import MDP, Model, expected_return, paper_mdp
from omd_tf2.tabular.update import (
    PROJECTIONS,
    Problem,
    State,
    bellman_loss,
    mle_gradient,
    mle_loss,
    omd_gradient,
    project,
    projected_update,
    return_loss,
    train_steps,
)

RNG = np.random.default_rng(0)
TRUTH = paper_mdp()
TAU = TRUTH.temperature


def instances(x):
    return tf.constant(x, tf.float64)[..., None]


def random_model(count):
    return Model(*(tf.constant(RNG.random(s)) for s in ((2, 2, 2, count), (2, 2, count))))


def uniform_model(rewards=0.0):
    """P_hat = 1/2 everywhere."""
    return Model(instances(np.zeros([2, 2, 2])), instances(np.full([2, 2], rewards)))


def make_problem(outer_loss=return_loss, num_mle=2, norm_bound=(0.0, 3.0, 1.0, 2.0), **changes):
    count = len(norm_bound)
    problem = Problem(
        truth=TRUTH,
        outer_loss=outer_loss,
        num_mle=num_mle,
        norm_bound=tf.constant(norm_bound, tf.float64),
        noise_std=tf.zeros([count], tf.float64),
        noise_in_adjoint=True,
        exact=tf.fill([count], True),
        projection="joint",
        lr=0.01,
    )
    return replace(problem, **changes)


def make_state(problem):
    model = random_model(problem.norm_bound.shape[0])
    values = tf.zeros([2, model.rewards.shape[2] - problem.num_mle], tf.float64)
    return State(model, adam_init(model), values)


def test_return_loss_is_minus_the_return():
    q = tf.constant(RNG.normal(size=(2, 2, 3)))
    np.testing.assert_array_equal(return_loss(q, TRUTH), -expected_return(q, TRUTH))


def test_bellman_loss_by_hand():
    # One state, two actions, discount 1/2, temperature 1: V = log 4, B Q = 1 + log 2 for both
    truth = MDP(*(tf.ones(s, tf.float64) for s in ([2, 1, 1, 1], [1, 2, 1])), 0.5, 1.0)
    q = instances(np.log([[1.0, 3.0]]))
    errors = 1 + np.log(2) - np.log([1.0, 3.0])
    assert float(bellman_loss(q, truth)[0]) == pytest.approx((errors**2).mean(), rel=1e-14)


def test_mle_loss_by_hand():
    # rewards: ((-.45 - .1)^2 + (-.1 - .1)^2 + 2 (.5 - .1)^2) / 4 = (.3025 + .04 + .32) / 4
    # KL of (p, 1 - p) to (1/2, 1/2) is log 2 minus the entropy, averaged over the four (s, a)
    p = np.array([0.7, 0.2, 0.99, 0.99])
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p))
    expected = 0.6625 / 4 + np.mean(np.log(2) - entropy)
    assert float(mle_loss(uniform_model(0.1), TRUTH)[0]) == pytest.approx(expected, rel=1e-14)


def test_mle_loss_and_gradient_vanish_at_the_truth():
    truth = Model(TAU * tf.math.log(TRUTH.transitions), TRUTH.rewards)
    assert abs(float(mle_loss(truth, TRUTH)[0])) < 1e-15
    for gradient in mle_gradient(truth, TRUTH):
        np.testing.assert_allclose(gradient, 0, atol=1e-13)


def test_mle_gradient_matches_its_closed_form():
    gradient = mle_gradient(uniform_model(0.1), TRUTH)
    # d/dR_hat = 2 (R_hat - R) / 4, d/dlogits = (P_hat - P) / (4 temperature)
    np.testing.assert_allclose(gradient.rewards, (0.1 - TRUTH.rewards) / 2, rtol=1e-13)
    np.testing.assert_allclose(gradient.logits, (0.5 - TRUTH.transitions) / 4 / TAU, rtol=1e-12)


def test_bounds_by_hand():
    # eps_r = .55, eps_p = |.99 - .5| + |.01 - .5| = .98, r_max = .5:
    # 10 * .55 + .9 * .5 * .98 * 100 / 2 = 5.5 + 22.05
    assert float(mle_bound(uniform_model(0.1), TRUTH)[0]) == pytest.approx(27.55, rel=1e-12)
    # Q = 0 and R_hat = 0: B Q - B_hat Q = R, as V is the same in both states
    q = instances(np.zeros([2, 2]))
    assert float(omd_bound(q, uniform_model(), TRUTH)[0]) == pytest.approx(5.0, rel=1e-12)


def test_the_true_model_has_no_error_and_no_bound():
    truth = Model(TAU * tf.math.log(TRUTH.transitions), TRUTH.rewards)
    problem = make_problem(norm_bound=(1.0, 1.0), num_mle=1)
    model = tf.nest.map_structure(lambda x: tf.tile(x, [1] * (x.shape.rank - 1) + [2]), truth)
    result = evaluate(problem, model, tf.zeros([2, 2, 1], tf.float64))
    np.testing.assert_allclose(result.q_error, 0, atol=1e-11)
    np.testing.assert_allclose(result.bound, 0, atol=1e-9)
    np.testing.assert_allclose(result.J, 1.0272551, atol=1e-7)


def test_noise_moves_the_q_that_is_evaluated():
    std = tf.constant([0.0, 100.0], tf.float64)
    problem = make_problem(num_mle=0, norm_bound=(9.0, 9.0), noise_std=std)
    one = random_model(1)
    model = tf.nest.map_structure(lambda x: tf.concat([x, x], -1), one)
    result = evaluate(problem, model, tf.ones([2, 2, 1], tf.float64))
    assert float(result.J[0]) == pytest.approx(
        float(result.J[1]), rel=1e-9
    )  # a constant leaves the policy
    assert result.q_error[0] < 20 and result.q_error[1] > 80
    assert float(result.bound[0]) == pytest.approx(float(result.bound[1]), rel=1e-12)


def test_joint_projection_by_hand():
    logits, rewards = np.zeros([2, 2, 2]), np.zeros([2, 2])
    logits[0, 0, 0], rewards[1, 1] = 0.03, 4.0  # norm sqrt((.03 / .01)^2 + 4^2) = 5
    model = Model(instances(logits), instances(rewards))
    small = project(model, tf.constant([2.5], tf.float64), "joint", TAU)
    np.testing.assert_allclose(small.logits[..., 0], logits / 2, rtol=1e-14)
    np.testing.assert_allclose(small.rewards[..., 0], rewards / 2, rtol=1e-14)
    same = project(model, tf.constant([5.1], tf.float64), "joint", TAU)
    np.testing.assert_array_equal(same.logits, model.logits)


def test_leaf_projection_by_hand():
    logits, rewards = np.zeros([2, 2, 2]), np.zeros([2, 2])
    logits[0, 0, 1], logits[1, 0, 0] = 0.03, 4.0  # action 0 over the temperature: norm 5
    rewards[0, 1], rewards[1, 0] = 0.006, 0.8  # state 0 over the temperature: norm 1
    model = Model(instances(logits), instances(rewards))
    small = project(model, tf.constant([2.5], tf.float64), "leaf", TAU)
    np.testing.assert_allclose(small.logits[..., 0], logits / 2, rtol=1e-14)
    np.testing.assert_array_equal(small.rewards[..., 0], rewards)
    smaller = project(model, tf.constant([0.5], tf.float64), "leaf", TAU)
    np.testing.assert_allclose(smaller.logits[..., 0], logits / 10, rtol=1e-14)
    np.testing.assert_allclose(smaller.rewards[..., 0], rewards / 2, rtol=1e-14)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_a_projection_onto_nothing_of_nothing_is_zero(projection):
    for model in (uniform_model(), uniform_model(1.0)):
        for leaf in project(model, tf.zeros([1], tf.float64), projection, TAU):
            np.testing.assert_array_equal(leaf, 0.0)


@pytest.mark.parametrize("projection", PROJECTIONS)
def test_no_bound_leaves_the_model(projection):
    model = random_model(2)
    unbounded = project(model, tf.constant([np.inf, 1e9], tf.float64), projection, TAU)
    for leaf, other in zip(unbounded, model, strict=True):
        np.testing.assert_array_equal(leaf, other)


def test_noise_enters_the_outer_loss_alone():
    problem = make_problem(bellman_loss, num_mle=0, norm_bound=(9.0,))
    model, noise = random_model(1), tf.constant(RNG.normal(size=(2, 2, 1)))
    zeros = tf.zeros([2, 1], tf.float64)
    _, values, residuals = omd_gradient(problem, model, zeros, noise)
    _, clean, _ = omd_gradient(problem, model, zeros, tf.zeros_like(noise))
    np.testing.assert_array_equal(values, clean)
    assert residuals.inner < 1e-13 and residuals.adjoint < 1e-11


@pytest.mark.parametrize("in_adjoint", [False, True])
def test_noise_reaches_the_adjoint_or_the_objective_alone(in_adjoint):
    weights, noise = tf.constant(np.random.default_rng(1).normal(size=(2, 2, 2, 1)))
    model, zeros = uniform_model(0.1), tf.zeros([2, 1], tf.float64)

    def gradients(outer_loss):
        problem = make_problem(
            outer_loss, num_mle=0, norm_bound=(9.0,), noise_in_adjoint=in_adjoint
        )
        return [
            np.concatenate([np.ravel(x) for x in omd_gradient(problem, model, zeros, n)[0]])
            for n in (0 * noise, 0.01 * noise)
        ]

    # Of a linear objective the gradient in Q does not know where it is taken.
    clean, noised = gradients(lambda q, truth: tf.reduce_sum(weights * q, [0, 1]))
    assert np.array_equal(clean, noised) != in_adjoint
    clean, noised = gradients(bellman_loss)
    assert not np.allclose(clean, noised, rtol=1e-3)


# Low temperatures and Adam's division by vanishing moments amplify rounding.
@pytest.mark.parametrize(
    "outer_loss, projection, temperature, tol",
    [(return_loss, "joint", 0.3, 1e-12), (bellman_loss, "leaf", 0.01, 1e-6)],
)
def test_eager_equals_compiled(outer_loss, projection, temperature, tol):
    exact = tf.constant([True, True, True, False])
    std = tf.constant([0.0, 0.0, 0.1, 0.01], tf.float64)
    problem = make_problem(outer_loss, projection=projection, exact=exact, noise_std=std)
    problem = replace(problem, truth=TRUTH._replace(temperature=temperature))
    state, noise = make_state(problem), tf.constant(RNG.normal(size=(3, 2, 2, 1)))

    def update(state, noise, steps):
        return train_steps(problem, state, noise, steps)

    eager = update(state, noise, tf.constant(2))
    xla = compiled(update)(state, noise, tf.constant(2))
    for one, other in zip(tf.nest.flatten(eager), tf.nest.flatten(xla), strict=True):
        np.testing.assert_allclose(one, other, rtol=tol, atol=tol)
    by_step = state
    for k in range(2):
        by_step, _ = projected_update(problem, by_step, noise[k])
    for one, other in zip(by_step.model, eager[0].model, strict=True):
        np.testing.assert_array_equal(one, other)


def test_instances_do_not_see_one_another():
    problem = make_problem(num_mle=0, norm_bound=(1.0, 2.0))
    state, noise = make_state(problem), tf.zeros([2, 2, 2, 1], tf.float64)
    together, _ = train_steps(problem, state, noise, tf.constant(2))
    for n in range(2):
        alone = make_problem(num_mle=0, norm_bound=(float(problem.norm_bound[n]),))
        model = tf.nest.map_structure(lambda x, n=n: x[..., n : n + 1], state.model)
        one = State(model, adam_init(model), state.values[:, n : n + 1])
        one, _ = train_steps(alone, one, noise, tf.constant(2))
        for leaf, other in zip(one.model, together.model, strict=True):
            np.testing.assert_allclose(leaf[..., 0], other[..., n], rtol=1e-11)


def test_the_example_of_the_documentation_runs():
    result = doctest.testmod(omd_tf2.tabular)
    assert result.attempted > 10 and result.failed == 0
