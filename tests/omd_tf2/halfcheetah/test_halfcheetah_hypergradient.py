"""The model's gradient against finite differences of the solved problem, and matrices written out.

Everything in 64 bits. Linear critics make the inner problem one of least squares, whose solution is
known; its target critics, actor and model are no less nonlinear for it.
"""

import numpy as np
import pytest
import tensorflow as tf

from omd_tf2.common.solver import SolverConfig
from omd_tf2.halfcheetah.sac import critic_loss, critic_targets, in_model, sample_actions, values
from omd_tf2.halfcheetah.update import (
    model_critic_loss,
    model_gradient,
    model_loss_and_gradient,
    outer_gradient,
)
from omd_tf2.implicit import gradient_of
from tests.omd_tf2.halfcheetah.small import A, make_batch, make_config, make_state
from tests.omd_tf2.small import Draw, assert_same, flat, jacobian

MANY = 14  # transitions: more than a linear critic's 6 weights
EXACT = {"dense": {}, "cg": {"tol": 1e-13}, "minres": {"tol": 1e-13}}


def problem(num, critic_hidden, seed=0):
    """(state, real, noise), the target critics of another depth than the critics."""
    draw = Draw(seed)
    state = make_state(draw, critic_hidden)
    state = state._replace(target=make_state(draw)._asdict()["critics"])
    return state, make_batch(draw, num), draw(num, A)


def gradient(args, solver="dense", **options):
    config = make_config(solver=SolverConfig(solver, **options))
    return model_gradient(*args, config)[1:]


def inner_matrix(args):
    """J of the residuals sqrt(2) (Q - y), [2 B, weights]."""
    state, real, _ = args
    return np.sqrt(2) * jacobian(lambda c: values(c, real.obs0, real.actions), state.critics)


def cross_term(args):
    """df/dmodel, [critics' weights, model's weights]."""
    state, real, noise = args
    f = gradient_of(model_critic_loss)
    return jacobian(
        lambda model: f(state.critics, model, state, real, noise, make_config()), state.model
    )


def targets_in(args, model):
    """y in `model`; the next actions stay those of the state's own, since their dependence is cut."""
    state, real, noise = args
    actions, log_prob = sample_actions(
        state.actor, in_model(state.model, real, noise, make_config()).obs1, noise
    )
    batch = in_model(model, real, noise, make_config())
    lowest = tf.reduce_min(values(state.target, batch.obs1, actions), -1)
    soft = lowest - tf.exp(state.log_temperature) * log_prob
    return batch.rewards + 0.9 * (1 - real.terminals1) * soft


def solved(args, model):
    """The state whose linear critics minimise the inner loss in `model`, by least squares."""
    state, real, _ = args
    y = targets_in(args, model)
    x = np.concatenate([real.obs0, real.actions, np.ones((len(y), 1))], 1)
    weights = np.linalg.lstsq(x, y.numpy(), rcond=None)[0]
    critic = ((tf.constant(weights[:-1, None]), tf.constant(weights[-1:])),)
    return state._replace(critics=(critic, critic))


def outer_loss(args, model):
    state, real, noise = solved(args, model), *args[1:]
    y = critic_targets(state.target, state.actor, state.log_temperature, real, noise, 0.9)
    return float(critic_loss(state.critics, real, y))


@pytest.fixture(scope="module")
def solved_args():
    args = problem(MANY, ())
    return solved(args, args[0].model), *args[1:]


@pytest.fixture(scope="module")
def relu_args():
    """As in training: more weights than samples, critics of two hidden layers, not solved."""
    return problem(4, (4, 3))


@pytest.fixture(scope="module")
def relu_cross_term(relu_args):
    return cross_term(relu_args)


@pytest.fixture(scope="module")
def relu_hessian(relu_args):
    """Of the inner loss, [critics' weights, critics' weights]."""
    (state, real, noise), f = relu_args, gradient_of(model_critic_loss)
    return jacobian(lambda c: f(c, state.model, state, real, noise, make_config()), state.critics)


