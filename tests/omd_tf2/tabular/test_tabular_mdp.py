"""The MDP's functions against numbers worked by hand, in 64 bits."""

import numpy as np
import pytest
import tensorflow as tf

from omd_tf2.tabular.mdp import (
    MDP,
    OPTIMAL_RETURN,
    Model,
    backup,
    expected_return,
    induced_mdp,
    log_transitions,
    paper_mdp,
    policy_matrix,
    soft_bellman,
    soft_values,
    softmax_policy,
    solve_dominant,
)
from omd_tf2.tabular.solve import solve_fixed_point

RNG = np.random.default_rng(0)


def instances(x):
    """Adds the axis of the instances, one of them."""
    return tf.constant(x, tf.float64)[..., None]


def simple_mdp(temperature=1.0):
    """Action 0 stays, action 1 goes to the other state; only state 1 pays, 1 for staying."""
    stay, switch = np.eye(2), np.eye(2)[::-1]
    rewards = instances([[0.0, 0.0], [1.0, 0.0]])
    return MDP(instances([stay, switch]), rewards, discount=0.5, temperature=temperature)


def random_mdp(states, actions, count, temperature=0.3):
    transitions = RNG.dirichlet(np.ones(states), size=(actions, states, count))
    rewards = RNG.normal(size=(states, actions, count))
    transitions = tf.constant(np.moveaxis(transitions, -1, 2))
    return MDP(transitions, tf.constant(rewards), discount=0.9, temperature=temperature)


def test_the_optimal_return_is_the_papers():
    mdp = paper_mdp()
    q = solve_fixed_point(mdp, tf.zeros([2, 1], tf.float64)).q
    expected = [[0.16363807, 0.06282009], [1.89091046, 0.66282009]]  # as published
    np.testing.assert_allclose(q[..., 0], expected, atol=1e-7)
    assert float(expected_return(q, mdp)[0]) == pytest.approx(1.0272551, abs=1e-7)
    best = instances([[1.0, 0.0], [1.0, 0.0]]) * 100
    # V1 = .5 + .9 (.2 V0 + .8 V1), V0 = -.45 + .9 (.7 V0 + .3 V1): V = (.1636, 1.8909)
    assert float(expected_return(best, mdp)[0]) == pytest.approx(OPTIMAL_RETURN, abs=1e-7)


def test_soft_values_by_hand():
    q = instances(np.log([[1.0, 3.0], [2.0, 2.0]]))
    np.testing.assert_allclose(soft_values(q, 1.0)[:, 0], np.log([4.0, 4.0]), rtol=1e-15)
    # 2 log(1 + sqrt 3), 2 log(2 sqrt 2)
    expected = [2 * np.log(1 + np.sqrt(3)), np.log(8)]
    np.testing.assert_allclose(soft_values(q, 2.0)[:, 0], expected, rtol=1e-15)


def test_a_low_temperature_does_not_overflow():
    q = instances([[50.0, 50.0], [-800.0, 3.0]])  # exp(5000) is no float64
    values = soft_values(q, 0.01)[:, 0]
    np.testing.assert_allclose(values, [50 + 0.01 * np.log(2), 3], rtol=1e-15)
    np.testing.assert_allclose(softmax_policy(q, 0.01)[..., 0], [[0.5, 0.5], [0, 1]], rtol=1e-12)


def test_policy_by_hand():
    policy = softmax_policy(instances(np.log([[1.0, 3.0], [2.0, 2.0]])), 1.0)
    np.testing.assert_allclose(policy[..., 0], [[0.25, 0.75], [0.5, 0.5]], rtol=1e-15)


def test_backup_and_operator_by_hand():
    mdp = simple_mdp()
    # Q(s, a) = R + V(s') / 2 with V = (2, 6)
    expected = [[1.0, 3.0], [4.0, 1.0]]
    np.testing.assert_allclose(backup(instances([2.0, 6.0]), mdp)[..., 0], expected)
    q = instances(np.log([[1.0, 3.0], [2.0, 6.0]]))  # V = (log 4, log 8)
    expected = np.log([[2, np.sqrt(8)], [np.e * np.sqrt(8), 2]])
    np.testing.assert_allclose(soft_bellman(q, mdp)[..., 0], expected, rtol=1e-14)


