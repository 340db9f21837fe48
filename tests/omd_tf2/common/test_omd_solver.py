"""Solver settings: what is refused, what is built, and what one hypergradient reports."""

import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common.errors import TrainingError
from envs.errors import ConfigError
from omd_tf2.common.solver import Health, LeastSquares, SolverConfig, hypergradient, report
from omd_tf2.implicit import SOLVERS, Result, solver_options

HESSIAN = tf.constant([[2.0, 0.0], [0.0, 4.0]], tf.float64)
THETA, COTANGENT = (tf.constant(x, tf.float64) for x in ([2.0, 8.0], [2.0, 4.0]))
FAILING = {"name": "cg", "max_steps": 1, "tol": 1e-12}


def optimality_fn(w, theta):
    """Of w H w / 2 - w theta: w* = H^-1 theta, whose transposed Jacobian takes g to H^-1 g."""
    return tf.linalg.matvec(HESSIAN, w) - theta


def never():
    raise AssertionError("only Gauss-Newton asks for the problem")


def least_squares():
    """H = J^T J / 2 and g = J^T e / 2, of J = diag(2, sqrt 8) and e = (2, sqrt 8), in one head.

    Values of half that size, with a weight of 4.
    """
    diagonal = tf.constant([2.0, 8**0.5], tf.float64)
    return LeastSquares(
        weight=4,
        values=(diagonal * THETA / 2)[:, None],
        targets_fn=lambda theta: theta / diagonal,
        outer_targets=diagonal * THETA / 2 - diagonal / 2,
        kernel=tf.linalg.diag(diagonal**2 / 8)[None],
    )


def solve(problem=never, w=THETA, **options):
    return hypergradient(SolverConfig(**options), optimality_fn, w, THETA, COTANGENT, problem)


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "gauss_newton"])
def test_a_quadratic_by_hand(name):
    # H^-1 (2, 4) = (1, 1); the identity's is (2, 4) itself
    options = {"step_size": 0.3, "tol": 1e-12} if name == "neumann" else {}
    gradient, health = solve(name=name, **options)
    np.testing.assert_allclose(gradient, [2, 4] if name == "identity" else [1, 1], rtol=1e-10)
    assert health.converged == 1 and health.negative_curvature == 0


@pytest.mark.parametrize(("ridge", "expected"), [(None, [1, 1]), (2.0, [2 / 4, 4 / 6])])
def test_gauss_newton_by_hand(ridge, expected):
    gradient, health = solve(least_squares, name="gauss_newton", ridge=ridge)
    np.testing.assert_allclose(gradient, expected, rtol=1e-10)
    assert health.converged == 1
    assert float(health.cotangent_norm) == pytest.approx(20**0.5)


def test_the_corrected_gauss_newton_by_hand():
    # K = diag(2, 4), mean eigenvalue 3, ridge 1: S = diag(2/3, 4/5). At w = (2, 8) the values are
    # (4, 8 sqrt 8), the targets (2, 2 sqrt 8): e - S r = (2, sqrt 8) - S (2, 6 sqrt 8)
    # = (2/3, -3.8 sqrt 8), c = S of that, and the targets move by diag(1, 1 / sqrt 2) theta.
    options = {"ridge_relative": 1 / 3, "correct_inner": True}
    gradient, health = solve(least_squares, name="gauss_newton", **options)
    np.testing.assert_allclose(gradient, [2 / 9, -3.04], rtol=1e-13)
    assert health.converged == 1


def test_health_by_hand():
    # f at w = (2, 8): (4, 32) - (2, 8) = (2, 24); |g| = sqrt 20
    _, health = solve(name="dense")
    assert float(health.optimality_norm) == pytest.approx(580**0.5)
    assert float(health.cotangent_norm) == pytest.approx(20**0.5)
    assert float(health.hypergradient_norm) == pytest.approx(2**0.5)
    assert health.iterations == 0 and health.relative_residual < 1e-15
    assert {x.dtype for x in health} == {tf.float64} and {x.shape.rank for x in health} == {0}


