"""The dual Gauss-Newton solve against its primal written out, in 64 bits."""

import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common.compile import compiled
from omd_tf2.implicit import dense_layers_kernel, get_solver, gradient_of, root_vjp
from omd_tf2.implicit.gauss_newton import inverse_factor, solve_gauss_newton, target_weights
from omd_tf2.implicit.linear_solve import solve_cg, solve_dense
from omd_tf2.implicit.structures import linearised
from tests.omd_tf2 import small
from tests.omd_tf2.small import flat

RNG = np.random.default_rng(0)
SAMPLES, HEADS = 6, 2


def tensor(*shape):
    return tf.constant(RNG.normal(size=shape))


def mlp(inputs=3, hidden=4):
    return [(tensor(inputs, hidden), tensor(hidden)), (tensor(hidden, 1), tensor(1))]


def forward(layers, x):
    """Returns the output `[B]`, each layer's input, and its output before the activation."""
    inputs, outputs = [], []
    for weights, bias in layers:
        inputs.append(x)
        outputs.append(x @ weights + bias)
        x = tf.tanh(outputs[-1])
    return outputs[-1][:, 0], inputs, outputs


def one_head(layers, batch):
    return forward(layers, batch["x"])[0] - batch["y"]


def separate_heads(heads, batch):
    return tf.stack([one_head(layers, batch) for layers in heads], 1)


def coupled_heads(layers, batch):
    residual = one_head(layers, batch)
    return tf.stack([residual, residual**2], 1)


BATCH = {"x": tensor(SAMPLES, 3), "y": tensor(SAMPLES)}
PROBLEMS = {
    "one": (one_head, mlp(), {}),
    "coupled": (coupled_heads, mlp(), {}),
    "independent": (separate_heads, [mlp() for _ in range(HEADS)], {"independent_heads": True}),
    "independent, treated as coupled": (separate_heads, [mlp() for _ in range(HEADS)], {}),
}


def jacobian(residual_fn, solution, batch):
    """Returns J `[residuals, parameters]`, written out."""
    return small.jacobian(lambda solution: residual_fn(solution, batch), solution)


def unflat(vector, like):
    leaves = tf.nest.flatten(like)
    parts = np.split(vector, np.cumsum([leaf.shape.num_elements() for leaf in leaves])[:-1])
    parts = [tf.constant(p.reshape(leaf.shape)) for p, leaf in zip(parts, leaves, strict=True)]
    return tf.nest.pack_sequence_as(like, parts)


def never(vector):
    raise AssertionError("Gauss-Newton has a matrix of its own")


@pytest.mark.parametrize("problem", PROBLEMS)
def test_dual_equals_primal_eagerly_and_compiled(problem):
    residual_fn, solution, options = PROBLEMS[problem]
    e = tensor(*residual_fn(solution, BATCH).shape)
    j = jacobian(residual_fn, solution, BATCH)
    assert j.shape[0] < j.shape[1]
    b = j.T @ np.ravel(e) / SAMPLES
    primal = np.linalg.solve(j.T @ j / SAMPLES + 1e-3 * np.eye(j.shape[1]), b)
    options = options | {"residual_fn": residual_fn, "batch": BATCH, "ridge": 1e-3, "tol": 1e-9}

    def solve(b, solution, e):
        with_e = get_solver("gauss_newton", solution=solution, outer_residuals=e, **options)
        without_e = get_solver("gauss_newton", solution=solution, **options)
        return with_e(never, b), without_e(never, b)

    args, scale = (unflat(b, solution), solution, e), np.abs(primal).max()
    for x, info in solve(*args):
        np.testing.assert_allclose(flat(x), primal, rtol=0, atol=1e-9 * scale)
        assert info.converged and info.iterations == 0 and not info.negative_curvature
    if problem == "coupled":  # heads of their own are compiled below
        same, _ = compiled(lambda *args: solve(*args)[0])(*args)
        np.testing.assert_allclose(flat(same), primal, rtol=0, atol=1e-9 * scale)


