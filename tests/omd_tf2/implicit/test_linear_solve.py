"""Krylov and direct solvers against numpy.linalg, eagerly and compiled, in 64 bits."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common import compile
from omd_tf2.implicit import SOLVERS, Result, get_solver

N = 16
TIGHT = {"tol": 1e-12, "max_steps": 400}


def symmetric(eigenvalues, seed=0):
    q, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(len(eigenvalues),) * 2))
    return q @ np.diag(eigenvalues) @ q.T


MAGNITUDES = np.linspace(1.0, 4.0, N)
SIGNS = np.where(np.arange(N) % 3 == 0, -1.0, 1.0)
PRESENT = np.where(np.arange(N) < 5, 0.0, 1.0)
DEFINITE = symmetric(MAGNITUDES)
INDEFINITE = symmetric(MAGNITUDES * SIGNS)
SEMIDEFINITE = symmetric(MAGNITUDES * PRESENT)
SINGULAR = symmetric(MAGNITUDES * SIGNS * PRESENT)
NONSYMMETRIC = DEFINITE + 0.3 * np.triu(np.ones((N, N)), 1)
B = np.random.default_rng(1).normal(size=N)


@functools.cache
def solve_fn(name, compiled, **options):
    """Returns (matrix, b) -> (x, info); compiled once for all tests that share it."""
    solve = get_solver(name, **options)

    def solve_for(matrix, b):
        return solve(lambda v: tf.linalg.matvec(matrix, v), b)

    return compile.compiled(solve_for) if compiled else solve_for


def run(name, matrix, b, compiled=False, **options):
    """Returns (x, info) with NumPy leaves."""
    answer = solve_fn(name, compiled, **options)(tf.constant(matrix), tf.constant(b))
    return tf.nest.map_structure(lambda t: t.numpy(), answer)


COMPILED = {  # of each solver, what all tests of it compiled share
    "cg": TIGHT,
    "minres": TIGHT,
    "neumann": TIGHT | {"step_size": 0.2},
    "dense": {"tol": 1e-12},
}
CASES = [
    ("cg", DEFINITE, TIGHT),
    ("cg", SEMIDEFINITE + np.eye(N), TIGHT | {"ridge": 0.5}),
    ("minres", DEFINITE, TIGHT),
    ("minres", INDEFINITE, TIGHT),
    ("minres", INDEFINITE, TIGHT | {"ridge": 0.25}),
    ("neumann", DEFINITE, TIGHT | {"step_size": 0.3}),
    ("neumann", NONSYMMETRIC, TIGHT | {"step_size": 0.2}),
    ("dense", DEFINITE, {"tol": 1e-12}),
    ("dense", INDEFINITE, {"tol": 1e-12, "ridge": 0.25}),
    ("dense", NONSYMMETRIC, {"tol": 1e-12}),
]


@pytest.mark.parametrize(("name", "matrix", "options"), CASES)
def test_solves_as_numpy_does(name, matrix, options):
    expected = np.linalg.solve(matrix + options.get("ridge", 0.0) * np.eye(N), B)
    eager, info = run(name, matrix, B, **options)
    np.testing.assert_allclose(eager, expected, rtol=0, atol=1e-10)
    assert info.converged and info.relative_residual <= 1e-12


HARDEST = {"cg": DEFINITE, "minres": INDEFINITE, "neumann": NONSYMMETRIC, "dense": NONSYMMETRIC}


@pytest.mark.parametrize(("name", "matrix"), HARDEST.items())
def test_solves_compiled_as_eagerly(name, matrix):
    eager, _ = run(name, matrix, B, **COMPILED[name])
    compiled, info = run(name, matrix, B, compiled=True, **COMPILED[name])
    np.testing.assert_allclose(compiled, eager, rtol=0, atol=1e-12)
    assert info.converged


@pytest.mark.parametrize("name", ["cg", "minres"])
def test_singular_consistent_system_gives_the_solution_of_least_norm(name):
    b = SEMIDEFINITE @ B
    x, info = run(name, SEMIDEFINITE, b, **TIGHT)
    np.testing.assert_allclose(x, np.linalg.pinv(SEMIDEFINITE, rcond=1e-10) @ b, atol=1e-10)
    assert info.converged and not info.negative_curvature


def test_minres_on_a_singular_indefinite_consistent_system():
    b = SINGULAR @ B
    x, info = run("minres", SINGULAR, b, **TIGHT)
    np.testing.assert_allclose(x, np.linalg.pinv(SINGULAR, rcond=1e-10) @ b, atol=1e-10)
    assert info.converged


@pytest.mark.parametrize("matrix", [SEMIDEFINITE, SINGULAR])
def test_minres_on_an_inconsistent_system_gives_a_least_squares_solution(matrix):
    x, info = run("minres", matrix, B, **TIGHT)
    best = np.linalg.lstsq(matrix, B, rcond=1e-10)[0]
    residual = np.linalg.norm(B - matrix @ x)
    np.testing.assert_allclose(residual, np.linalg.norm(B - matrix @ best), rtol=1e-6)
    assert np.linalg.norm(x) < 100 and not info.converged


@pytest.mark.parametrize("name", ["cg", "minres", "neumann", "dense"])
@pytest.mark.parametrize(("matrix", "negative"), [(DEFINITE, False), (-DEFINITE, True)])
def test_negative_curvature_is_reported(name, matrix, negative):
    _, info = run(name, matrix, B)
    assert info.negative_curvature == negative


@pytest.mark.parametrize("name", ["cg", "minres", "dense"])
def test_negative_curvature_of_an_indefinite_matrix_is_reported(name):
    assert run(name, INDEFINITE, B)[1].negative_curvature


def test_cg_stops_at_negative_curvature_or_runs_on():
    # The first direction is b = (1, 1): b^T A b = 1 > 0, step 2 / 1, x = (2, 2), r = (-3, 3);
    # the second is r + (18 / 2) b = (6, 12): 2 * 36 - 144 < 0. Run on, it ends at (1/2, -1).
    matrix, b = np.diag([2.0, -1.0]), np.ones(2)
    x, info = run("cg", matrix, b, stop_at_negative_curvature=True)
    np.testing.assert_allclose(x, [2.0, 2.0])
    assert info.negative_curvature and not info.converged and info.iterations == 2
    x, info = run("cg", matrix, b)
    np.testing.assert_allclose(x, [0.5, -1.0])
    assert info.negative_curvature and info.converged and info.iterations == 2


@pytest.mark.parametrize(
    ("compiled", "dtype"), [(False, np.float32), (False, np.float64), (True, np.float32)]
)
@pytest.mark.parametrize("name", ["cg", "minres", "neumann"])
def test_exact_hit_and_zero_right_hand_side(name, compiled, dtype):
    # On the identity the first step lands on the solution; tol = 0 asks to go on from there.
    options = {"tol": 0.0, "max_steps": 5}
    b = B.astype(dtype)
    x, info = run(name, np.eye(N, dtype=dtype), b, compiled, **options)
    np.testing.assert_allclose(x, b, rtol=1e-6)
    assert info.converged and info.relative_residual.dtype == dtype
    x, info = run(name, DEFINITE.astype(dtype), np.zeros_like(b), compiled, **options)
    np.testing.assert_array_equal(x, np.zeros_like(b))
    assert info.converged and info.iterations == 0 and info.relative_residual == 0


@pytest.mark.parametrize("name", ["cg", "minres"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_running_past_convergence_stays_at_the_solution(name, dtype):
    matrix, b = DEFINITE.astype(dtype), B.astype(dtype)
    x, info = run(name, matrix, b, tol=0.0, max_steps=300)
    expected = np.linalg.solve(DEFINITE, B)
    np.testing.assert_allclose(x, expected, atol=50 * np.finfo(dtype).eps)
    assert info.relative_residual < 50 * np.finfo(dtype).eps


@pytest.mark.parametrize("name", ["cg", "minres", "neumann", "dense"])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_scale_of_the_right_hand_side_does_not_matter(name, scale):
    # In float32 the squares of these numbers are 0 and infinity.
    b = (scale * B).astype(np.float32)
    options = {} if name == "dense" else {"max_steps": 400}
    options |= {"step_size": 0.3} if name == "neumann" else {}
    x, info = run(name, DEFINITE.astype(np.float32), b, **options)
    np.testing.assert_allclose(x / scale, np.linalg.solve(DEFINITE, B), atol=1e-4)
    assert info.converged


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["cg", "minres", "neumann", "dense"])
def test_what_cannot_be_solved_is_not_converged(name, compiled):
    for entry in (0.0, np.nan):
        _, info = run(name, np.full((N, N), entry), B, compiled, **COMPILED[name])
        assert not info.converged


def test_the_residual_reported_is_that_of_the_answer():
    x, info = run("cg", DEFINITE, B, max_steps=3, ridge=0.1)
    residual = B - (DEFINITE + 0.1 * np.eye(N)) @ x
    expected = np.linalg.norm(residual) / np.linalg.norm(B)
    np.testing.assert_allclose(info.relative_residual, expected, rtol=1e-12)
    assert info.iterations == 3 and not info.converged


def test_neumann_by_hand():
    # A = diag(1, 2), b = (1, 1), step 1/2, 2 terms: 1/2 (b + (I - A/2) b) = 1/2 (1 + 1/2, 1 + 0).
    x, info = run("neumann", np.diag([1.0, 2.0]), np.ones(2), step_size=0.5, max_steps=2)
    np.testing.assert_allclose(x, [0.75, 0.5])
    assert info.iterations == 2
    _, info = run("neumann", DEFINITE, B, max_steps=50)  # eigenvalues up to 4: diverges
    assert not info.converged and info.relative_residual > 1


def test_identity_returns_the_right_hand_side():
    x, info = run("identity", INDEFINITE, B)
    np.testing.assert_array_equal(x, B)
    assert info.converged and info.iterations == 0


@pytest.mark.parametrize(
    ("name", "compiled"),
    [("cg", True), *((name, False) for name in sorted(set(SOLVERS) - {"gauss_newton"}))],
)
def test_nested_structures(name, compiled):
    scale = {"w": tf.constant([[1.0, 2.0]], tf.float64), "rest": (tf.constant(3.0, tf.float64), [])}
    b = tf.nest.map_structure(lambda t: t**2, scale)
    options = {"neumann": {"step_size": 0.5}}.get(name, {})
    solve = get_solver(name, **options)
    fn = lambda b: solve(lambda v: tf.nest.map_structure(tf.multiply, scale, v), b)
    x, info = (tf.function(fn, jit_compile=True) if compiled else fn)(b)  # as a user has it
    expected = b if name == "identity" else scale  # scale * x = scale^2
    tf.nest.assert_same_structure(x, b)
    for got, want in zip(tf.nest.flatten(x), tf.nest.flatten(expected), strict=True):
        np.testing.assert_allclose(got, want, atol=1e-4)
    assert bool(info.converged)


def test_vectors_must_share_one_floating_dtype():
    mixed = [tf.zeros(2, tf.float32), tf.zeros(2, tf.float64)]
    with pytest.raises(ValueError, match=r"one floating dtype, got \['float32', 'float64'\]"):
        get_solver("cg")(lambda v: v, mixed)
    with pytest.raises(ValueError, match=r"one floating dtype, got \['int32'\]"):
        get_solver("cg")(lambda v: v, tf.zeros(2, tf.int32))
    dynamic = tf.function(
        lambda b: get_solver("cg")(lambda v: v, b)[0],
        input_signature=[tf.TensorSpec([None], tf.float32)],
    )
    with pytest.raises(ValueError, match="static shapes"):
        dynamic(tf.zeros(2))


@pytest.mark.parametrize(
    ("name", "matrix", "options", "compiled"),
    [
        ("cg", DEFINITE, {}, False),
        ("minres", INDEFINITE, {"ridge": 0.25}, False),
        ("minres", INDEFINITE, {"ridge": 0.25}, True),
        ("neumann", DEFINITE, {"step_size": 0.4}, False),
    ],
)
def test_a_solve_can_start_from_an_answer_nearby(name, matrix, options, compiled):
    solve = get_solver(name, **TIGHT, **options)

    def answer(b, x0):
        return solve(lambda v: tf.linalg.matvec(tf.constant(matrix), v), b, x0=x0)

    answer = compile.compiled(answer) if compiled else answer
    expected = np.linalg.solve(matrix + options.get("ridge", 0.0) * np.eye(N), B)
    starts = np.zeros(N), 100 * np.ones(N), expected + 1e-6, expected
    solved = [answer(tf.constant(B), tf.constant(x0)) for x0 in starts]
    for x, info in solved:
        np.testing.assert_allclose(x, expected, rtol=1e-8, atol=1e-10)
        assert info.converged
    steps = [int(info.iterations) for _, info in solved]
    assert steps[0] == run(name, matrix, B, **TIGHT, **options)[1].iterations
    assert steps[1] >= steps[0] >= steps[2] > steps[3] == 0
    x, info = answer(tf.zeros(N, tf.float64), tf.ones(N, tf.float64))
    assert info.converged and not np.any(x)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("name", "matrix", "options", "expected"),
    [
        ("cg", DEFINITE, TIGHT, Result.CONVERGED),
        ("cg", DEFINITE, {"max_steps": 2}, Result.STEPS),
        ("cg", INDEFINITE, {"stop_at_negative_curvature": True}, Result.NEGATIVE_CURVATURE),
        ("cg", 0 * DEFINITE, TIGHT, Result.BREAKDOWN),
        ("minres", SINGULAR, TIGHT, Result.BREAKDOWN),
        ("dense", np.diag(np.arange(N) > 0.0), COMPILED["dense"], Result.NOT_FINITE),
        ("neumann", DEFINITE, {"step_size": 1e150}, Result.NOT_FINITE),
    ],
)
def test_a_failed_solve_says_which_way_it_failed(name, matrix, options, expected, compiled):
    _, info = run(name, matrix.astype(float), B, compiled, **options)
    assert info.result == expected and info.result.dtype == np.int32
    assert info.converged == (expected == Result.CONVERGED)
    assert str(Result.NEGATIVE_CURVATURE) == "negative curvature"
