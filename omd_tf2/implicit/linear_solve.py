"""Linear solvers: `solve_*(matvec, b, **options) -> (x, SolveInfo)`.

`matvec` maps a nested structure of tensors to one alike, linearly; `b` and `x` are such structures,
whose leaves share one floating dtype. The matrix solved with is M = A + ridge I, where `matvec` is
the product with A. Every solver reports the residual of the answer it returns, computed anew: that of a
recurrence drifts from it in finite precision.

Options, where a solver has them:
  ridge: non-negative multiple of the identity added to A.
  tol: relative residual |b - M x| / |b| at which a solve has converged; below the precision of the
    dtype it is taken as ten times its epsilon.
  max_steps: largest number of products with A in iterations, at least 1.
  x0: where an iterative solver starts, shaped as b, in place of zero: it takes one product more.
ValueError is raised for a value outside these ranges.
"""

import math
from collections.abc import Callable
from enum import IntEnum
from numbers import Real
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from omd_tf2.implicit.structures import LinearMap, Structure, ravel


class Result(IntEnum):
    """How a solve ended."""

    CONVERGED = 0
    STEPS = 1  # max_steps were not enough
    BREAKDOWN = 2  # no way on: the end of the dtype's precision, or a singular matrix in iterations
    NEGATIVE_CURVATURE = 3  # stopped by it, as asked for
    NOT_FINITE = 4  # the answer, as of a singular matrix where it is factored, or what came in

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


class SolveInfo(NamedTuple):
    """Health of a linear solve, as scalar tensors.

    M is the matrix that the solver stands for: A + ridge I, for Gauss-Newton J^T J / B + ridge I,
    for the identity I. How well M stands for A is not measured here.
    """

    iterations: tf.Tensor  # int32; 0 for a direct solver
    relative_residual: tf.Tensor  # |b - M x| / |b| of the x returned; 0 where b = 0
    negative_curvature: tf.Tensor  # bool; a direction d with d^T M d < 0 was met
    converged: tf.Tensor  # bool; relative_residual <= tol, hence False where x is not finite
    result: tf.Tensor  # int32, a Result: CONVERGED, or which way it failed


Solution = tuple[Structure, SolveInfo]
Solver = Callable[..., Solution]  # (matvec, b), and x0 where one is iterative


def _is_finite(value) -> bool:
    return isinstance(value, Real) and math.isfinite(value)


_AT_LEAST_0 = ("a finite number >= 0", lambda v: _is_finite(v) and v >= 0)
_RULES = {
    **dict.fromkeys(("ridge", "ridge_relative", "tol"), _AT_LEAST_0),
    "step_size": ("a finite number > 0", lambda v: _is_finite(v) and v > 0),
    "max_steps": ("an integer >= 1", lambda v: isinstance(v, int | np.integer) and v >= 1),
}


def check_options(**options) -> None:
    """Raises ValueError for an option outside its range, or two ridges."""
    for name, value in options.items():
        meaning, holds = _RULES.get(name, ("", lambda _: True))
        if not holds(value):
            raise ValueError(f"{name} must be {meaning}, got {value!r}")
    if options.get("ridge") and options.get("ridge_relative"):
        raise ValueError("ridge and ridge_relative exclude each other: set one to 0")


def eps(dtype: tf.DType) -> float:
    return float(tf.experimental.numpy.finfo(dtype.as_numpy_dtype).eps)


class System:
    """M x = b on flat vectors, b scaled to a largest entry of 1 so that no square under/overflows.

    Solvers work on `product` and `b`, and hand their x to `finish`.
    """

    def __init__(
        self, matvec: LinearMap, b: Structure, ridge: float, tol: float, max_steps: int = 1
    ):
        check_options(ridge=ridge, tol=tol, max_steps=max_steps)
        vector, self._unravel = ravel(b)
        self._matvec, self._ridge, self._max_steps = matvec, ridge, max_steps
        self._scale = tf.reduce_max(tf.abs(vector))
        self.b = tf.math.divide_no_nan(vector, self._scale)
        self.b_norm = tf.norm(self.b)
        self.tol = max(tol, 10 * eps(self.b.dtype))
        # Loops watch a recurrence's residual; half the tolerance leaves it room to drift.
        self._target = 0.5 * self.tol * self.b_norm

    def product(self, vector: tf.Tensor) -> tf.Tensor:
        return ravel(self._matvec(self._unravel(vector)))[0] + self._ridge * vector

    def scaled(self, x: Structure) -> tf.Tensor:
        """Returns an x of the caller's scale as the flat vector that `finish` takes."""
        return tf.math.divide_no_nan(ravel(x)[0], self._scale)

    def start(self, x0: Structure | None) -> tuple[tf.Tensor, tf.Tensor]:
        """The x to begin with, and b - M x."""
        if x0 is None:
            return tf.zeros_like(self.b), self.b
        x = self.scaled(x0)
        return x, self.b - self.product(x)

    def unfinished(self, steps: tf.Tensor, residual: tf.Tensor) -> tf.Tensor:
        """Whether there are steps left, and the residual's norm asks for one."""
        return (steps < self._max_steps) & (residual > self._target)

    def finish(
        self, x: tf.Tensor, steps=0, negative_curvature=False, product=None, *, stopped=False
    ) -> Solution:
        """x with its health.

        steps: of an iterative solver; product: M x of the caller's scale, where the caller has it;
        stopped: whether negative curvature ended it.
        """
        product = self.product(x) if product is None else self.scaled(product)
        residual = tf.norm(self.b - product) / tf.where(self.b_norm != 0, self.b_norm, 1.0)
        spent = steps >= self._max_steps
        info = solve_info(residual, self.tol, steps, negative_curvature, spent, stopped)
        return self._unravel(self._scale * x), info


