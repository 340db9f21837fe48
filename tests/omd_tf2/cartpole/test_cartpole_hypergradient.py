"""The model's gradient against finite differences of the solved problem, unrolling, and matrices.

Everything in 64 bits. Linear critics make the inner problem one of least squares, whose solution is
known; its target critics and model are no less nonlinear for it.
"""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from omd_tf2.cartpole.losses import critic_loss, critic_targets, in_model, values, vaml_loss
from omd_tf2.cartpole.update import model_critic_loss, model_gradient
from omd_tf2.common.solver import SolverConfig
from omd_tf2.implicit import gradient_of, loss_and_gradient
from tests.omd_tf2.cartpole.small import A, O, like, make_batch, make_config, make_state, slope
from tests.omd_tf2.small import Draw, assert_same, flat, jacobian

OPTIONS = ("hard", "no_double", "prob_model", "no_learn_reward")
MANY = 24  # transitions: more than a linear critic's 8 weights
EXACT = {"dense": {}, "cg": {"tol": 1e-13}, "minres": {"tol": 1e-13}}


def problem(num, critic_hidden, **options):
    """(state, real, noise, config)"""
    draw, config = Draw(), make_config(**options)
    state = make_state(draw, config, critic_hidden=critic_hidden)
    return state, make_batch(draw, num), draw(num, O), config


def gradient(args, solver="dense", **options):
    *args, config = args
    return model_gradient(*args, replace(config, solver=SolverConfig(solver, **options)))[1:]


def solved(args, model):
    """The state whose linear critics minimise the inner loss, by least squares."""
    state, real, noise, config = args
    predicted = in_model(model, real, noise, config)
    y = critic_targets(state.target, predicted, config)
    x = np.concatenate([real.obs0, np.ones((len(y), 1))], 1)
    x = (real.actions.numpy()[:, :, None] * x[:, None]).reshape(len(y), -1)  # one block per action
    weights = np.linalg.lstsq(x, y.numpy(), rcond=None)[0].reshape(A, O + 1).T
    # A tensor of its own for each critic, so that tapes tell them apart.
    critics = tuple(((tf.constant(weights[:-1]), tf.constant(weights[-1])),) for _ in state.critics)
    return state._replace(critics=critics, model=model)


def outer_loss(critics, args):
    state, real, _, config = args
    return critic_loss(critics, real, critic_targets(state.target, real, config))


def cotangent(args):
    return loss_and_gradient(outer_loss, args[0].critics, args)[1]


def optimality(args):
    """f as a function of (critics, model)."""
    state, *rest = args
    return lambda w, model: gradient_of(model_critic_loss)(w, model, state, *rest)


@pytest.fixture(scope="module")
def solved_args():
    args = problem(MANY, ())
    return solved(args, args[0].model), *args[1:]


def relu_problem(**options):
    """As in training: more weights than samples, critics of two hidden layers, not solved."""
    return problem(4, (3, 3), **options)


@pytest.fixture(scope="module")
def relu_args():
    return relu_problem()


@pytest.mark.parametrize("option", ["none", *OPTIONS])
def test_it_is_the_derivative_of_the_solved_problems_outer_loss(option):
    args = problem(MANY, (), **({option: True} if option in OPTIONS else {}))
    model, draw = args[0].model, Draw(5)
    args = solved(args, model), *args[1:]
    hypergradient, health = gradient(args)
    assert health.optimality_norm < 1e-12 and health.relative_residual < 1e-12
    for _ in range(3):
        direction = like(draw, model)
        expected = slope(lambda m: outer_loss(solved(args, m).critics, args), model, direction)
        np.testing.assert_allclose(flat(hypergradient) @ flat(direction), expected, rtol=1e-6)
    assert (np.abs(flat(hypergradient[1])).max() == 0) == (option == "no_learn_reward")


def test_it_is_the_derivative_through_unrolled_descent(solved_args):
    state, model = solved_args[0], solved_args[0].model
    f = optimality(solved_args)
    hessian = np.linalg.eigvalsh(jacobian(lambda w: f(w, model), state.critics))
    rate = 2 / (hessian[0] + hessian[-1])
    steps = int(np.ceil(np.log(1e-8) / np.log(1 - rate * hessian[0])))

    def descended(model):
        critics = state.critics
        for _ in range(steps):
            step = f(critics, model)
            critics = tf.nest.map_structure(lambda w, g: w - rate * g, critics, step)
        return outer_loss(critics, solved_args)

    _, unrolled = loss_and_gradient(descended, model)
    assert_same(gradient(solved_args)[0], unrolled, 1e-6 * np.abs(flat(unrolled)).max())


