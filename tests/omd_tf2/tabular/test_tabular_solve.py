"""The inner solution and its adjoint against iteration, closed forms and differences, in 64 bits."""

import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common.compile import compiled
from omd_tf2.tabular.mdp import (
    MDP,
    Model,
    expected_return,
    induced_mdp,
    paper_mdp,
    soft_bellman,
    soft_values,
    softmax_policy,
)
from omd_tf2.tabular.solve import INNER_TOL, fixed_point_vjp, solve_adjoint, solve_fixed_point

RNG = np.random.default_rng(0)
TRUTH = paper_mdp()
WARM = TRUTH._replace(temperature=0.2)  # smooth enough for differences and unrolling
COUNT = 3
ALL_EXACT = tf.fill([COUNT], True)


def random_model(temperature=0.2):
    logits = RNG.normal(size=(2, 2, 2, COUNT)) * temperature
    return Model(tf.constant(logits), tf.constant(RNG.normal(size=(2, 2, COUNT))))


def zeros():
    return tf.zeros([2, COUNT], tf.float64)


def iterated(q, model, truth, steps):
    mdp = induced_mdp(model, truth)
    for _ in range(steps):
        q = soft_bellman(q, mdp)
    return q


def test_the_fixed_point_by_hand():
    # One state, two equal actions: V = r + t log 2 + V / 2, hence V = 2 (r + t log 2), Q = r + V / 2
    mdp = MDP(*(tf.ones(s, tf.float64) for s in ([2, 1, 1, 1], [1, 2, 1])), 0.5, 0.3)
    solution = solve_fixed_point(mdp, tf.zeros([1, 1], tf.float64))
    value = 2 * (1 + 0.3 * np.log(2))
    assert solution.values[0, 0].numpy() == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(solution.q[0, :, 0], 1 + value / 2, rtol=1e-14)


@pytest.mark.parametrize("temperature", [0.01, 0.2])
def test_newton_finds_what_iteration_finds(temperature):
    truth = TRUTH._replace(temperature=temperature)
    model = random_model(temperature)
    solution = solve_fixed_point(induced_mdp(model, truth), zeros())
    expected = iterated(tf.zeros([2, 2, COUNT], tf.float64), model, truth, 400)
    np.testing.assert_allclose(solution.q, expected, rtol=1e-12, atol=1e-13)
    values = soft_values(solution.q, temperature)
    np.testing.assert_allclose(solution.values, values, rtol=1e-13)
    assert solution.residual <= INNER_TOL


def test_newton_converges_from_anywhere_and_faster_from_nearby():
    mdp = induced_mdp(random_model(0.01), TRUTH)
    cold = solve_fixed_point(mdp, zeros())
    far = solve_fixed_point(mdp, tf.constant(RNG.normal(size=(2, COUNT)) * 1e4))
    near = solve_fixed_point(mdp, cold.values + 1e-6)
    for solution in (far, near):
        assert solution.residual <= INNER_TOL
        np.testing.assert_allclose(solution.q, cold.q, rtol=1e-11)
    assert near.steps <= 2 <= cold.steps < 15


def test_a_problem_without_a_solution_is_reported():
    broken = TRUTH._replace(rewards=TRUTH.rewards * np.nan)
    assert not solve_fixed_point(broken, tf.zeros([2, 1], tf.float64)).residual <= INNER_TOL


def test_the_adjoint_matches_the_dense_closed_form():
    mdp = induced_mdp(random_model(), WARM)
    q = solve_fixed_point(mdp, zeros()).q
    b = tf.constant(RNG.normal(size=(2, 2, COUNT)))
    x = solve_adjoint(q, mdp, b).numpy()
    policy = softmax_policy(q, WARM.temperature).numpy()
    for n in range(COUNT):
        # dB(s, a)/dQ(t, b) = discount P(t | s, a) pi(b | t)
        p = mdp.transitions.numpy()[..., n]
        jacobian = 0.9 * np.einsum("ast,tb->satb", p, policy[..., n]).reshape(4, 4)
        expected = np.linalg.solve((np.eye(4) - jacobian).T, b.numpy()[..., n].ravel())
        np.testing.assert_allclose(x[..., n].ravel(), expected, rtol=1e-12)