def test_it_is_the_derivative_of_the_solved_problems_outer_loss(solved_args):
    hypergradient, health = gradient(solved_args)
    assert health.optimality_norm < 1e-12 and health.relative_residual < 1e-12
    model, draw, h = solved_args[0].model, Draw(5), 1e-6

    def loss_at(step, direction):
        moved = tf.nest.map_structure(lambda x, d: x + step * d, model, direction)
        return outer_loss(solved_args, moved)

    for _ in range(5):
        direction = tf.nest.map_structure(lambda x: draw(*x.shape), model)
        slope = (loss_at(h, direction) - loss_at(-h, direction)) / (2 * h)
        np.testing.assert_allclose(flat(hypergradient) @ flat(direction), slope, rtol=1e-6)


@pytest.mark.parametrize("solver", EXACT)
def test_the_exact_solvers_agree(solver, solved_args):
    expected = flat(gradient(solved_args)[0])
    got, health = gradient(solved_args, solver, **EXACT[solver])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(flat(got), expected, rtol=0, atol=1e-8 * scale)
    assert health.converged == 1 and health.negative_curvature == 0


def test_gauss_newton_in_the_dual_is_exact_for_critics_linear_in_their_weights():
    args = problem(4, ())  # 8 residuals, 12 weights
    got, health = gradient(args, "gauss_newton", ridge=0.1)
    expected, _ = gradient(args, "dense", ridge=0.1)
    np.testing.assert_allclose(flat(got), flat(expected), rtol=1e-9, atol=1e-9)
    assert health.converged == 1 and health.iterations == 0


@pytest.mark.parametrize("ridge", [1e-3, 1.0])
def test_gauss_newton_equals_its_matrix_written_out(ridge, relu_args, relu_cross_term):
    j, num = inner_matrix(relu_args), 4
    assert j.shape[0] < j.shape[1]
    matrix = j.T @ j / num + ridge * np.eye(j.shape[1])
    adjoint = np.linalg.solve(matrix, flat(outer_gradient(*relu_args, make_config())[1]))
    expected = -relu_cross_term.T @ adjoint
    got, health = gradient(relu_args, "gauss_newton", ridge=ridge)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(flat(got), expected, rtol=0, atol=1e-9 * scale)
    assert health.converged == 1
    norm = np.linalg.norm(flat(outer_gradient(*relu_args, make_config())[1]))
    np.testing.assert_allclose(health.cotangent_norm, norm, rtol=1e-12)


@pytest.mark.parametrize("r", [1e-2, 1.0])
def test_the_corrected_one_is_the_derivative_of_the_outer_loss_after_one_step(r, relu_args):
    state, real, noise = relu_args
    kernels = [j @ j.T for j in (inner_matrix(relu_args)[h::2] for h in range(2))]
    smooth = [np.linalg.solve(k + r * np.trace(k) / 4 * np.eye(4), k) for k in kernels]
    q = values(state.critics, real.obs0, real.actions).numpy()
    y = critic_targets(state.target, state.actor, state.log_temperature, real, noise, 0.9).numpy()

    def loss_at(step, direction):
        model = tf.nest.map_structure(lambda x, d: x + step * d, state.model, direction)
        inner = targets_in(relu_args, model).numpy()
        left = [q[:, h] - smooth[h] @ (q[:, h] - inner) - y for h in range(2)]
        return np.sum(np.square(left)) / 4

    options = {"ridge_relative": r, "correct_inner": True}
    hypergradient, health = gradient(relu_args, "gauss_newton", **options)
    draw, h = Draw(5), 1e-6
    for _ in range(3):
        direction = tf.nest.map_structure(lambda x: draw(*x.shape), state.model)
        slope = (loss_at(h, direction) - loss_at(-h, direction)) / (2 * h)
        np.testing.assert_allclose(flat(hypergradient) @ flat(direction), slope, rtol=1e-6)
    assert health.converged == 1


