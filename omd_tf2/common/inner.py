"""The inner problem: a number of steps, or steps to a tolerance."""

from collections.abc import Callable

import tensorflow as tf

from omd_tf2.implicit import solve_inner
from omd_tf2.implicit.structures import Structure, ravel


def inner_steps(
    optimality_fn: Callable[[Structure], Structure],
    step_fn: Callable[[Structure, Structure], Structure],
    state: tuple,
    *,
    max_steps: int,
    tol: float,
) -> tuple[tuple, tf.Tensor]:
    """`implicit.solve_inner`, but that without a tolerance nothing is evaluated to stop by.

    state: the number of steps so far, 0, to which `step_fn` adds 1; then floating tensors of one
    dtype. Returns the state and the number of steps taken, an int32 scalar.
    """
    if tol:
        state, info = solve_inner(optimality_fn, step_fn, state, max_steps=max_steps, tol=tol)
        return state, info.steps
    if max_steps == 1:  # shares what it computes with the hypergradient, as a loop's body cannot
        return step_fn(state, optimality_fn(state)), tf.constant(1)

    k, *moved = state
    flat, unravel = ravel(moved)  # a loop costs some microseconds for each tensor it carries

    def step(k, flat):
        state = k, *unravel(flat)
        k, *moved = step_fn(state, optimality_fn(state))
        return k, ravel(moved)[0]

    k, flat = tf.while_loop(lambda k, _: k < max_steps, step, (k, flat))
    return (k, *unravel(flat)), k
