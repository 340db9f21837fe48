"""The linear solver of the hypergradient as settings, and what it reports."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, ClassVar, NamedTuple

import tensorflow as tf

from baselines_tf2.common.errors import TrainingError
from envs.errors import ConfigError, check_fields
from omd_tf2.implicit import Result, get_solver, guarded, root_vjp, solver_options, target_weights
from omd_tf2.implicit.linear_solve import check_options
from omd_tf2.implicit.solvers import ON_FAILURE
from omd_tf2.implicit.structures import Structure, transposed


@dataclass(frozen=True)
class SolverConfig:
    """How (df/dw)^T x = b is solved; None leaves an option at the solver's own default."""

    RESET_BY: ClassVar[str] = "name"

    name: str = "identity"  # identity | gauss_newton | cg | minres | neumann | dense
    ridge: float | None = None  # added to the matrix's diagonal
    ridge_relative: float | None = None  # of gauss_newton: that, over its kernel's mean eigenvalue
    correct_inner: bool | None = None  # of gauss_newton: the outer loss after one step of its own
    tol: float | None = None  # relative residual at which a solve has converged; see implicit
    max_steps: int | None = None  # iterations at most, of cg, minres and neumann
    step_size: float | None = None  # of neumann
    stop_at_negative_curvature: bool | None = None  # of cg: stop there, or run on
    # What becomes of a solve that did not converge.
    on_failure: Annotated[str, ON_FAILURE] = "stop"
    optimality_norm: bool = False  # report |f|: a tenth of a step on CartPole

    def __post_init__(self):
        check_fields(self)
        try:
            known = set(solver_options(self.name))
            check_options(**self.options())
        except ValueError as error:
            raise ConfigError(str(error)) from None
        if self.name == "gauss_newton":
            known.discard("max_steps")  # here it is solved in its dual form alone
        wrong = sorted(self.options().keys() - known)
        if wrong:
            raise ConfigError(
                f"solver '{self.name}' has no option '{', '.join(wrong)}': leave it out"
            )
        if self.name == "identity" and self.on_failure != "stop":
            raise ConfigError("on_failure does nothing for the identity, which cannot fail")

    def reset(self, name: str) -> "SolverConfig":
        """What another solver starts from: none of its options set, all else as here."""
        on_failure = "stop" if name == "identity" else self.on_failure
        return SolverConfig(name, on_failure=on_failure, optimality_norm=self.optimality_norm)

    @property
    def reported(self) -> tuple[str, ...]:
        """The fields of Health that say something of this solver."""
        silent = SILENT.get(self.name, ()) + ("optimality_norm",) * (not self.optimality_norm)
        return tuple(name for name in Health._fields if name not in silent)

    def check(self, metrics: Mapping[str, float]) -> None:
        """Raises TrainingError if a solve failed and the run is to stop there.

        metrics: means over updates, what is `reported` by `solver/name`.
        """
        if self.on_failure != "stop" or metrics.get("solver/converged", 1) == 1:
            return
        # What is not finite already before the solve is not its fault: `check_finite` names it.
        before = [value for name, value in metrics.items() if not name.startswith("solver/")]
        if not all(map(math.isfinite, [*before, metrics["solver/cotangent_norm"]])):
            return
        iterations = metrics.get("solver/iterations")
        told = "" if iterations is None else f", {iterations:.0f} iterations"
        if metrics.get("solver/negative_curvature", 0) > 0:
            told += ", negative curvature met"
        mean = metrics["solver/result"] / (1 - metrics["solver/converged"])  # of those that failed
        way = str(Result(round(mean))) if abs(mean - round(mean)) < 1e-3 else "in several ways"
        more = ", tol or max_steps" if way == str(Result.STEPS) else " or tol"
        ridge = "ridge_relative" if self.ridge_relative else "ridge"
        cure = f"{ridge}{more} higher" + ", step_size lower" * (self.name == "neumann")
        raise TrainingError(
            f"the solve by '{self.name}' did not converge ({way}): relative residual, the mean of the "
            f"cycle's solves, {metrics['solver/relative_residual']:.2g}{told}; set "
            f"agent.solver.{cure}, or agent.solver.on_failure=use or identity"
        )

    def options(self) -> dict[str, float | int | bool]:
        """The linear solver's own options that were set."""
        values = {x.name: getattr(self, x.name) for x in fields(self) if x.default is None}
        return {name: value for name, value in values.items() if value is not None}


