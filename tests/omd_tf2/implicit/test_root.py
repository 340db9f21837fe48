"""Implicit gradients against closed forms, finite differences and unrolled solvers, in 64 bits."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common import compile
from omd_tf2.implicit import (
    SolveError,
    custom_root,
    get_solver,
    gradient_of,
    guarded,
    root_vjp,
    solve_inner,
)
from omd_tf2.implicit.linear_solve import solve_cg, solve_dense
from omd_tf2.implicit.structures import transposed

RNG = np.random.default_rng(0)
X = tf.constant(RNG.normal(size=(12, 4)))
Y = tf.constant(RNG.normal(size=12))
COTANGENT = tf.constant(RNG.normal(size=4))
EXACT = {
    "dense": {},
    "cg": {"tol": 1e-13},
    "minres": {"tol": 1e-13},
    "neumann": {"tol": 1e-11, "step_size": 0.05, "max_steps": 1000},
}


def hessian_of(loss_fn, point, *args):
    """v -> H v of the loss in `point`."""
    return transposed(lambda x: gradient_of(loss_fn)(x, *args), point)[1]


def ridge_loss(w, x, y, penalty):
    residual = tf.linalg.matvec(x, w) - y
    return 0.5 * tf.reduce_sum(residual**2) + 0.5 * penalty * tf.reduce_sum(w**2)


def ridge_solution(x, y, penalty):
    hessian = tf.matmul(x, x, transpose_a=True) + penalty * tf.eye(4, dtype=x.dtype)
    return tf.linalg.solve(hessian, tf.linalg.matvec(x, y, True)[:, None])[:, 0]


def ridge_closed_form_gradients():
    """Returns the gradients of COTANGENT . w*, of the closed form of w*."""
    args = (X, Y, tf.constant(0.7, tf.float64))
    with tf.GradientTape() as tape:
        tape.watch(args)
        w = ridge_solution(*args)
        outer = tf.tensordot(COTANGENT, w, 1)
    return args, w, tape.gradient(outer, args)


@pytest.mark.parametrize("name", [*EXACT, "identity"])
def test_ridge_regression_has_its_closed_form_gradient_eagerly_and_compiled(name):
    args, w, expected = ridge_closed_form_gradients()
    solve = get_solver(name, **EXACT.get(name, {}))

    def vjp(w, args, cotangent):
        return root_vjp(gradient_of(ridge_loss), w, args, cotangent, solve)

    vjps, info = vjp(w, args, COTANGENT)
    assert info.converged
    if name in EXACT:
        for got, closed_form in zip(vjps, expected, strict=True):
            np.testing.assert_allclose(got, closed_form, rtol=0, atol=1e-10)
    if name in ("cg", "identity"):  # all solvers are compiled in test_linear_solve.py
        compiled, _ = compile.compiled(vjp)(w, args, COTANGENT)
        for got, same in zip(vjps, compiled, strict=True):
            np.testing.assert_allclose(same, got, rtol=0, atol=1e-12)


def test_quadratic_by_hand():
    # L = w1^2 + 2 w2^2 - w1 a - w2 b: w* = (a / 2, b / 4), so dw*/da = (1/2, 0), dw*/db = (0, 1/4).
    def loss(w, a, b):
        return w["w1"] ** 2 + 2 * w["w2"] ** 2 - w["w1"] * a - w["w2"] * b

    a, b = tf.constant(3.0, tf.float64), tf.constant(8.0, tf.float64)
    w = {"w1": a / 2, "w2": b / 4}
    cotangent = {"w1": tf.constant(10.0, tf.float64), "w2": tf.constant(100.0, tf.float64)}
    (da, db), info = root_vjp(gradient_of(loss), w, (a, b), cotangent, solve_cg)
    np.testing.assert_allclose([da, db], [5.0, 25.0])
    assert info.converged


def contraction(w, theta, bias):
    return tf.tanh(tf.linalg.matvec(theta, w)) + bias


def fixed_point(theta, bias):
    w = tf.zeros_like(bias)
    for _ in range(200):
        w = contraction(w, theta, bias)
    return w


def fixed_point_problem():
    theta = tf.constant(0.3 * RNG.normal(size=(4, 4)))
    bias = tf.constant(RNG.normal(size=4))
    return (theta, bias), fixed_point(theta, bias)


@pytest.mark.parametrize(
    "solve",
    [solve_dense, get_solver("neumann", tol=1e-13, max_steps=500)],
    ids=["dense", "neumann"],
)
def test_fixed_point_without_symmetry_equals_closed_form_and_unrolling(solve):
    args, w = fixed_point_problem()
    vjps, info = root_vjp(lambda w, *a: w - contraction(w, *a), w, args, COTANGENT, solve)
    assert info.converged
    # w = tanh(theta w) + bias: dw/dbias = (I - D theta)^{-1}, D = diag(1 - tanh(theta w)^2).
    slope = 1 - np.tanh(args[0].numpy() @ w.numpy()) ** 2
    adjoint = np.linalg.solve((np.eye(4) - slope[:, None] * args[0].numpy()).T, COTANGENT)
    np.testing.assert_allclose(vjps[1], adjoint, atol=1e-10)
    np.testing.assert_allclose(vjps[0], np.outer(slope * adjoint, w), atol=1e-10)
    with tf.GradientTape() as tape:
        tape.watch(args)
        outer = tf.tensordot(COTANGENT, fixed_point(*args), 1)
    for got, unrolled in zip(vjps, tape.gradient(outer, args), strict=True):
        np.testing.assert_allclose(got, unrolled, atol=1e-10)


def logistic_loss(w, x, theta):
    logits = tf.linalg.matvec(x, w)
    fit = tf.reduce_mean(tf.nn.softplus(logits) - tf.sigmoid(theta) * logits)
    return fit + 0.05 * tf.reduce_sum(w**2)


def solve_logistic(theta, w, steps):
    """Newton's method, until nothing moves."""
    for _ in range(steps):
        gradient = gradient_of(logistic_loss)(w, X, theta)
        w = w - solve_dense(hessian_of(logistic_loss, w, X, theta), gradient)[0]
    return w