def test_the_corrected_ones_limit_is_value_aware_learning(relu_args):
    state, real, noise = relu_args
    options = {"ridge_relative": 1e-10, "correct_inner": True}
    got, _ = gradient(relu_args, "gauss_newton", **options)
    vaml = model_loss_and_gradient(state, real, noise, make_config(agent="vaml"))[1]
    expected = 2 * flat(vaml)  # one for each critic
    np.testing.assert_allclose(flat(got), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize("solver", ["dense", "cg", "minres"])
def test_solvers_use_the_hessian_written_out(solver, relu_args, relu_cross_term, relu_hessian):
    ridge = 20.0  # makes it definite, so that all three hold
    matrix = relu_hessian + ridge * np.eye(len(relu_hessian))
    adjoint = np.linalg.solve(matrix, flat(outer_gradient(*relu_args, make_config())[1]))
    expected = -relu_cross_term.T @ adjoint
    options = {"ridge": ridge} | EXACT[solver]
    np.testing.assert_allclose(
        flat(gradient(relu_args, solver, **options)[0]), expected, rtol=1e-9, atol=1e-9
    )


def test_identity_is_the_cotangent_pulled_back(relu_args):
    state, real, noise = relu_args
    cotangent = outer_gradient(*relu_args, make_config())[1]
    with tf.GradientTape() as tape:
        tape.watch(state.model)
        with tf.GradientTape() as inner:
            inner.watch(state.critics)
            loss = model_critic_loss(state.critics, state.model, state, real, noise, make_config())
        f = inner.gradient(loss, state.critics)
        product = sum(
            tf.reduce_sum(x * y)
            for x, y in zip(tf.nest.flatten(f), tf.nest.flatten(cotangent), strict=True)
        )
    expected = -flat(tape.gradient(product, state.model))
    got, health = gradient(relu_args, "identity")
    np.testing.assert_allclose(flat(got), expected, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(health.optimality_norm, np.linalg.norm(flat(f)), rtol=1e-12)
    np.testing.assert_allclose(health.cotangent_norm, np.linalg.norm(flat(cotangent)), rtol=1e-12)
    np.testing.assert_allclose(health.hypergradient_norm, np.linalg.norm(expected), rtol=1e-12)


@pytest.mark.parametrize("solver", ["identity", "dense", "gauss_newton"])
def test_the_targets_own_dependence_on_the_critics_is_no_part_of_it(solver, relu_args):
    state, real, noise = relu_args
    aliased = state._replace(target=state.critics)  # the very same tensors
    copied = state._replace(target=tf.nest.map_structure(tf.identity, state.critics))
    options = {} if solver == "identity" else {"ridge": 1.0}
    one, other = (gradient((s, real, noise), solver, **options)[0] for s in (aliased, copied))
    assert_same(one, other)


def test_the_inner_loss_knows_no_real_outcome(relu_args):
    state, real, noise = relu_args

    def inner(batch):
        with tf.GradientTape() as tape:
            tape.watch(state.critics)
            loss = model_critic_loss(state.critics, state.model, state, batch, noise, make_config())
        return loss, tape.gradient(loss, state.critics)

    outcome = real._replace(rewards=real.rewards + 100, obs1=real.obs1 - 100)
    assert_same(inner(outcome), inner(real))
    for name in ("obs0", "actions", "terminals1"):
        other = real._replace(**{name: 1 - getattr(real, name)})
        assert not np.isclose(inner(other)[0], inner(real)[0])


def test_the_outer_loss_is_the_real_batchs(relu_args):
    state, real, noise = relu_args
    loss, cotangent = outer_gradient(*relu_args, make_config())
    y = critic_targets(state.target, state.actor, state.log_temperature, real, noise, 0.9)
    errors = values(state.critics, real.obs0, real.actions) - y[:, None]
    np.testing.assert_allclose(loss, np.sum(errors**2) / 4, rtol=1e-13)  # 4 transitions
    # the mean of squares is |residuals of J|^2 / (2 B): its gradient is J^T sqrt(2) (Q - y) / B
    expected = inner_matrix(relu_args).T @ np.ravel(np.sqrt(2) * errors) / 4
    np.testing.assert_allclose(flat(cotangent), expected, rtol=1e-12, atol=1e-12)


FAILING = {"tol": 1e-13, "max_steps": 1}


def test_a_failed_solve_is_used_or_replaced_as_told_and_reported(relu_args):
    used, health = gradient(relu_args, "cg", on_failure="use", **FAILING)
    replaced, same_health = gradient(relu_args, "cg", on_failure="identity", **FAILING)
    identity, _ = gradient(relu_args, "identity")
    assert_same(replaced, identity)
    assert not np.allclose(flat(used), flat(identity))
    for h in (health, same_health):
        assert (h.converged, h.iterations) == (0, 1) and h.relative_residual > 1e-3


def test_a_failed_solve_that_is_to_stop_the_run_leaves_nothing_to_use(relu_args):
    marked, health = gradient(relu_args, "cg", **FAILING)
    assert np.isnan(flat(marked)).all() and health.converged == 0  # `SolverConfig.check` stops it