def test_the_implicit_gradient_matches_unrolled_differentiation():
    model, cotangent = random_model(), tf.constant(RNG.normal(size=(2, 2, COUNT)))
    q = solve_fixed_point(induced_mdp(model, WARM), zeros()).q
    gradient, info = fixed_point_vjp(model, WARM, q, cotangent, ALL_EXACT)
    with tf.GradientTape() as tape:
        tape.watch(model)
        outer = tf.reduce_sum(cotangent * iterated(q, model, WARM, 350))  # 0.9^350 = 1e-16
    for mine, unrolled in zip(gradient, tape.gradient(outer, model), strict=True):
        np.testing.assert_allclose(mine, unrolled, rtol=1e-10, atol=1e-12)
    assert info.converged and info.relative_residual < 1e-13


def test_the_gradient_of_J_through_the_fixed_point_matches_finite_differences():
    model = random_model()

    def outer(model):
        q = solve_fixed_point(induced_mdp(model, WARM), zeros()).q
        return q, expected_return(q, WARM)

    q, _ = outer(model)
    with tf.GradientTape() as tape:
        tape.watch(q)
        value = expected_return(q, WARM)
    gradient, _ = fixed_point_vjp(model, WARM, q, tape.gradient(value, q), ALL_EXACT)
    for k, leaf in enumerate(model):
        for index in np.ndindex(*leaf.shape[:-1]):  # all instances at once: they are independent
            step = np.zeros(leaf.shape)
            step[index] = 1e-5
            moved = [[x + s * step if i == k else x for i, x in enumerate(model)] for s in (1, -1)]
            high, low = (outer(Model(*m))[1] for m in moved)
            np.testing.assert_allclose(
                gradient[k][index], (high - low) / 2e-5, rtol=1e-6, atol=1e-9
            )


def test_the_identity_takes_the_inverses_place_where_asked():
    model, cotangent = random_model(), tf.constant(RNG.normal(size=(2, 2, COUNT)))
    q = solve_fixed_point(induced_mdp(model, WARM), zeros()).q
    exact = tf.constant([True, False, True])
    gradient, _ = fixed_point_vjp(model, WARM, q, cotangent, exact)
    solved, _ = fixed_point_vjp(model, WARM, q, cotangent, ALL_EXACT)
    with tf.GradientTape() as tape:
        tape.watch(model)
        value = soft_bellman(q, induced_mdp(model, WARM))
    one_step = tape.gradient(value, model, output_gradients=cotangent)
    for mixed, full, identity in zip(gradient, solved, one_step, strict=True):
        np.testing.assert_allclose(mixed[..., 1], identity[..., 1], rtol=1e-13)
        np.testing.assert_allclose(mixed[..., ::2], full[..., ::2], rtol=1e-13)
    # B's derivative in a reward is 1, so that the reward's gradient is the cotangent itself
    np.testing.assert_allclose(gradient.rewards[..., 1], cotangent[..., 1], rtol=1e-15)


def test_a_vanishing_cotangent_has_a_vanishing_gradient():
    model = random_model()
    q = solve_fixed_point(induced_mdp(model, WARM), zeros()).q
    gradient, info = fixed_point_vjp(model, WARM, q, tf.zeros_like(q), ALL_EXACT)
    assert all(np.all(g == 0) for g in gradient) and info.converged


def test_eager_equals_compiled():
    truth, model, tol = WARM, random_model(), 1e-12
    cotangent = tf.constant(RNG.normal(size=(2, 2, COUNT)))

    def both(model, cotangent):
        solution = solve_fixed_point(induced_mdp(model, truth), zeros())
        gradient, _ = fixed_point_vjp(model, truth, solution.q, cotangent, ALL_EXACT)
        return solution.q, solution.values, *gradient

    eager, xla = both(model, cotangent), compiled(both)(model, cotangent)
    for one, other in zip(eager, xla, strict=True):
        np.testing.assert_allclose(one, other, rtol=tol, atol=tol)