def test_more_residuals_than_parameters_is_solved_by_cg_for_any_b():
    batch = {"x": tensor(40, 3), "y": tensor(40)}
    solution = mlp(hidden=2)
    j = jacobian(one_head, solution, batch)
    assert j.shape[0] >= j.shape[1]
    b = RNG.normal(size=j.shape[1])
    solver = get_solver(
        "gauss_newton", residual_fn=one_head, solution=solution, batch=batch, ridge=0.1, tol=1e-12
    )
    x, info = solver(never, unflat(b, solution))
    expected = np.linalg.solve(j.T @ j / 40 + 0.1 * np.eye(j.shape[1]), b)
    np.testing.assert_allclose(flat(x), expected, atol=1e-9)
    assert info.converged and info.iterations > 0


def test_dual_equals_cg_on_the_same_matrix():
    residual_fn, solution, _ = PROBLEMS["one"]
    j = tf.constant(jacobian(residual_fn, solution, BATCH))
    b = tf.linalg.matvec(j, tensor(SAMPLES), transpose_a=True)
    solver = get_solver(
        "gauss_newton", residual_fn=residual_fn, solution=solution, batch=BATCH, ridge=0.1
    )
    x, _ = solver(never, unflat(b.numpy(), solution))
    matrix = tf.matmul(j, j, transpose_a=True) / SAMPLES
    expected, _ = solve_cg(lambda v: tf.linalg.matvec(matrix, v), b, ridge=0.1, tol=1e-13)
    np.testing.assert_allclose(flat(x), expected, rtol=1e-8)


def test_repeated_samples_make_a_singular_kernel():
    batch = tf.nest.map_structure(lambda t: tf.repeat(t[:3], 2, 0), BATCH)  # K has rank 3 of 6
    solution = mlp()
    j = jacobian(one_head, solution, batch)
    b = j.T @ RNG.normal(size=SAMPLES) / SAMPLES
    options = {"residual_fn": one_head, "solution": solution, "batch": batch, "tol": 1e-9}
    x, info = get_solver("gauss_newton", ridge=1e-3, **options)(never, unflat(b, solution))
    expected = np.linalg.solve(j.T @ j / SAMPLES + 1e-3 * np.eye(j.shape[1]), b)
    np.testing.assert_allclose(flat(x), expected, atol=1e-9 * np.abs(expected).max())
    assert info.converged
    _, info = get_solver("gauss_newton", **options)(never, unflat(b, solution))
    assert not info.converged  # without a ridge the rounding is divided by next to nothing


def test_the_corrected_step_by_hand():
    # K = diag(4, 16) / 2, mean eigenvalue 5, ridge 1; S = diag(2/3, 8/9); e - S r = (1, 1);
    # (K + 1)^-1 of that (1/3, 1/9); J^T / 2 of that.
    x, info = solve_gauss_newton(
        never,
        tf.zeros(3, tf.float64),  # of e itself: the corrected one takes its place
        residual_fn=lambda w, slopes: slopes * w[:2],
        solution=tensor(3),
        batch=tf.constant([2.0, 4.0], tf.float64),
        outer_residuals=tf.constant([3.0, 9.0], tf.float64),
        inner_residuals=tf.constant([3.0, 9.0], tf.float64),
        kernel=tf.constant([[2.0, 0.0], [0.0, 8.0]], tf.float64),
        ridge_relative=0.2,
        correct_inner=True,
    )
    np.testing.assert_allclose(x, [1 / 3, 2 / 9, 0], rtol=1e-14)
    assert info.converged and info.relative_residual < 1e-14


def targets(theta):
    """Of the inner problem, [B]: nonlinear in theta."""
    return tf.sin(tf.linalg.matvec(BATCH["x"], theta)) + theta[0] * theta[1]


def inner_residuals(layers, theta):
    return forward(layers, BATCH["x"])[0] - targets(theta)


def corrected_gradient(ridge_relative, solution, theta, correct_inner=True):
    """The hypergradient in theta of mean((Q - y)^2) / 2, and the solve's health."""

    def inner_loss(layers, theta):
        return tf.reduce_mean(inner_residuals(layers, theta) ** 2) / 2

    e, _, vjp = linearised(lambda layers: one_head(layers, BATCH), solution)
    solve = get_solver(
        "gauss_newton",
        residual_fn=one_head,
        solution=solution,
        batch=BATCH,
        outer_residuals=e,
        inner_residuals=inner_residuals(solution, theta),
        ridge_relative=ridge_relative,
        correct_inner=correct_inner,
    )
    f = gradient_of(inner_loss)
    (gradient,), info = root_vjp(f, solution, (theta,), vjp(e / SAMPLES), solve)
    return gradient, info


