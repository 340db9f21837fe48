"""Solvers by name, and what becomes of a solve that did not converge."""

import difflib
import functools
import inspect
import math
from collections.abc import Callable, Collection

import numpy as np
import tensorflow as tf

from omd_tf2.implicit.gauss_newton import solve_gauss_newton
from omd_tf2.implicit.linear_solve import (
    Result,
    Solution,
    SolveInfo,
    Solver,
    check_options,
    solve_cg,
    solve_dense,
    solve_identity,
    solve_minres,
    solve_neumann,
)

SOLVERS: dict[str, Callable[..., Solution]] = {
    "cg": solve_cg,
    "dense": solve_dense,
    "gauss_newton": solve_gauss_newton,
    "identity": solve_identity,
    "minres": solve_minres,
    "neumann": solve_neumann,
}

ON_FAILURE = ("use", "identity", "stop")


class SolveError(RuntimeError):
    """A linear solve did not converge, and its caller asked to stop there."""


def solver_options(name: str) -> tuple[str, ...]:
    """Returns the names of the options that `get_solver(name, ...)` takes."""
    return tuple(_option_parameters(name))


def get_solver(name: str, **options) -> Solver:
    """Returns `solve(matvec, b) -> (x, SolveInfo)`: the solver of this name with these options.

    Raises ValueError for an unknown name or option (the nearest is suggested), an option out of
    range, or one that is missing: `gauss_newton` needs the residuals of a least-squares problem.
    """
    parameters = _option_parameters(name)
    for option in options:
        _check_known(f"option of solver '{name}'", option, parameters)
    needed = [option for option, p in parameters.items() if p.default is p.empty]
    if missing := [option for option in needed if option not in options]:
        raise ValueError(f"solver '{name}' needs {', '.join(missing)}")
    check_options(**options)
    return functools.partial(SOLVERS[name], **options)


def guarded(solve: Solver, on_failure: str) -> Solver:
    """Returns `solve` with the caller's choice for a solve that did not converge.

    `use` keeps its answer; `identity` takes b in its place; `stop` raises SolveError where tensors
    have values, and fills the answer with NaN in compiled code, where nothing can be raised: call
    `check_converged` on what it returned. The SolveInfo stays that of the failed solve. Raises
    ValueError for another choice.
    """
    _check_known("on_failure", on_failure, ON_FAILURE)
    if on_failure == "use":
        return solve

    @functools.wraps(solve)
    def solve_or_replace(matvec, b, **start):
        x, info = solve(matvec, b, **start)
        if on_failure == "stop" and tf.executing_eagerly():
            check_converged(info)

        def choose(solved, identity):
            other = identity if on_failure == "identity" else math.nan
            return tf.where(info.converged, solved, other)

        return tf.nest.map_structure(choose, x, b), info

    return solve_or_replace


def innermost(solve: Solver) -> Solver:
    """The `solve_*` that options and a guard were put around."""
    solve = inspect.unwrap(solve)
    return innermost(solve.func) if isinstance(solve, functools.partial) else solve


def check_converged(info: SolveInfo) -> None:
    """Raises SolveError unless every solve in `info` converged.

    For the host, on concrete tensors of any shape: the health of one solve, or of many stacked.
    """
    if tf.reduce_all(info.converged):
        return
    failed = tf.size(info.converged) - tf.math.count_nonzero(info.converged, dtype=tf.int32)
    count = "" if tf.size(info.converged) == 1 else f" in {failed} of {tf.size(info.converged)}"
    ways = sorted({Result(way) for way in np.ravel(info.result)} - {Result.CONVERGED})
    told = ", ".join(map(str, ways))
    curvature = ", negative curvature met" if tf.reduce_any(info.negative_curvature) else ""
    raise SolveError(
        f"the linear solve did not converge{count} ({told}): relative residual up to "
        f"{tf.reduce_max(info.relative_residual):.3g} after up to "
        f"{tf.reduce_max(info.iterations)} iterations{curvature}"
    )


def _option_parameters(name: str) -> dict[str, inspect.Parameter]:
    _check_known("solver", name, SOLVERS)
    parameters = inspect.signature(SOLVERS[name]).parameters.values()
    return {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}


def _check_known(kind: str, name: str, known: Collection[str]) -> None:
    if name in known:
        return
    if nearest := difflib.get_close_matches(str(name), known, n=1):
        hint = f"did you mean '{nearest[0]}'?"
    else:
        hint = f"choose from {', '.join(known)}" if known else "it takes none"
    raise ValueError(f"unknown {kind}: '{name}'; {hint}")