@pytest.mark.parametrize("solver", EXACT)
def test_the_exact_solvers_agree(solver, solved_args):
    expected = flat(gradient(solved_args)[0])
    got, health = gradient(solved_args, solver, **EXACT[solver])
    np.testing.assert_allclose(flat(got), expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    assert health.converged == 1 and health.negative_curvature == 0


@pytest.mark.parametrize("no_double", [False, True])
def test_gauss_newton_equals_its_matrix_written_out(no_double):
    relu_args, ridge = relu_problem(no_double=no_double), 0.1
    state, real, _, _ = relu_args
    heads = len(state.critics)
    j = jacobian(lambda w: values(w, real.obs0, real.actions), state.critics)  # [B H, weights]
    assert j.shape[0] < j.shape[1]
    # The loss is sum((Q - y)^2) / (B H): its Gauss-Newton matrix is 2 J^T J / (B H).
    matrix = 2 * j.T @ j / (4 * heads) + ridge * np.eye(j.shape[1])
    adjoint = np.linalg.solve(matrix, flat(cotangent(relu_args)))
    cross = jacobian(lambda model: optimality(relu_args)(state.critics, model), state.model)
    expected = -cross.T @ adjoint
    got, health = gradient(relu_args, "gauss_newton", ridge=ridge)
    np.testing.assert_allclose(flat(got), expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    assert health.converged == 1 and health.iterations == 0


@pytest.mark.parametrize("no_double", [False, True])
def test_the_corrected_one_is_the_derivative_of_the_outer_loss_after_one_step(no_double):
    args, r = relu_problem(no_double=no_double), 0.1
    state, real, noise, config = args
    j = jacobian(lambda w: values(w, real.obs0, real.actions), state.critics)
    heads = range(len(state.critics))
    kernels = [j[h :: len(heads)] @ j[h :: len(heads)].T for h in heads]
    smooth = [np.linalg.solve(k + r * np.trace(k) / 4 * np.eye(4), k) for k in kernels]
    q = values(state.critics, real.obs0, real.actions).numpy()
    y = critic_targets(state.target, real, config).numpy()

    def loss(model):
        inner = critic_targets(state.target, in_model(model, real, noise, config), config).numpy()
        return np.mean([(q[:, h] - smooth[h] @ (q[:, h] - inner) - y) ** 2 for h in heads])

    hypergradient, health = gradient(args, "gauss_newton", ridge_relative=r, correct_inner=True)
    direction = like(Draw(5), state.model)
    expected = slope(loss, state.model, direction)
    np.testing.assert_allclose(flat(hypergradient) @ flat(direction), expected, rtol=1e-6)
    assert health.converged == 1


def test_the_corrected_ones_limit_is_value_aware_learning(relu_args):
    state, real, noise, config = relu_args
    _, vaml = loss_and_gradient(vaml_loss, state.model, state.target, real, noise, config)
    options = {"ridge_relative": 1e-10, "correct_inner": True}
    assert_same(gradient(relu_args, "gauss_newton", **options)[0], vaml, 1e-8)


@pytest.mark.parametrize("solver", ["dense", "cg", "minres"])
def test_solvers_use_the_hessian_written_out(solver, relu_args):
    state, f = relu_args[0], optimality(relu_args)
    hessian = jacobian(lambda w: f(w, state.model), state.critics)
    cross = jacobian(lambda model: f(state.critics, model), state.model)
    ridge = 20.0  # makes it definite, so that all three hold
    adjoint = np.linalg.solve(hessian + ridge * np.eye(len(hessian)), flat(cotangent(relu_args)))
    expected = -cross.T @ adjoint
    got, _ = gradient(relu_args, solver, ridge=ridge, **EXACT[solver])
    np.testing.assert_allclose(flat(got), expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_identity_is_the_cotangent_pulled_back(relu_args):
    state, g = relu_args[0], flat(cotangent(relu_args))
    with tf.GradientTape() as tape:
        tape.watch(state.model)
        f = optimality(relu_args)(state.critics, state.model)
        product = tf.add_n(
            [
                tf.reduce_sum(x * y)
                for x, y in zip(
                    tf.nest.flatten(f), tf.nest.flatten(cotangent(relu_args)), strict=True
                )
            ]
        )
    expected = -flat(tape.gradient(product, state.model))
    got, health = gradient(relu_args, "identity")
    np.testing.assert_allclose(flat(got), expected, rtol=1e-12, atol=1e-12)
    norms = (np.linalg.norm(x) for x in (flat(f), g, expected))
    np.testing.assert_allclose(health[-3:], list(norms), rtol=1e-12)


@pytest.mark.parametrize("solver", ["identity", "dense", "gauss_newton"])
def test_the_targets_own_dependence_on_the_critics_is_no_part_of_it(solver, relu_args):
    state, *rest = relu_args
    aliased = state._replace(target=state.critics)  # the very same tensors
    copied = state._replace(target=tf.nest.map_structure(tf.identity, state.critics))
    options = {} if solver == "identity" else {"ridge": 1.0}
    one, other = (gradient((s, *rest), solver, **options)[0] for s in (aliased, copied))
    assert_same(one, other)


def test_the_real_outcome_moves_it_by_the_outer_loss_alone(solved_args):
    state, real, *rest = solved_args
    paid = state, real._replace(rewards=real.rewards + 1), *rest
    difference = flat(gradient(paid)[0]) - flat(gradient(solved_args)[0])
    # The gradient is linear in the outer cotangent, and that in the real reward.
    twice = state, real._replace(rewards=real.rewards + 2), *rest
    assert np.abs(difference).max() > 1e-3
    expected = flat(gradient(solved_args)[0]) + 2 * difference
    np.testing.assert_allclose(flat(gradient(twice)[0]), expected, atol=1e-10)