@pytest.mark.parametrize("hidden", [4, 1])  # more parameters than residuals, and fewer
@pytest.mark.parametrize("r", [1e-3, 0.1, 10.0])
def test_the_corrected_one_is_the_derivative_of_the_outer_loss_after_one_step(r, hidden):
    solution, theta = mlp(inputs=3, hidden=hidden), tensor(3)
    if hidden == 1:
        solution = solution[:1]  # 4 parameters
    j = jacobian(one_head, solution, BATCH)
    assert (j.shape[0] < j.shape[1]) == (hidden == 4)
    kernel = j @ j.T / SAMPLES
    smooth = np.linalg.solve(kernel + r * np.trace(kernel) / SAMPLES * np.eye(SAMPLES), kernel)

    def outer_loss(theta):  # the step's predictions, linearised: Q - S (Q - y_model)
        left = one_head(solution, BATCH) - smooth @ inner_residuals(solution, theta).numpy()
        return float(np.sum(left**2) / (2 * SAMPLES))

    gradient, info = corrected_gradient(r, solution, theta)
    h = 1e-6
    slopes = [(outer_loss(theta + h * d) - outer_loss(theta - h * d)) / (2 * h) for d in np.eye(3)]
    np.testing.assert_allclose(gradient, slopes, rtol=1e-6)
    assert info.converged


def test_its_limits_are_the_identity_and_value_aware_learning():
    solution, theta = mlp(hidden=4), tensor(3)
    j = jacobian(one_head, solution, BATCH)
    rows = jacobian(lambda theta, _: targets(theta), theta, None)  # d y / d theta
    e = one_head(solution, BATCH).numpy()
    mean_eigenvalue = np.trace(j @ j.T) / SAMPLES**2

    def cosine(a, b):
        return a @ b / np.linalg.norm(a) / np.linalg.norm(b)

    gradient, _ = corrected_gradient(1e9, solution, theta)
    identity = rows.T @ (j @ (j.T @ e)) / SAMPLES**2  # the targets moved by K E
    assert cosine(gradient.numpy(), identity) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(gradient * 1e9 * mean_eigenvalue, identity, rtol=1e-6)

    gradient, info = corrected_gradient(1e-12, solution, theta)
    with tf.GradientTape() as tape:
        tape.watch(theta)
        vaml = tf.reduce_mean((targets(theta) - BATCH["y"]) ** 2) / 2
    vaml = tape.gradient(vaml, theta).numpy()
    assert cosine(gradient.numpy(), vaml) == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(gradient, vaml, rtol=1e-6)
    assert info.converged
    plain, _ = corrected_gradient(1e-12, solution, theta, correct_inner=False)
    expected = rows.T @ e / SAMPLES  # without the correction all of E
    np.testing.assert_allclose(plain, expected, rtol=1e-6)


def test_a_relative_ridge_and_the_correction_are_each_heads_own_eagerly_and_compiled():
    # heads of quite different scales: together they give what each gives alone
    heads = [mlp(), tf.nest.map_structure(lambda w: 3 * w, mlp())]
    e, r = tensor(SAMPLES, HEADS), tensor(SAMPLES, HEADS)
    options = {"batch": BATCH, "ridge_relative": 0.1, "correct_inner": True}

    def solve(residual_fn, solution, e, r, **more):
        b = tf.nest.map_structure(tf.zeros_like, solution)
        return solve_gauss_newton(
            never,
            b,
            residual_fn=residual_fn,
            solution=solution,
            outer_residuals=e,
            inner_residuals=r,
            **options,
            **more,
        )

    def together(heads, e, r, kernel=None):
        return solve(separate_heads, heads, e, r, independent_heads=True, kernel=kernel)

    jacobians = [jacobian(one_head, layers, BATCH) for layers in heads]
    kernels = [j @ j.T / SAMPLES for j in jacobians]
    x, info = together(heads, e, r)
    assert info.converged
    for same, _ in (together(heads, e, r, tf.constant(kernels)), compiled(together)(heads, e, r)):
        np.testing.assert_allclose(flat(same), flat(x), rtol=0, atol=1e-12 * np.abs(flat(x)).max())
    for h, layers in enumerate(heads):
        alone, _ = solve(one_head, layers, e[:, h], r[:, h])
        np.testing.assert_allclose(flat(x[h]), flat(alone), rtol=0, atol=1e-10)
        ridge = 0.1 * np.trace(kernels[h]) / SAMPLES * np.eye(SAMPLES)
        corrected = e[:, h] - kernels[h] @ np.linalg.solve(kernels[h] + ridge, r[:, h])
        expected = jacobians[h].T @ np.linalg.solve(kernels[h] + ridge, corrected) / SAMPLES
        np.testing.assert_allclose(flat(x[h]), expected, rtol=0, atol=1e-10)


