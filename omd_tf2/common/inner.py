"""The inner problem: a number of steps, or steps to a tolerance."""

from collections.abc import Callable

import tensorflow as tf

from omd_tf2.implicit import solve_inner
from omd_tf2.implicit.structures import Structure


def inner_steps(
    optimality_fn: Callable[[Structure], Structure],
    step_fn: Callable[[Structure, Structure], Structure],
    state: tuple,
    *,
    max_steps: int,
    tol: float,
) -> tuple[tuple, tf.Tensor]:
    """`implicit.solve_inner`, but that without a tolerance nothing is evaluated to stop by.

    Returns the state and the number of steps taken, an int32 scalar.
    """
    if tol:
        state, info = solve_inner(optimality_fn, step_fn, state, max_steps=max_steps, tol=tol)
        return state, info.steps
    if max_steps == 1:  # shares what it computes with the hypergradient, as a loop's body cannot
        return step_fn(state, optimality_fn(state)), tf.constant(1)

    def step(k, *state):
        return k + 1, *step_fn(state, optimality_fn(state))

    steps, *state = tf.while_loop(lambda k, *_: k < max_steps, step, (tf.constant(0), *state))
    return tuple(state), steps