def test_a_failed_solve_is_told_and_treated_as_set():
    used, health = solve(**FAILING, on_failure="use")
    assert (health.converged, health.iterations) == (0, 1)
    assert not np.allclose(used, [1, 1]) and not np.allclose(used, [2, 4])
    replaced, health = solve(**FAILING, on_failure="identity")
    np.testing.assert_array_equal(replaced, [2, 4])
    assert (health.converged, health.iterations) == (0, 1)
    marked, health = solve(**FAILING)
    assert np.isnan(marked).all() and health.converged == 0  # for `check` to stop the run


@pytest.mark.parametrize("on_failure", ["use", "identity", "stop"])
def test_a_solve_that_overflows_is_reported_in_finite_numbers(on_failure):
    options = {"name": "neumann", "step_size": 1e60, "max_steps": 50, "on_failure": on_failure}
    gradient, health = solve(**options)
    assert health.relative_residual == 1 and health.converged == 0
    if on_failure == "identity":
        np.testing.assert_array_equal(gradient, [2, 4])
    else:
        assert not np.isfinite(gradient).any()


@pytest.mark.parametrize("on_failure", ["use", "identity", "stop"])
def test_a_gauss_newton_that_fails_is_replaced_by_the_identitys_weights(on_failure):
    # A kernel that is none, with the weight of eigenvalues 7 and -3, has no factor. The identity moves the targets
    # diag(1, 1 / sqrt 2) theta by K e = (4 + 5 sqrt 8, 10 + 2 sqrt 8), over B = 2.
    kernel = tf.constant([[[0.5, 1.25], [1.25, 0.5]]], tf.float64)
    options = {"name": "gauss_newton", "ridge": 0.1, "on_failure": on_failure}
    gradient, health = solve(lambda: least_squares()._replace(kernel=kernel), **options)
    assert health.converged == 0 and health.relative_residual == 1
    if on_failure == "identity":
        by_hand = [(4 + 5 * 8**0.5) / 2, (10 + 2 * 8**0.5) / 8**0.5]
        np.testing.assert_allclose(gradient, by_hand, rtol=1e-13)
    else:
        assert np.isnan(gradient).all()


def reported(**values):
    """What a run reports of a solve that failed in one update of four."""
    metrics = {
        "solver/converged": 0.75,
        "solver/result": 0.25 * Result.STEPS,
        "solver/relative_residual": 0.125,
        "solver/iterations": 100.0,
        "solver/negative_curvature": 0.0,
        "solver/cotangent_norm": 1.0,
        "train/model_loss": 1.0,
        "solver/hypergradient_norm": np.nan,
    }
    return metrics | {name.replace("__", "/"): value for name, value in values.items()}


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        (
            reported(),
            r"by 'cg' did not converge \(steps\): .*, 100 iterations; set .*ridge, tol or max_steps h",
        ),
        (
            reported(solver__negative_curvature=0.25, solver__result=0.25 * Result.BREAKDOWN),
            r"\(breakdown\): .* negative curvature met; set agent.solver.ridge or tol higher",
        ),
        (
            reported(
                solver__converged=0.5, solver__result=0.25 * (Result.STEPS + Result.BREAKDOWN)
            ),
            "did not converge .in several ways.: ",
        ),
    ],
)
def test_a_run_stops_at_a_failed_solve_and_says_what_to_do(metrics, message):
    with pytest.raises(TrainingError, match=message):
        SolverConfig("cg").check(metrics)
    relative = SolverConfig("gauss_newton", ridge_relative=0.1)  # a ridge beside it is refused
    with pytest.raises(TrainingError, match=r"set agent\.solver\.ridge_relative.* higher, or"):
        relative.check(metrics)
    with pytest.raises(TrainingError, match=r"higher, step_size lower, or agent"):
        SolverConfig("neumann").check(metrics)
    SolverConfig("cg", on_failure="use").check(metrics)
    SolverConfig("cg", on_failure="identity").check(metrics)


@pytest.mark.parametrize("name", ["solver__cotangent_norm", "train__model_loss"])
def test_a_solve_is_not_blamed_for_what_came_in(name):
    SolverConfig("cg").check(reported(**{name: np.nan}))