def ill_conditioned(dtype, outside=0.0, **options):
    """Samples of nearly one direction: the largest eigenvalue, 9e4, is almost all of the trace."""
    rng = np.random.default_rng(0)
    x = 30 + rng.normal(size=(40, 100))
    e = rng.normal(size=40)
    b = x.T @ e / 40 + outside * rng.normal(size=100)
    x, e, b = (tf.constant(a, dtype) for a in (x, e, b))
    return solve_gauss_newton(
        never,
        b,
        residual_fn=lambda w, rows: tf.linalg.matvec(rows, w),
        solution=tf.zeros(100, dtype),
        batch=x,
        outer_residuals=e,
        kernel=tf.matmul(x, x, transpose_b=True) / 40,
        **options,
    )[1]


@pytest.mark.parametrize("options", [{"ridge": 10.0}, {"ridge_relative": 0.01}])
def test_the_tolerance_follows_the_conditioning(options):
    single = ill_conditioned("float32", **options)
    assert 1e-5 < single.relative_residual < 1e-2 and single.converged
    double = ill_conditioned("float64", tol=1e-9, **options)
    assert double.relative_residual < 1e-9 and double.converged
    for dtype in ("float32", "float64"):  # but does not excuse what is no rounding
        assert not ill_conditioned(dtype, outside=10.0, **options).converged


def test_the_tolerance_is_never_loosened_beyond_a_percent():
    info = ill_conditioned("float32", outside=1.0, ridge=1e-3)
    assert 1e-2 < info.relative_residual < 1 and not info.converged


def test_a_ridge_below_rounding_is_the_same_one_in_the_correction():
    n, rng = 32, np.random.default_rng(0)
    vectors = np.linalg.qr(rng.normal(size=(n, n)))[0]
    kernel = ((vectors * 10.0 ** -np.linspace(0, 9, n)) @ vectors.T).astype(np.float32)
    e, r = rng.normal(size=(2, n)).astype(np.float32)
    rounding = float(np.finfo(np.float32).eps)

    def weights(ridge_relative):
        options = {"ridge_relative": ridge_relative, "correct_inner": True}
        return target_weights(e, r, kernel, **options)[0]

    np.testing.assert_allclose(weights(1e-12), weights(n * rounding), rtol=1e-5, atol=1e-5)


def test_dual_in_float32():
    residual_fn, solution, _ = PROBLEMS["one"]
    j = jacobian(residual_fn, solution, BATCH)
    b = j.T @ np.ones(SAMPLES)
    expected = np.linalg.solve(j.T @ j / SAMPLES + 0.1 * np.eye(j.shape[1]), b)
    single = tf.nest.map_structure(lambda t: tf.cast(t, tf.float32), (solution, BATCH))
    options = {"residual_fn": residual_fn, "solution": single[0], "batch": single[1]}
    solve = get_solver("gauss_newton", ridge=0.1, **options)
    x, info = solve(never, unflat(b.astype(np.float32), solution))
    np.testing.assert_allclose(flat(x), expected, atol=1e-5 * np.abs(expected).max())
    assert info.converged and info.relative_residual.dtype == tf.float32


def test_what_lies_outside_the_row_space_shows_in_the_residual():
    residual_fn, solution, _ = PROBLEMS["one"]
    j = jacobian(residual_fn, solution, BATCH)
    b = RNG.normal(size=j.shape[1])
    outside = b - np.linalg.pinv(j) @ (j @ b)
    solver = get_solver(
        "gauss_newton", residual_fn=residual_fn, solution=solution, batch=BATCH, ridge=0.1
    )
    _, info = solver(never, unflat(b, solution))
    expected = np.linalg.norm(outside) / np.linalg.norm(b)
    np.testing.assert_allclose(info.relative_residual, expected, rtol=1e-6)
    assert not info.converged