def test_the_matrix_of_a_policy_by_hand():
    policy = instances([[0.25, 0.75], [0.5, 0.5]])
    # Staying keeps the state, switching changes it: P_pi = [[.25, .75], [.5, .5]], discount 1/2.
    expected = [[0.875, -0.375], [-0.25, 0.75]]
    np.testing.assert_allclose(policy_matrix(policy, simple_mdp())[..., 0], expected)


def test_expected_return_by_hand():
    # pi(stay) = 1/2 everywhere: R_pi = (0, 1/2), V = R_pi + (V0 + V1) / 4 = (1/4, 3/4)
    q = instances(np.zeros([2, 2]))
    assert float(expected_return(q, simple_mdp())[0]) == pytest.approx(0.5, abs=1e-15)
    # go to state 1 and stay: V1 = 2, V0 = 1
    q = instances([[0.0, 1.0], [1.0, 0.0]])
    assert float(expected_return(q, simple_mdp(0.01))[0]) == pytest.approx(1.5, abs=1e-12)


def test_expected_return_matches_numpy_in_a_larger_mdp():
    mdp, q = random_mdp(4, 3, 5), tf.constant(RNG.normal(size=(4, 3, 5)))
    for n, value in enumerate(expected_return(q, mdp).numpy()):
        p, r = mdp.transitions.numpy()[..., n], mdp.rewards.numpy()[..., n]
        policy = np.exp(q.numpy()[..., n] / 0.3)
        policy /= policy.sum(1, keepdims=True)
        chain = np.einsum("sa,ast->st", policy, p)
        v = np.linalg.solve(np.eye(4) - 0.9 * chain, (policy * r).sum(1))
        assert value == pytest.approx(v.mean(), rel=1e-12)


def test_gradient_of_the_expected_return_matches_finite_differences():
    mdp, x = paper_mdp()._replace(temperature=0.3), RNG.normal(size=(2, 2, 1))
    with tf.GradientTape() as tape:
        q = tf.constant(x)
        tape.watch(q)
        value = expected_return(q, mdp)
    gradient = tape.gradient(value, q).numpy()
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-5
        high, low = (expected_return(tf.constant(x + s * step), mdp)[0] for s in (1, -1))
        assert gradient[index] == pytest.approx(float(high - low) / 2e-5, rel=1e-7)


def test_the_models_mdp_by_hand():
    logits = np.zeros([2, 2, 2])
    logits[1, 0] = 0.01 * np.log([1.0, 3.0])
    model = Model(instances(logits), instances(np.ones([2, 2])))
    mdp = induced_mdp(model, paper_mdp())
    expected = [[[0.5, 0.5], [0.5, 0.5]], [[0.25, 0.75], [0.5, 0.5]]]
    np.testing.assert_allclose(mdp.transitions[..., 0], expected, rtol=1e-14)
    np.testing.assert_allclose(mdp.rewards, 1.0)
    assert (mdp.discount, mdp.temperature) == (0.9, 0.01)
    np.testing.assert_allclose(tf.exp(log_transitions(model, 0.01)), mdp.transitions, rtol=1e-14)


def test_the_elimination_solves_and_is_differentiable():
    mdp, b = random_mdp(4, 3, 5), RNG.normal(size=(4, 5))
    policy = softmax_policy(mdp.rewards, 1.0)
    matrix = policy_matrix(policy, mdp)
    for m in (matrix, tf.transpose(matrix, [1, 0, 2])):
        x = solve_dominant(m, tf.constant(b)).numpy()
        expected = [np.linalg.solve(m[..., n], b[:, n]) for n in range(5)]
        np.testing.assert_allclose(x.T, expected, rtol=1e-12)