@pytest.mark.parametrize(
    ("name", "silent"),
    [
        ("identity", set(Health._fields)),
        ("gauss_newton", {"iterations", "negative_curvature", "optimality_norm"}),
        ("dense", {"iterations", "optimality_norm"}),
        ("cg", {"optimality_norm"}),
    ],
)
def test_only_what_says_something_of_a_solver_is_reported(name, silent):
    told = [field for field in Health._fields if field not in silent]
    config, health = SolverConfig(name), Health(*range(len(Health._fields)))
    assert list(config.reported) == told
    assert report(config, health) == tuple(Health._fields.index(field) for field in told)
    asked = SolverConfig(name, optimality_norm=True)
    assert set(asked.reported) == {*told, "optimality_norm"}
    # a run stops at a failed solve whatever of it is reported
    failed = {f"solver/{field}": 0.5 for field in told}
    if name != "identity":
        with pytest.raises(TrainingError, match=f"the solve by '{name}' did not converge"):
            config.check(failed)


def test_a_run_goes_on_where_all_solves_converged_or_none_was_asked_for():
    SolverConfig("cg").check(reported(solver__converged=1.0))
    SolverConfig("cg").check({"train/model_loss": 1.0})


def test_only_options_that_were_set_reach_the_solver():
    assert SolverConfig().options() == {}
    config = SolverConfig("cg", ridge=0.0, stop_at_negative_curvature=False)
    assert config.options() == {"ridge": 0.0, "stop_at_negative_curvature": False}


@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_takes_its_own_options_and_no_others(name):
    values = {
        "ridge": 0.1,
        "ridge_relative": 0.1,
        "correct_inner": True,
        "tol": 0.1,
        "max_steps": 5,
        "step_size": 0.1,
        "stop_at_negative_curvature": True,
    }
    for option, value in values.items():
        if option in solver_options(name) and (name, option) != ("gauss_newton", "max_steps"):
            assert SolverConfig(name, **{option: value}).options() == {option: value}
        else:
            with pytest.raises(ConfigError, match=f"solver '{name}' has no option '{option}'"):
                SolverConfig(name, **{option: value})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "lu"}, "unknown solver: 'lu'; choose from cg, dense, gauss_newton, identity"),
        ({"name": "gaus_newton"}, "did you mean 'gauss_newton'"),
        ({"name": 3}, "name must be of type str, not 3"),
        ({"name": "cg", "ridge": -1.0}, "ridge must be a finite number >= 0, got -1.0"),
        ({"name": "cg", "ridge": float("nan")}, "ridge must be a finite number >= 0, got nan"),
        ({"name": "gauss_newton", "ridge": -1.0}, "ridge must be a finite number >= 0"),
        (
            {"name": "gauss_newton", "ridge": 1.0, "ridge_relative": 0.1},
            "ridge and ridge_relative exclude each other: set one to 0",
        ),
        ({"name": "cg", "correct_inner": True}, "solver 'cg' has no option 'correct_inner'"),
        ({"name": "cg", "ridge_relative": 0.1}, "solver 'cg' has no option 'ridge_relative'"),
        ({"name": "cg", "tol": -1e-3}, "tol must be a finite number >= 0, got -0.001"),
        ({"name": "cg", "tol": "small"}, "tol must be of type float or none, not 'small'"),
        ({"name": "minres", "max_steps": 0}, "max_steps must be an integer >= 1, got 0"),
        ({"name": "minres", "max_steps": 2.5}, "max_steps must be of type int or none, not 2.5"),
        ({"name": "neumann", "step_size": 0.0}, "step_size must be a finite number > 0, got 0.0"),
        (
            {"name": "cg", "stop_at_negative_curvature": "no"},
            "stop_at_negative_curvature must be of type bool or none, not 'no'",
        ),
        ({"on_failure": "ignore"}, "unknown on_failure 'ignore'; known: identity, stop, use"),
        ({"on_failure": "identiy"}, "did you mean 'identity'"),
        ({"on_failure": "use"}, "on_failure does nothing for the identity"),
        ({"on_failure": None}, "on_failure must be of type str, not None"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as error:
        SolverConfig(**options)
    assert "\n" not in str(error.value)


def test_another_solver_starts_from_its_own_options():
    chosen = SolverConfig("gauss_newton", ridge=10.0, on_failure="use")
    assert chosen.reset("minres") == SolverConfig("minres", on_failure="use")
    assert chosen.reset("identity") == SolverConfig("identity")  # which cannot fail
    asked = SolverConfig(optimality_norm=True)
    assert asked.reset("cg") == SolverConfig("cg", optimality_norm=True)