def test_heads_that_share_parameters_but_are_called_independent_show_in_the_residual():
    residual_fn, solution, _ = PROBLEMS["coupled"]
    j = jacobian(residual_fn, solution, BATCH)
    solver = get_solver(
        "gauss_newton",
        residual_fn=residual_fn,
        solution=solution,
        batch=BATCH,
        ridge=1e-3,
        independent_heads=True,
    )
    _, info = solver(never, unflat(j.T @ np.ones(j.shape[0]), solution))
    assert not info.converged


def test_kernel_of_dense_layers_equals_the_one_of_per_sample_gradients():
    residual_fn, heads, options = PROBLEMS["independent"]
    kernels = []
    for layers in heads:
        with tf.GradientTape() as tape:
            tape.watch(layers)
            residuals, inputs, outputs = forward(layers, BATCH["x"])
        kernels.append(dense_layers_kernel(inputs, tape.gradient(residuals, outputs)))
        j = jacobian(one_head, layers, BATCH)
        np.testing.assert_allclose(kernels[-1], j @ j.T / SAMPLES, atol=1e-12)
    options = options | {
        "residual_fn": residual_fn,
        "solution": heads,
        "batch": BATCH,
        "ridge": 0.1,
    }
    b = unflat(jacobian(residual_fn, heads, BATCH).T @ np.ones(SAMPLES * HEADS), heads)
    x, _ = get_solver("gauss_newton", **options)(never, b)
    same, _ = get_solver("gauss_newton", kernel=tf.stack(kernels), **options)(never, b)
    np.testing.assert_allclose(flat(same), flat(x), atol=1e-9)


def test_linear_residuals_make_it_the_exact_inverse():
    # The cotangent is the gradient of another loss of the same predictions: in the row space of J.
    x, other = tensor(4, 7), tensor(4)
    batch = {"x": x}

    def residual_fn(w, batch):
        return tf.linalg.matvec(batch["x"], w)

    def inner_loss(w, y):
        return tf.reduce_sum((residual_fn(w, batch) - y) ** 2) / (2 * 4) + 0.05 * tf.reduce_sum(
            w**2
        )

    w, y = tensor(7), tensor(4)
    cotangent = tf.linalg.matvec(x, other, transpose_a=True)
    solver = get_solver("gauss_newton", residual_fn=residual_fn, solution=w, batch=batch, ridge=0.1)
    (got,), info = root_vjp(gradient_of(inner_loss), w, (y,), cotangent, solver)
    (expected,), _ = root_vjp(gradient_of(inner_loss), w, (y,), cotangent, solve_dense)
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert info.converged


@pytest.mark.parametrize("n", [1, 31, 32, 33, 101])
def test_inverse_factor(n):
    root = RNG.normal(size=(2, n, n))
    matrix = root @ np.swapaxes(root, 1, 2) + np.eye(n)
    factor = inverse_factor(tf.constant(matrix)).numpy()
    expected = np.linalg.inv(np.linalg.cholesky(matrix))
    np.testing.assert_allclose(factor, expected, atol=1e-11)


def test_inverse_factor_of_an_indefinite_matrix_is_nan():
    assert np.isnan(inverse_factor(tf.constant(np.diag([1.0, -1.0])))).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ridge": -1.0}, "ridge must be a finite number >= 0, got -1.0"),
        ({"ridge_relative": -1.0}, "ridge_relative must be a finite number >= 0, got -1.0"),
        ({"ridge": 1.0, "ridge_relative": 1.0}, "exclude each other: set one to 0"),
        ({"correct_inner": True}, "correct_inner needs outer_residuals and inner_residuals"),
        ({"inner_residuals": tensor(2)}, r"inner_residuals must have .* \(6,\), got \(2,\)"),
        (
            {"outer_residuals": tensor(SAMPLES, 1)},
            r"outer_residuals must have .* \(6,\), got \(6, 1\)",
        ),
        ({"kernel": tensor(2, 2)}, r"kernel must have shape \[6, 6\], got \(2, 2\)"),
        ({"solution": [tensor(2)]}, "b must be nested like the solution"),
        (
            {"residual_fn": lambda w, batch: batch["x"][:, :, None]},
            r"must return \[B\] or \[B, H\]",
        ),
    ],
)
def test_what_does_not_fit_is_refused(options, message):
    solution = mlp()
    options = {"residual_fn": one_head, "solution": solution, "batch": BATCH} | options
    with pytest.raises(ValueError, match=message):
        get_solver("gauss_newton", **options)(never, solution)