def solve_info(
    residual: tf.Tensor, tol, steps=0, negative_curvature=False, spent=False, stopped=False
) -> SolveInfo:
    """The health of a solve: spent, whether it had no steps left; stopped, by curvature."""
    failed = tf.where(spent, Result.STEPS, Result.BREAKDOWN)
    failed = tf.where(stopped, Result.NEGATIVE_CURVATURE, failed)
    failed = tf.where(tf.math.is_finite(residual), failed, Result.NOT_FINITE)
    negative = tf.convert_to_tensor(negative_curvature)
    solved = residual <= tol
    result = tf.where(solved, Result.CONVERGED, failed)
    return SolveInfo(tf.convert_to_tensor(steps), residual, negative, solved, result)


def _dot(x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(x * y)


def solve_cg(
    matvec: LinearMap,
    b: Structure,
    *,
    ridge: float = 0.0,
    tol: float = 1e-5,
    max_steps: int = 100,
    stop_at_negative_curvature: bool = False,
    x0: Structure | None = None,
) -> Solution:
    """Conjugate gradients (Hestenes & Stiefel 1952), for a symmetric positive definite M.

    On an indefinite M it may diverge. Where a direction of negative curvature is met it stops with
    the iterate before it, or runs on, as told.
    """
    system = System(matvec, b, ridge, tol, max_steps)

    def unfinished(k, x, r, p, rr, negative, halted):
        return system.unfinished(k, tf.sqrt(rr)) & ~halted

    def step(k, x, r, p, rr, negative, halted):
        product = system.product(p)
        curvature = _dot(p, product)
        halted = curvature == 0
        if stop_at_negative_curvature:
            halted |= curvature < 0
        # A halted step moves nothing, and divide_no_nan keeps 0 / 0 out of the exact solution.
        alpha = tf.where(halted, tf.zeros_like(rr), tf.math.divide_no_nan(rr, curvature))
        r = r - alpha * product
        rr_next = _dot(r, r)
        p_next = r + tf.math.divide_no_nan(rr_next, rr) * p
        return k + 1, x + alpha * p, r, p_next, rr_next, negative | (curvature < 0), halted

    no, (x, r) = tf.constant(False), system.start(x0)
    start = (0, x, r, r, _dot(r, r), no, no)
    k, x, _, _, _, negative, halted = tf.while_loop(unfinished, step, start)
    stopped = halted & negative & stop_at_negative_curvature
    return system.finish(x, k, negative, stopped=stopped)


def solve_minres(
    matvec: LinearMap,
    b: Structure,
    *,
    ridge: float = 0.0,
    tol: float = 1e-5,
    max_steps: int = 100,
    x0: Structure | None = None,
) -> Solution:
    """MINRES (Paige & Saunders 1975), for a symmetric M: indefinite or singular as well.

    The residual never grows. On a singular consistent system the answer is the solution of least
    norm; on an inconsistent one it is a least-squares solution, reported as not converged. Parts of
    b in eigenspaces below sqrt(epsilon) |M| count as inconsistent. Negative curvature of the
    residuals is read off the recurrence (Liu & Roosta 2022, arXiv 2206.05732).
    """
    system = System(matvec, b, ridge, tol, max_steps)

    def unfinished(k, x, residual, halted, *_):
        return system.unfinished(k, residual) & ~halted

    def step(k, x, residual, halted, lanczos, directions, reflection, column, norm, negative):
        # Of what is kept twice, Lanczos vectors v and search directions d, 0 is the older one; beta
        # couples v0 and v1. The reflection is the last one; column: delta_k^(1) and epsilon_k.
        (v0, v1, beta), (d0, d1) = lanczos, directions
        (cos, sin), (delta, epsilon) = reflection, column
        q = system.product(v1) - beta * v0
        alpha = _dot(v1, q)
        q = q - alpha * v1
        beta = tf.norm(q)
        # The last reflection, applied to the new column of the tridiagonal matrix.
        delta, gamma = cos * delta + sin * alpha, sin * delta - cos * alpha
        norm = tf.maximum(norm, tf.sqrt(alpha**2 + beta**2))  # of the largest column so far
        # |M r| / (|M| |r|) is gone: r is a least-squares residual, and what is left to divide by
        # below is rounding that would blow x up. Such a step moves nothing. The quotient bottoms
        # out below sqrt(epsilon): measured at most 0.35 of it over 1,200 random singular systems.
        halted = tf.sqrt(gamma**2 + (cos * beta) ** 2) <= eps(q.dtype) ** 0.5 * norm
        # cos * gamma = -r^T M r / r^T r of the residual before this step.
        negative |= cos * gamma > 10 * eps(q.dtype) * norm
        column, gamma2 = (-cos * beta, sin * beta), tf.sqrt(gamma**2 + beta**2)
        cos, sin = (tf.math.divide_no_nan(y, gamma2) for y in (gamma, beta))
        d = tf.math.divide_no_nan(v1 - delta * d1 - epsilon * d0, gamma2)
        x = tf.where(halted, x, x + cos * residual * d)
        residual = tf.where(halted, residual, sin * residual)
        lanczos = v1, tf.math.divide_no_nan(q, beta), beta
        return k + 1, x, residual, halted, lanczos, (d1, d), (cos, sin), column, norm, negative

    zero, no, none = tf.zeros_like(system.b_norm), tf.constant(False), tf.zeros_like(system.b)
    x, r = system.start(x0)
    size = tf.norm(r)  # phi: from here on the residual's norm is the recurrence's
    lanczos = none, tf.math.divide_no_nan(r, size), zero
    start = (0, x, size, no, lanczos, (none, none), (zero - 1, zero), (zero, zero), zero, no)
    k, x, *_, negative = tf.while_loop(unfinished, step, start)
    return system.finish(x, k, negative)


def solve_neumann(
    matvec: LinearMap,
    b: Structure,
    *,
    step_size: float = 1.0,
    ridge: float = 0.0,
    tol: float = 1e-5,
    max_steps: int = 100,
    x0: Structure | None = None,
) -> Solution:
    """Truncated Neumann series sum_k step_size (I - step_size M)^k b (Lorraine et al. 2020).

    Converges where |1 - step_size * eigenvalue| < 1 for every eigenvalue of M, which need not be
    symmetric; diverges otherwise. `step_size` is a number > 0.
    """
    check_options(step_size=step_size)
    system = System(matvec, b, ridge, tol, max_steps)

    def unfinished(k, x, r, negative):
        return system.unfinished(k, tf.norm(r))

    def step(k, x, r, negative):
        product = system.product(r)  # the next term of the series is the residual as well
        return k + 1, x + step_size * r, r - step_size * product, negative | (_dot(r, product) < 0)

    start = (0, *system.start(x0), tf.constant(False))
    k, x, _, negative = tf.while_loop(unfinished, step, start)
    return system.finish(x, k, negative)


def solve_identity(matvec: LinearMap, b: Structure) -> Solution:
    """Returns b: the matrix is replaced by the identity (Luketina et al. 2016) and never used."""
    system = System(lambda x: x, b, 0.0, 0.0)
    return b, system.finish(system.b)[1]


def solve_dense(
    matvec: LinearMap, b: Structure, *, ridge: float = 0.0, tol: float = 1e-5
) -> Solution:
    """Direct solve by QR of M, written out in n products: the reference for small problems.

    M need not be symmetric; negative curvature is that of its symmetric part. A singular M gives
    NaN, not converged.
    """
    system = System(matvec, b, ridge, tol)
    identity = tf.eye(system.b.shape[0], dtype=system.b.dtype)
    matrix = tf.transpose(tf.map_fn(system.product, identity))
    q, r = tf.linalg.qr(matrix)
    pivots = tf.linalg.diag_part(r)
    # Eager triangular solves raise at a zero pivot where compiled ones return infinities.
    r = tf.linalg.set_diag(r, tf.where(pivots == 0, math.nan * pivots, pivots))
    x = tf.linalg.triangular_solve(r, tf.linalg.matvec(q, system.b, True)[:, None], lower=False)
    # Eager eigensolvers raise at what is not finite; x has it already.
    finite = tf.where(tf.math.is_finite(matrix), matrix, tf.zeros_like(matrix))
    eigenvalues = tf.linalg.eigvalsh((finite + tf.transpose(finite)) / 2)
    rounding = eigenvalues.shape[0] * eps(x.dtype) * tf.reduce_max(tf.abs(eigenvalues))
    return system.finish(x[:, 0], negative_curvature=eigenvalues[0] < -rounding)
