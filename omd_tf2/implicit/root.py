"""Derivatives of a solution of f(solution, *args) = 0 by the implicit function theorem."""

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from tensorflow.python.eager.forwardprop_util import pack_tangents  # nothing public tells it

from omd_tf2.implicit.gauss_newton import solve_gauss_newton
from omd_tf2.implicit.linear_solve import Solver
from omd_tf2.implicit.solvers import guarded, innermost
from omd_tf2.implicit.structures import (
    Structure,
    check_same_shapes,
    gradient,
    loss_and_gradient,
    to_copies,
    to_tensors,
    transposed,
)

OptimalityFn = Callable[..., Structure]


def root_vjp(
    optimality_fn: OptimalityFn,
    solution: Structure,
    args: tuple[Structure, ...],
    cotangent: Structure,
    solve: Solver,
    *,
    x0: Structure | None = None,
    return_adjoint: bool = False,
) -> tuple[Any, ...]:
    """Returns -(df/dargs)^T (df/dsolution)^{-T} cotangent, f = optimality_fn, and a SolveInfo.

    Invariant: this is the derivative of the solution only where f(solution, *args) = 0 and
    df/dsolution is invertible. At a point that is not a root it is the derivative of nothing; know
    |f| there (`solve_inner` reports it).

    Tapes differentiate the result again, to any order: the adjoint too is the solution of an
    equation, to which the theorem applies with the same solver, given the untransposed product.

    Args:
      optimality_fn: (solution, *args) -> a structure with the shapes of `solution`.
      solution: structure of floating tensors of one dtype.
      args: structures of tensors; what is no tensor belongs into a closure.
      cotangent: gradient of the outer loss with respect to the solution, shaped as it.
      solve: (matvec, b) -> (x, SolveInfo); its matvec is the product with (df/dsolution)^T, which
        is symmetric where f is the gradient of an inner loss. `get_solver` has the choice.
      x0: where an iterative solver starts, shaped as the solution: an adjoint of a problem nearby.
      return_adjoint: whether to return (df/dsolution)^{-T} cotangent as well, last.

    Returns the vjps, structured as `args`, zeros where f does not depend on a floating tensor, None
    for integers and booleans; and the solver's SolveInfo: `guarded` says what a failed one becomes.

    Raises:
      ValueError: where f(solution, *args) or the cotangent is not shaped as the solution.
      TypeError: for x0 with a solver that is not iterative.
      NotImplementedError: for second derivatives with `gauss_newton`, and in forward mode, but for
        a `tf.autodiff.ForwardAccumulator` around a compiled function: TensorFlow loses the tangents
        of tapes in a custom gradient there, and gives 0.
    """
    args = to_copies(args)
    solution, cotangent = to_tensors((solution, cotangent))
    check_same_shapes("cotangent", cotangent, solution)
    point, held, b = _cut((solution, args, cotangent))
    value, matvec = transposed(lambda point: optimality_fn(point, *held), point)
    check_same_shapes("the optimality function's value", value, solution)
    adjoint, info = solve(matvec, b) if x0 is None else solve(matvec, b, x0=x0)

    def adjoint_fn(adjoint, solution, args, cotangent):
        _, matvec = transposed(lambda point: optimality_fn(point, *args), solution)
        return tf.nest.map_structure(tf.subtract, matvec(adjoint), cotangent)

    # The adjoint is a root itself, so that derivatives of this one follow by the same theorem.
    found = adjoint
    adjoint = _rooted(adjoint_fn, lambda *_: found, (solution, args, cotangent), solve)
    vjps = _pull_back(optimality_fn, solution, args, adjoint)
    return (vjps, info, adjoint) if return_adjoint else (vjps, info)


def _pull_back(optimality_fn, solution, args, adjoint):
    """-(df/dargs)^T adjoint; None for what is no floating tensor."""
    differentiable = [leaf for leaf in tf.nest.flatten(args) if leaf.dtype.is_floating]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(differentiable)
        value = optimality_fn(solution, *args)
    minus_adjoint = tf.nest.map_structure(tf.negative, adjoint)
    pulled_back = iter(gradient(tape, value, differentiable, minus_adjoint))
    return tf.nest.map_structure(lambda x: next(pulled_back) if x.dtype.is_floating else None, args)


def _cut(structure: Structure) -> Structure:
    return tf.nest.map_structure(tf.stop_gradient, structure)


def _rooted(optimality_fn, find, args, solve):
    """find(*args), a root, whose derivatives are the theorem's in place of its own, of any order."""
    if pack_tangents(tf.nest.flatten(args)).tangents:
        raise NotImplementedError(
            "root_vjp and custom_root have no forward mode (tf.autodiff.ForwardAccumulator): take "
            "tf.GradientTape, nested for second derivatives"
        )

    @tf.custom_gradient
    def run(*leaves):
        # Cut on both sides, so that an outer tape does not record the solver's own steps.
        solution = _cut(find(*_cut(tf.nest.pack_sequence_as(args, leaves))))

        def pull_back(*cotangents):
            if innermost(solve) is solve_gauss_newton:
                raise NotImplementedError(
                    "gauss_newton answers for the residuals of one outer loss, so custom_root and "
                    "second derivatives need another solver"
                )
            # Tensors of the graph that this is called in: of a compiled function differentiated from
            # outside it is another, and a second derivative's is a third, which meets but the last.
            own, found = tf.nest.map_structure(
                tf.identity, (tf.nest.pack_sequence_as(args, leaves), solution)
            )
            known = _rooted(optimality_fn, lambda *_: found, own, solve)
            cotangent = tf.nest.pack_sequence_as(solution, cotangents)
            vjps, _ = root_vjp(optimality_fn, known, own, cotangent, solve)
            return tf.nest.flatten(vjps)

        return solution, pull_back

    return run(*tf.nest.flatten(args))


def custom_root(
    optimality_fn: OptimalityFn, solve: Solver, *, on_failure: str = "stop"
) -> Callable[[Callable[..., Structure]], Callable[..., Structure]]:
    """Decorates `solver_fn(initial, *args) -> solution` so that tapes differentiate the theorem.

    The gradient with respect to `args` is `root_vjp`'s, however the solver found the solution; with
    respect to `initial` there is none. The invariant of `root_vjp` holds: the solver must return a
    root. `gauss_newton` is for `root_vjp` alone. As no SolveInfo reaches the caller, a solve that
    fails in the backward pass stops, unless told otherwise; see `guarded`.

    Examples:
        >>> @custom_root(gradient_of(ridge_loss), get_solver("cg"))
        ... def ridge_regression(initial, x, y, penalty): ...

    Raises ValueError for an unknown `on_failure`, NotImplementedError in forward mode, as
    `root_vjp`; and TypeError, from TensorFlow, when `solver_fn` reads a variable through its
    closure: what is to be differentiated comes in through `args`.
    """
    solve = guarded(solve, on_failure)

    def decorate(solver_fn):
        @functools.wraps(solver_fn)
        def solve_differentiably(initial, *args):
            initial, args = _cut(to_tensors(initial)), to_tensors(args)
            return _rooted(optimality_fn, lambda *own: solver_fn(initial, *own), args, solve)

        return solve_differentiably

    return decorate


def gradient_of(loss_fn: Callable[..., tf.Tensor]) -> OptimalityFn:
    """Returns the optimality function of min over w of loss_fn(w, *args): its gradient in w."""
    return lambda solution, *args: loss_and_gradient(loss_fn, solution, *args)[1]
