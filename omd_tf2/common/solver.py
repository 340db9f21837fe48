"""The linear solver of the hypergradient as settings, and what it reports."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any, ClassVar, NamedTuple

import tensorflow as tf

from baselines_tf2.common.errors import TrainingError
from envs.errors import ConfigError, check_fields
from omd_tf2.implicit import Result, get_solver, guarded, root_vjp, solver_options, target_weights
from omd_tf2.implicit.linear_solve import Solver
from omd_tf2.implicit.structures import Structure, transposed

OPTIONS = (  # of `SolverConfig` that are the linear solver's own
    "ridge",
    "ridge_relative",
    "correct_inner",
    "tol",
    "max_steps",
    "step_size",
    "stop_at_negative_curvature",
)


@dataclass(frozen=True)
class SolverConfig:
    """How (df/dw)^T x = b is solved; None leaves an option at the solver's own default."""

    RESET_BY: ClassVar[str] = "name"

    name: str = "identity"  # identity | gauss_newton | cg | minres | neumann | dense
    ridge: float | None = None  # added to the matrix's diagonal
    ridge_relative: float | None = None  # of gauss_newton: that, over its kernel's mean eigenvalue
    correct_inner: bool | None = None  # of gauss_newton: the outer loss after one step of its own
    tol: float | None = None  # relative residual at which an iterative solver stops
    max_steps: int | None = None  # iterations at most
    step_size: float | None = None  # of neumann
    stop_at_negative_curvature: bool | None = None  # of cg: stop there, or run on
    on_failure: str = "stop"  # what becomes of a solve that did not converge: use | identity | stop
    optimality_norm: bool = False  # report |f|: a tenth of a step on CartPole

    def __post_init__(self):
        check_fields(self)
        try:
            known = solver_options(self.name)
            wrong = [option for option in self.options() if option not in known]
            if wrong:
                raise ConfigError(
                    f"solver '{self.name}' has no option '{', '.join(wrong)}': leave it out"
                )
            self.build(lambda: LeastSquares(*[None] * len(LeastSquares._fields)))
        except ValueError as error:
            raise ConfigError(str(error)) from None
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
        raise TrainingError(
            f"the solve by '{self.name}' did not converge ({way}): relative residual "
            f"{metrics['solver/relative_residual']:.2g}{told}; set agent.solver.ridge{more} "
            "higher, or agent.solver.on_failure=use or identity"
        )

    def options(self) -> dict[str, float | int | bool]:
        """The options that were set."""
        return {name: getattr(self, name) for name in OPTIONS if getattr(self, name) is not None}

    def build(self, problem: Callable[[], "LeastSquares"]) -> Solver:
        """The solver; Gauss-Newton alone asks for the problem."""
        options = self.options()
        if self.name == "gauss_newton":
            options |= problem().options()
        return self.guarded(get_solver(self.name, **options))

    def guarded(self, solve: Solver) -> Solver:
        """`solve`, with what is to become of a failure."""
        solve_or_replace = guarded(solve, self.on_failure)
        if self.name == "identity":  # it cannot fail
            return solve
        return _marked(solve) if self.on_failure == "stop" else solve_or_replace


def _marked(solve: Solver) -> Solver:
    """`solve`, NaN in place of an answer that did not converge: `SolverConfig.check` stops the run.

    Unlike `guarded` it does so eagerly too.
    """

    @wraps(solve)
    def solve_or_mark(matvec, b, **start):
        x, info = solve(matvec, b, **start)
        return tf.nest.map_structure(lambda y: tf.where(info.converged, y, math.nan), x), info

    return solve_or_mark


class LeastSquares(NamedTuple):
    """An inner loss |values - targets|^2 / (2 B) of heads without common weights; see implicit."""

    values_fn: Callable[[Structure, Structure], tf.Tensor]  # (solution, batch) -> [B, H]
    targets_fn: Callable[[Structure], tf.Tensor]  # theta -> [B, H]
    solution: Structure
    batch: Structure  # [B, ...]
    outer_residuals: tf.Tensor  # [B, H]
    kernel: tf.Tensor  # [H, B, B]

    def options(self) -> dict[str, Any]:
        """What `solve_gauss_newton` is told of it: its residuals' derivatives are the values'."""
        told = {name: getattr(self, name) for name in ("solution", "batch", "kernel")}
        outer = {"outer_residuals": self.outer_residuals, "independent_heads": True}
        return told | outer | {"residual_fn": self.values_fn}

    def has_full_rank(self) -> bool:
        """Whether its kernel can have: not with more residuals than weights."""
        sizes = [leaf.shape.num_elements() for leaf in tf.nest.flatten(self.solution)]
        return self.outer_residuals.shape.num_elements() < sum(sizes)


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

    2106.03273, equation 5; `root_vjp` has the invariant.
    """
    dual = config.ridge or config.ridge_relative or config.correct_inner
    if config.name == "gauss_newton" and (dual or problem().has_full_rank()):
        gradient, info = _through_targets(config, theta, problem())
    else:
        solve = config.build(problem)
        (gradient,), info = root_vjp(optimality_fn, solution, (theta,), cotangent, solve)
    structures = optimality_fn(solution, theta), cotangent, gradient
    norms = [tf.linalg.global_norm(tf.nest.flatten(x)) for x in structures]
    counted = Health(*(tf.cast(x, norms[0].dtype) for x in info), *norms)
    residual = counted.relative_residual
    return gradient, counted._replace(relative_residual=tf.where(residual < 1, residual, 1))


def _through_targets(config, theta, problem):
    """The same by Gauss-Newton, from the targets' weights alone: no Jacobian is formed or met."""
    targets, pull_back = transposed(problem.targets_fn, theta)
    e, kernel = problem.outer_residuals, problem.kernel
    inner = problem.values_fn(problem.solution, problem.batch) - targets
    options = {"independent_heads": True} | config.options()
    options.pop("max_steps", None)  # of another form of the solver

    def solve(_, identity):
        return target_weights(e, inner, kernel, **options)

    identity = tf.einsum("hij,jh->ih", kernel, e)
    weights, info = config.guarded(solve)(None, identity)
    return pull_back(weights / e.shape[0]), info


def report(config: SolverConfig, health: Health) -> tuple[tf.Tensor, ...]:
    """What is `reported` of it; the rest is never computed in compiled code."""
    return tuple(getattr(health, name) for name in config.reported)
