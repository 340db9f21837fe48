"""Steps of a state's parts: the model's, the critics', and the inner problem's number of them."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from omd_tf2.common.functional import adam_step, soft_update
from omd_tf2.implicit import solve_inner
from omd_tf2.implicit.structures import Structure, ravel

State = Any  # a NamedTuple with model, critics, target, model_adam and critic_adam


def move_model(state: State, gradient: Structure, learning_rate: float) -> State:
    """The state after one Adam step of the model."""
    model, adam = adam_step(state.model, gradient, state.model_adam, learning_rate)
    return state._replace(model=model, model_adam=adam)


def move_critics(state: State, gradient: Structure, learning_rate: float, tau: float) -> State:
    """The state after one Adam step of the critics and the soft update of their target."""
    critics, adam = adam_step(state.critics, gradient, state.critic_adam, learning_rate)
    target = soft_update(state.target, critics, tau)
    return state._replace(critics=critics, target=target, critic_adam=adam)


def inner_steps(
    optimality_fn: Callable[[tf.Tensor, State], Structure],
    step_fn: Callable[[tf.Tensor, State, Structure], tuple],
    state: State,
    moved: Sequence[str],
    max_steps: int,
    tol: float,
    *reports: tf.Tensor,
) -> tuple:
    """`implicit.solve_inner`, but that without a tolerance nothing is evaluated to stop by.

    optimality_fn: (k, state) -> f, k the number of steps so far. step_fn: (k, state, f) ->
    (state, *reports); of the state it moves the fields `moved`. Returns the state, the number of
    steps taken, an int32 scalar, and the last reports, those given where none was taken. But for k
    all that moves has one floating dtype.
    """

    def unpacked(carried):
        k, *values = carried
        return k, state._replace(**dict(zip(moved, values, strict=False)))  # reports follow

    def evaluate(carried):
        return optimality_fn(*unpacked(carried))

    def step(carried, value):
        k, before = unpacked(carried)
        after, *reports = step_fn(k, before, value)
        return k + 1, *(getattr(after, name) for name in moved), *reports

    carried = (tf.constant(0), *(getattr(state, name) for name in moved), *reports)
    if tol:
        carried, _ = solve_inner(evaluate, step, carried, max_steps=max_steps, tol=tol)
    elif max_steps == 1:  # shares what it computes with the hypergradient, as a loop's body cannot
        carried = step(carried, evaluate(carried))
    else:
        flat, unravel = ravel(carried[1:])  # each tensor that a loop carries costs microseconds

        def flat_step(k, flat):
            carried = k, *unravel(flat)
            k, *values = step(carried, evaluate(carried))
            return k, ravel(values)[0]

        k, flat = tf.while_loop(lambda k, _: k < max_steps, flat_step, (carried[0], flat))
        carried = k, *unravel(flat)
    k, after = unpacked(carried)
    return after, k, *carried[1 + len(moved) :]