def test_gradient_equals_finite_differences_of_the_resolved_inner_problem():
    theta = tf.constant(RNG.normal(size=12))
    w = solve_logistic(theta, tf.zeros(4, tf.float64), 8)
    assert tf.norm(gradient_of(logistic_loss)(w, X, theta)) < 1e-13
    (_, got), _ = root_vjp(
        gradient_of(logistic_loss), w, (X, theta), COTANGENT, get_solver("cg", tol=1e-12)
    )
    step = 1e-5
    for i in range(0, 12, 4):
        nudge = step * tf.one_hot(i, 12, dtype=tf.float64)
        change = solve_logistic(theta + nudge, w, 3) - solve_logistic(theta - nudge, w, 3)
        expected = np.dot(COTANGENT, change) / (2 * step)
        np.testing.assert_allclose(got[i], expected, rtol=1e-6, atol=1e-10)


def test_arguments_that_do_not_matter_get_zeros_and_integers_none():
    def optimality_fn(w, args, rows):
        return {"w": w["w"] - args["used"] * tf.cast(rows, w["w"].dtype)}

    used, unused = tf.ones(3, tf.float64), tf.ones([2, 2], tf.float64)
    args = ({"used": used, "unused": [unused]}, tf.constant([1, 2, 3]))
    solution = {"w": used * [1.0, 2.0, 3.0]}
    vjps, _ = root_vjp(optimality_fn, solution, args, {"w": used}, solve_cg)
    np.testing.assert_allclose(vjps[0]["used"], [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(vjps[0]["unused"][0], np.zeros([2, 2]))
    assert vjps[1] is None


def test_a_stopped_path_gives_zero():
    def optimality_fn(w, a):
        return w - tf.stop_gradient(a)

    ones, twos = tf.ones(2, tf.float64), 2 * tf.ones(2, tf.float64)
    (vjp,), _ = root_vjp(optimality_fn, ones, (twos,), ones, solve_cg)
    np.testing.assert_array_equal(vjp, np.zeros(2))


def test_one_tensor_in_two_roles_keeps_them_apart():
    # L = w^2 - w a b: df/dw = 2, df/da = -b, df/db = -a; at w = a = b = 2 each vjp is 2 / 2 = 1.
    def loss(w, a, b):
        return w**2 - w * a * b

    two, one = tf.constant(2.0, tf.float64), tf.constant(1.0, tf.float64)
    vjps, _ = root_vjp(gradient_of(loss), two, (two, two), one, solve_cg)
    np.testing.assert_allclose(vjps, [1.0, 1.0])
    np.testing.assert_allclose(gradient_of(loss)(two, two, two), 0.0)  # 2 w - a b
    np.testing.assert_allclose(hessian_of(loss, two, two, two)(one), 2.0)


def test_variables_and_sparse_gradients_are_taken_as_tensors():
    table = tf.Variable(RNG.normal(size=(5, 2)))

    def optimality_fn(w, table):
        return w - tf.gather(table, [1, 1])

    w = tf.Variable(tf.gather(table, [1, 1]))
    (vjp,), _ = root_vjp(optimality_fn, w, (table,), tf.ones([2, 2], tf.float64), solve_cg)
    np.testing.assert_allclose(vjp, [[0, 0], [2, 2], [0, 0], [0, 0], [0, 0]])


@pytest.mark.parametrize(
    ("optimality_fn", "cotangent", "message"),
    [
        (lambda w: w, tf.ones(3), r"cotangent has shape \(3,\) where the solution has \(2,\)"),
        (lambda w: w, [tf.ones(2)], "cotangent must be nested like the solution"),
        (lambda w: w[:1], tf.ones(2), r"value has shape \(1,\) where the solution has \(2,\)"),
        (lambda w: {"f": w}, tf.ones(2), "value must be nested like the solution"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(optimality_fn, cotangent, message):
    with pytest.raises(ValueError, match=message):
        root_vjp(optimality_fn, tf.ones(2), (), cotangent, solve_cg)


def test_custom_root_differentiates_the_theorem():
    args, expected_w, expected = ridge_closed_form_gradients()

    @custom_root(gradient_of(ridge_loss), get_solver("cg", tol=1e-13))
    def ridge_regression(initial, x, y, penalty):
        return initial + tf.stop_gradient(ridge_solution(x, y, penalty))  # no path of its own

    def gradients(initial, args):
        with tf.GradientTape() as tape:
            tape.watch((initial, args))
            w = ridge_regression(initial, *args)
            outer = tf.tensordot(COTANGENT, w, 1)
        return w, tape.gradient(outer, (initial, args))

    w, (from_initial, got) = gradients(tf.zeros(4, tf.float64), args)
    np.testing.assert_allclose(w, expected_w, atol=1e-12)
    assert from_initial is None
    for g, e in zip(got, expected, strict=True):
        np.testing.assert_allclose(g, e, atol=1e-10)


@pytest.mark.parametrize("compiled", [False, True])
def test_custom_root_around_an_iterative_solver_with_nested_structures(compiled):
    def optimality_fn(state, theta):
        return {"w": state["w"] - contraction(state["w"], *theta["contraction"])}

    @custom_root(optimality_fn, solve_dense)
    def iterate(initial, theta):
        f = optimality_fn
        state, _ = solve_inner(
            lambda s: f(s, theta), lambda s, v: {"w": s["w"] - v["w"]}, initial, max_steps=200
        )
        return state

    (matrix, bias), _ = fixed_point_problem()
    theta = {"contraction": (matrix, bias), "label": tf.constant(3)}

    def gradients(theta):
        with tf.GradientTape() as tape:
            tape.watch(theta["contraction"])
            w = iterate({"w": tf.zeros(4, tf.float64)}, theta)["w"]
            outer = tf.tensordot(COTANGENT, w, 1)
        return tape.gradient(outer, theta["contraction"])

    got = (tf.function(gradients, jit_compile=True) if compiled else gradients)(theta)
    with tf.GradientTape() as tape:
        tape.watch((matrix, bias))
        outer = tf.tensordot(COTANGENT, fixed_point(matrix, bias), 1)
    for g, unrolled in zip(got, tape.gradient(outer, (matrix, bias)), strict=True):
        np.testing.assert_allclose(g, unrolled, atol=1e-10)


def test_custom_root_differentiates_variables_passed_as_arguments():
    penalty = tf.Variable(0.7, dtype=tf.float64)
    _, _, expected = ridge_closed_form_gradients()
    solver = custom_root(gradient_of(ridge_loss), solve_dense)(
        lambda _, *args: ridge_solution(*args)
    )
    with tf.GradientTape() as tape:
        outer = tf.tensordot(COTANGENT, solver(tf.zeros(4, tf.float64), X, Y, penalty), 1)
    np.testing.assert_allclose(tape.gradient(outer, penalty), expected[2], atol=1e-10)


def test_custom_root_refuses_a_variable_of_the_closure():
    penalty = tf.Variable(0.7, dtype=tf.float64)
    solver = custom_root(gradient_of(ridge_loss), solve_dense)(
        lambda _, x, y: ridge_solution(x, y, penalty)
    )
    with pytest.raises(TypeError), tf.GradientTape() as tape:
        tape.watch(X)
        solver(tf.zeros(4, tf.float64), X, Y)


def test_custom_root_never_uses_a_failed_solve_unasked():
    args, _, _ = ridge_closed_form_gradients()

    def gradients(args, **options):
        solve = get_solver("cg", max_steps=1, tol=1e-13)
        solver = custom_root(gradient_of(ridge_loss), solve, **options)(
            lambda _, *args: ridge_solution(*args)
        )
        with tf.GradientTape() as tape:
            tape.watch(args)
            outer = tf.tensordot(COTANGENT, solver(tf.zeros(4, tf.float64), *args), 1)
        return tape.gradient(outer, args)

    with pytest.raises(SolveError, match="did not converge"):
        gradients(args)
    assert np.isnan(compile.compiled(gradients)(args)[2])
    w = ridge_solution(*args)
    plain, _ = root_vjp(gradient_of(ridge_loss), w, args, COTANGENT, get_solver("identity"))
    np.testing.assert_allclose(gradients(args, on_failure="identity")[2], plain[2])


def derivatives(function, theta, order=3):
    """The first derivatives of a scalar function of a scalar, by nested tapes."""
    if order == 0:
        return [function(theta)]
    with tf.GradientTape() as tape:
        tape.watch(theta)
        lower = derivatives(function, theta, order - 1)
    return [*lower, tape.gradient(lower[-1], theta)]


HOW = [("dense", False), ("cg", False), ("cg", True), ("minres", False), ("neumann", False)]


@pytest.mark.parametrize("name, compiled", HOW)
def test_higher_derivatives_by_hand(name, compiled):
    # x = theta^2 = 9: 6, 2, 0; L = x^2 = theta^4: 4 theta^3, 12 theta^2, 24 theta.
    options = EXACT[name] | ({"step_size": 0.5} if name == "neumann" else {})
    root = custom_root(lambda x, theta: x - theta**2, get_solver(name, **options))(
        lambda initial, theta: initial + theta**2
    )
    zero, three = tf.constant(0.0, tf.float64), tf.constant(3.0, tf.float64)
    by_hand = {1: [9, 6, 2, 0], 2: [81, 108, 108, 72]}
    for power in [2] if compiled else by_hand:

        def loss(theta, power=power):
            return root(zero, theta) ** power

        call = functools.partial(derivatives, loss)
        got = (compile.compiled(call) if compiled else call)(three)
        np.testing.assert_allclose(got, by_hand[power], rtol=1e-9)


@pytest.mark.parametrize("name", ["dense", "cg"])
def test_a_compiled_function_has_them_from_outside_too(name):
    root = custom_root(lambda x, theta: x - theta**2, get_solver(name, **EXACT[name]))(
        lambda initial, theta: initial + theta**2
    )
    zero, three = tf.constant(0.0, tf.float64), tf.constant(3.0, tf.float64)
    compiled = compile.compiled(lambda theta: root(zero, theta) ** 2)
    np.testing.assert_allclose(derivatives(compiled, three), [81, 108, 108, 72], rtol=1e-9)


def hessian_product(outer, args, direction):
    """The gradients of <gradients of outer(*args), direction>."""
    with tf.GradientTape() as tape:
        tape.watch(args)
        with tf.GradientTape() as inner:
            inner.watch(args)
            value = outer(*args)
        slopes = inner.gradient(value, args)
        along = tf.add_n([tf.reduce_sum(s * d) for s, d in zip(slopes, direction, strict=True)])
    return tape.gradient(along, args)


def assert_same_hessian(solver, reference, args, compiled):
    """Of a scalar that is not linear in the solution; along two random directions."""
    direction = [tf.constant(RNG.normal(size=x.shape)) for x in args]

    def product(solution):
        def outer(*args):
            w = solution(*args)
            return tf.tensordot(COTANGENT, w, 1) + tf.reduce_sum(w**3)

        return lambda args: hessian_product(outer, args, direction)

    got = product(lambda *args: solver(tf.zeros(4, tf.float64), *args))
    got = (compile.compiled(got) if compiled else got)(args)
    for g, e in zip(got, product(reference)(args), strict=True):
        assert np.abs(e).max() > 1e-3
        np.testing.assert_allclose(g, e, atol=1e-8)


@pytest.mark.parametrize("name, compiled", HOW)
def test_second_derivatives_of_ridge_regression_are_its_closed_forms(name, compiled):
    solver = custom_root(gradient_of(ridge_loss), get_solver(name, **EXACT[name]))(
        lambda _, *args: ridge_solution(*args)
    )
    args = X, Y, tf.constant(0.7, tf.float64)
    assert_same_hessian(solver, ridge_solution, args, compiled)


def test_second_derivatives_without_symmetry_are_those_of_unrolling():
    args, _ = fixed_point_problem()
    solver = custom_root(lambda w, *args: w - contraction(w, *args), solve_dense)(
        lambda _, *args: fixed_point(*args)
    )
    assert_same_hessian(solver, fixed_point, args, compiled=False)


def test_an_implicit_gradient_is_linear_in_the_cotangent_and_has_a_slope_in_the_solution():
    # f = w^3 - a: vjp = c / (3 w^2), so d/dc = 1 / (3 w^2) = 1 / 12, d/dw = -2 c / (3 w^3) = -5 / 12.
    w, a, c = (tf.constant(x, tf.float64) for x in (2.0, 8.0, 5.0))
    with tf.GradientTape() as tape:
        tape.watch((w, a, c))
        (vjp,), _ = root_vjp(lambda w, a: w**3 - a, w, (a,), c, solve_dense)
    got = tape.gradient(vjp, (w, a, c), unconnected_gradients=tf.UnconnectedGradients.ZERO)
    np.testing.assert_allclose([vjp, *got], [5 / 12, -5 / 12, 0, 1 / 12], rtol=1e-12)


@pytest.mark.parametrize("compiled", [False, True])
def test_forward_mode_is_refused_by_name(compiled):
    args, w, _ = ridge_closed_form_gradients()
    solver = custom_root(gradient_of(ridge_loss), solve_dense)(
        lambda _, *args: ridge_solution(*args)
    )

    def slope(fn, x):
        with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as accumulator:
            out = fn(x)
        return accumulator.jvp(out)

    def root(y):
        return solver(tf.zeros(4, tf.float64), X, y, args[2])

    def vjp(cotangent):
        return root_vjp(gradient_of(ridge_loss), w, args, cotangent, solve_dense)[0][2]

    call = compile.compiled(slope) if compiled else slope
    for fn, x in ((root, Y), (vjp, COTANGENT)):
        with pytest.raises(NotImplementedError, match="no forward mode .*: take tf.GradientTape"):
            call(fn, x)


@pytest.mark.parametrize("on_failure", ["use", "identity"])
def test_gauss_newton_has_no_second_derivatives_and_says_so(on_failure):
    # f = (w - a) / 2 of one sample's residual w - a: the vjp in a is the cotangent's own value.
    one = tf.ones([1], tf.float64)
    options = {"residual_fn": lambda w, rows: w[None, 0] * rows, "outer_residuals": one}
    solve = guarded(get_solver("gauss_newton", solution=one, batch=one, **options), on_failure)
    with tf.GradientTape() as tape:
        tape.watch(one)
        (vjp,), _ = root_vjp(lambda w, a: w - a, one, (one,), one, solve)
    np.testing.assert_allclose(vjp, [1.0])
    with pytest.raises(NotImplementedError, match="second derivatives need another solver"):
        tape.gradient(vjp, one)


@pytest.mark.parametrize("on_failure", ["use", "stop"])
def test_the_adjoint_is_returned_to_who_asks_and_the_next_solve_starts_there(on_failure):
    args, w, _ = ridge_closed_form_gradients()
    solve = guarded(get_solver("cg", tol=1e-12), on_failure)
    call = functools.partial(root_vjp, gradient_of(ridge_loss), w, args, COTANGENT)
    first, info, adjoint = call(solve, return_adjoint=True)
    hessian = tf.transpose(X) @ X + 0.7 * tf.eye(4, dtype=tf.float64)
    np.testing.assert_allclose(tf.linalg.matvec(hessian, adjoint), COTANGENT, atol=1e-10)
    again, started = call(solve, x0=adjoint)
    assert started.iterations == 0 < info.iterations
    for a, b in zip(again, first, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)
    with pytest.raises(TypeError, match="x0"):
        call(guarded(solve_dense, on_failure), x0=adjoint)


def test_fallback_keeps_the_failed_solve_in_the_info():
    args, w, _ = ridge_closed_form_gradients()
    solve = guarded(get_solver("cg", max_steps=1, tol=1e-13), "identity")
    _, info = root_vjp(gradient_of(ridge_loss), w, args, COTANGENT, solve)
    assert not info.converged and info.iterations == 1 and info.relative_residual > 0
