"""Solvers by name, bad options, and what becomes of a failed solve."""

import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common import compile
from omd_tf2.implicit import (
    SOLVERS,
    Result,
    SolveError,
    SolveInfo,
    check_converged,
    get_solver,
    guarded,
    solver_options,
)

MATRIX = tf.constant(np.diag([1.0, 10.0, 100.0]))
B = tf.ones(3, tf.float64)


def matvec(v):
    return tf.linalg.matvec(MATRIX, v)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("minre", {}, "unknown solver: 'minre'; did you mean 'minres'?"),
        ("lu", {}, "unknown solver: 'lu'; choose from cg, dense, gauss_newton, identity, minres,"),
        ("cg", {"rigde": 1.0}, "unknown option of solver 'cg': 'rigde'; did you mean 'ridge'?"),
        ("identity", {"ridge": 1.0}, "option of solver 'identity': 'ridge'; it takes none"),
        ("cg", {"ridge": -1e-5}, "ridge must be a finite number >= 0, got -1e-05"),
        ("minres", {"ridge": float("nan")}, "ridge must be a finite number >= 0, got nan"),
        ("cg", {"tol": -1.0}, "tol must be a finite number >= 0, got -1.0"),
        ("cg", {"tol": "small"}, "tol must be a finite number >= 0, got 'small'"),
        ("minres", {"max_steps": 0}, "max_steps must be an integer >= 1, got 0"),
        ("neumann", {"max_steps": 2.5}, "max_steps must be an integer >= 1, got 2.5"),
        ("neumann", {"step_size": 0.0}, "step_size must be a finite number > 0, got 0.0"),
        ("gauss_newton", {}, "solver 'gauss_newton' needs residual_fn, solution, batch"),
    ],
)
def test_bad_input_is_one_clear_line(name, options, message):
    with pytest.raises(ValueError) as error:
        get_solver(name, **options)
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["cg", "minres", "neumann", "dense"])
def test_solvers_called_directly_check_their_options_too(name):
    with pytest.raises(ValueError, match="ridge must be"):
        SOLVERS[name](matvec, B, ridge=-1.0)


def test_solver_options_names_what_a_solver_takes():
    assert solver_options("identity") == ()
    assert solver_options("minres") == ("ridge", "tol", "max_steps", "x0")
    with pytest.raises(ValueError, match="did you mean 'cg'"):
        solver_options("ccg")


@pytest.mark.parametrize("compiled", [False, True])
def test_failed_solve_is_used_or_replaced_by_the_identity_as_told(compiled):
    def answer(on_failure, max_steps):
        solve = guarded(get_solver("cg", max_steps=max_steps), on_failure)
        fn = lambda b: solve(matvec, b)
        return (compile.compiled(fn) if compiled else fn)(B)

    unguarded, _ = get_solver("cg", max_steps=1)(matvec, B)
    x, info = answer("use", 1)
    np.testing.assert_allclose(x, unguarded, rtol=1e-12)
    assert not info.converged
    x, info = answer("identity", 1)
    np.testing.assert_array_equal(x, B)
    assert not info.converged and info.iterations == 1  # the failure stays visible
    x, info = answer("identity", 10)
    np.testing.assert_allclose(x, [1.0, 0.1, 0.01], rtol=1e-4)
    assert info.converged


def test_stop_raises_eagerly_and_gives_nan_compiled():
    solve = guarded(get_solver("cg", max_steps=1), "stop")
    with pytest.raises(SolveError, match=r"did not converge \(steps\): relative .* 1 iter"):
        solve(matvec, B)
    x, info = compile.compiled(lambda b: solve(matvec, b))(B)
    assert np.isnan(x).all()
    with pytest.raises(SolveError):
        check_converged(info)
    x, info = guarded(get_solver("cg"), "stop")(matvec, B)
    np.testing.assert_allclose(x, [1.0, 0.1, 0.01], rtol=1e-4)
    check_converged(info)


def test_check_converged_of_many_solves_and_negative_curvature():
    info = SolveInfo(
        iterations=tf.constant([3, 100]),
        relative_residual=tf.constant([1e-6, 0.5]),
        negative_curvature=tf.constant([False, True]),
        converged=tf.constant([True, False]),
        result=tf.constant([Result.CONVERGED, Result.BREAKDOWN]),
    )
    with pytest.raises(SolveError) as error:
        check_converged(info)
    assert str(error.value) == (
        "the linear solve did not converge in 1 of 2 (breakdown): relative residual up to 0.5 after up to "
        "100 iterations, negative curvature met"
    )


def test_unknown_choice_on_failure():
    with pytest.raises(ValueError, match="unknown on_failure: 'stpo'; did you mean 'stop'?"):
        guarded(get_solver("cg"), "stpo")
