"""The inner problem, stepped at or solved."""

import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common import compile
from omd_tf2.implicit import solve_inner

CURVATURE = tf.constant([1.0, 2.0], tf.float64)


def gradient(state):
    return CURVATURE * state["w"]  # of w1^2 / 2 + w2^2


def step(state, value):
    return {"w": state["w"] - 0.5 * value, "count": state["count"] + 1}


def run(max_steps, tol=0.0, start=(4.0, 4.0), compiled=False):
    def solve(w):
        state = {"w": w, "count": tf.constant(0)}
        return solve_inner(gradient, step, state, max_steps=max_steps, tol=tol)

    call = compile.compiled(solve) if compiled else solve
    return call(tf.constant(start, tf.float64))


@pytest.mark.parametrize("compiled", [False, True])
def test_takes_the_steps_asked_for_and_reports_the_norm(compiled):
    # Each step halves w1 and takes w2 to zero: (4, 4), (2, 0), (1, 0); the gradient is then (1, 0).
    state, info = run(2, compiled=compiled)
    np.testing.assert_array_equal(state["w"], [1.0, 0.0])
    assert info.steps == 2 and state["count"] == 2
    assert info.optimality_norm == 1.0 and not info.converged


@pytest.mark.parametrize("compiled", [False, True])
def test_ends_at_the_tolerance(compiled):
    state, info = run(100, tol=0.3, compiled=compiled)  # 4, 2, 1, 1/2, 1/4
    assert info.steps == 4 and info.optimality_norm == 0.25 and info.converged
    np.testing.assert_array_equal(state["w"], [0.25, 0.0])


def test_at_a_root_nothing_is_left_to_do():
    state, info = run(100, start=(0.0, 0.0))
    assert info.steps == 0 and state["count"] == 0 and info.converged


def test_what_is_not_finite_ends_it_unconverged():
    _, info = run(100, start=(np.nan, 0.0))
    assert info.steps == 0 and not info.converged


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_steps": 0}, "max_steps must be an integer >= 1, got 0"),
        ({"max_steps": 1, "tol": -1.0}, "tol must be a finite number >= 0, got -1.0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)