class LeastSquares(NamedTuple):
    """An inner loss weight |values - targets|^2 / (2 B), heads summed, that share no weights.

    The outer loss is the same with other targets. Its residuals, and the kernel that goes with them,
    are those of sqrt(weight) times the values; see implicit.
    """

    weight: float
    values: tf.Tensor  # [B, H]
    targets_fn: Callable[[Structure], tf.Tensor]  # theta -> [B], of all heads
    outer_targets: tf.Tensor  # [B]
    kernel: tf.Tensor  # of the values, [H, B, B]


class Health(NamedTuple):
    """What to know of one hypergradient, scalars."""

    iterations: tf.Tensor
    relative_residual: tf.Tensor  # at most 1, that of no answer at all; also where not finite
    negative_curvature: tf.Tensor  # 1 if met
    converged: tf.Tensor  # 1 if it did
    result: tf.Tensor  # 0 if it did, else which way it failed: see `implicit.Result`
    optimality_norm: tf.Tensor  # |f|: the theorem holds where it is 0
    cotangent_norm: tf.Tensor  # of the outer loss's gradient in the inner solution
    hypergradient_norm: tf.Tensor


SILENT = {  # what is the same in every solve
    "identity": tuple(name for name in Health._fields if name != "optimality_norm"),
    "gauss_newton": ("iterations", "negative_curvature"),
    "dense": ("iterations",),
}


def hypergradient(
    config: SolverConfig,
    optimality_fn: Callable[[Structure, Structure], Structure],
    solution: Structure,
    theta: Structure,
    cotangent: Structure,
    problem: Callable[[], LeastSquares],
) -> tuple[Structure, Health]:
    """-(df/dtheta)^T (df/dw)^{-T} cotangent, f = optimality_fn(w, theta), and its health.

    2106.03273, equation 5; `root_vjp` has the invariant. Gauss-Newton alone asks for the problem.
    """
    # A solve that is to stop the run is marked instead: nothing can be raised in compiled code.
    on_failure = "use" if config.on_failure == "stop" else config.on_failure
    if config.name == "gauss_newton":
        gradient, info, cotangent_norm = _through_targets(config, theta, problem(), on_failure)
    else:
        solve = guarded(get_solver(config.name, **config.options()), on_failure)
        (gradient,), info = root_vjp(optimality_fn, solution, (theta,), cotangent, solve)
        cotangent_norm = _norm(cotangent)
    if config.on_failure == "stop" and config.name != "identity":
        gradient = tf.nest.map_structure(lambda x: tf.where(info.converged, x, math.nan), gradient)
    norms = [_norm(optimality_fn(solution, theta)), cotangent_norm, _norm(gradient)]
    counted = Health(*(tf.cast(x, cotangent_norm.dtype) for x in info), *norms)
    residual = counted.relative_residual
    return gradient, counted._replace(relative_residual=tf.where(residual < 1, residual, 1))


def _through_targets(config, theta, problem, on_failure):
    """The same by Gauss-Newton, from the targets' weights alone: no Jacobian is formed or met.

    The cotangent's norm |J^T e / B|, sqrt(e^T K e / B), comes without the backward pass.
    """
    targets, pull_back = transposed(problem.targets_fn, theta)
    kernel, root = problem.weight * problem.kernel, math.sqrt(problem.weight)
    inner, e = (root * (problem.values - y[:, None]) for y in (targets, problem.outer_targets))
    pushed = tf.einsum("hij,jh->ih", kernel, e)

    def solve(_, identity):
        return target_weights(e, inner, kernel, independent_heads=True, **config.options())

    weights, info = guarded(solve, on_failure)(None, pushed)
    norm = tf.sqrt(tf.maximum(tf.reduce_sum(e * pushed), 0) / e.shape[0])
    return pull_back(root * tf.reduce_sum(weights, -1) / e.shape[0]), info, norm


def _norm(structure):
    return tf.linalg.global_norm(tf.nest.flatten(structure))


def report(config: SolverConfig, health: Health) -> tuple[tf.Tensor, ...]:
    """What is `reported` of it; the rest is never computed in compiled code."""
    return tuple(getattr(health, name) for name in config.reported)


def check_agent(config: Any, heeded: Mapping[str, str]) -> None:
    """ConfigError for a field that `check_fields` refuses, or that the agent would not heed.

    heeded: agent -> the options of some agents alone that this one heeds; the solver is omd's.
    """
    check_fields(config)
    some = " ".join(heeded.values()).split()
    for name in sorted(set(some) - set(heeded[config.agent].split())):
        if getattr(config, name) != getattr(type(config), name):
            raise ConfigError(f"{name} means nothing to agent '{config.agent}': leave it out")
    if config.agent != "omd" and config.solver != SolverConfig():
        raise ConfigError(f"agent '{config.agent}' solves no linear system: leave solver out")
