"""Solving the inner problem: a number of steps, or down to a tolerance."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from omd_tf2.implicit.linear_solve import check_options
from omd_tf2.implicit.structures import Structure, to_tensors


class InnerInfo(NamedTuple):
    """How far the inner problem was solved, as scalar tensors."""

    steps: tf.Tensor  # int32
    optimality_norm: tf.Tensor  # |f| at the state returned: implicit gradients hold only at 0
    converged: tf.Tensor  # bool; optimality_norm <= tol


def solve_inner(
    optimality_fn: Callable[[Structure], Structure],
    step_fn: Callable[[Structure, Structure], Structure],
    state: Structure,
    *,
    max_steps: int,
    tol: float = 0.0,
) -> tuple[Structure, InnerInfo]:
    """Repeats `state = step_fn(state, optimality_fn(state))`.

    Ends after `max_steps`, or as soon as |f| <= tol: with `tol=0` it takes `max_steps` steps unless
    it meets an exact root. A norm that is not finite ends it too, not converged. Each step costs
    one evaluation of f, and the norm reported one more.

    The state, which steps keep in shape, is the solution and what they carry along (an optimiser's
    moments, a target network); f is the gradient of the inner loss, say. Raises ValueError for
    max_steps < 1 or a negative tol.
    """
    check_options(max_steps=max_steps, tol=tol)
    state = to_tensors(state)
    value = to_tensors(optimality_fn(state))

    def unfinished(steps, state, value):
        return (steps < max_steps) & (tf.linalg.global_norm(tf.nest.flatten(value)) > tol)

    def step(steps, state, value):
        state = to_tensors(step_fn(state, value))
        return steps + 1, state, to_tensors(optimality_fn(state))

    steps, state, value = tf.while_loop(unfinished, step, (tf.constant(0), state, value))
    norm = tf.linalg.global_norm(tf.nest.flatten(value))
    return state, InnerInfo(steps, norm, norm <= tol)
