"""Gauss-Newton solver for inner problems of least squares, exact in its dual form.

J^T J / B is the Hessian of the inner loss sum(residuals^2) / (2 B) without its residuals' curvature:
positive semidefinite by construction, and equal to the Hessian where the residuals vanish.

With fewer residuals than parameters it is solved directly in its dual form, with the kernel
K = J J^T / B: v = J^T (K + ridge I)^{-1} e / B. This takes `b` to be in the row space of J, as
the gradient of any loss of the same predictions is: b = J^T e / B. What lies outside is left
unsolved and shows in the residual reported, and so does the rounding of a singular kernel
without a ridge. Otherwise it is solved by `solve_cg`, for any b, but for the two options that
are of the dual form: `ridge_relative` and `correct_inner`.

residual_fn: (solution, batch) -> residuals `[B]` or `[B, H]`.
solution: where J is taken, a structure like b.
batch: tensors `[B, ...]`.
outer_residuals: e, shaped as the residuals; else it is recovered from b, which costs a
  factorisation and the accuracy of K's smallest eigenvalues.
inner_residuals: r, of the inner problem itself, shaped as the residuals: for `correct_inner`.
kernel: K, `[B H, B H]` (`[H, B, B]` for independent heads), where the caller has it cheaper than
  by as many products as there are residuals; see `dense_layers_kernel`.
independent_heads: residuals of different heads share no parameters: one kernel per head.
ridge_relative: in place of `ridge`, a multiple of the kernel's mean eigenvalue, per head.
correct_inner: in place of e takes what it were after one Gauss-Newton step of the inner problem,
  e - K (K + ridge I)^{-1} r, and b = J^T e / B of that (docs/equations.md). The residual reported
  is of the solve with that b: what rounding leaves of b, epsilon (|e| + |r|), it does not hold.
tol: as of the other solvers, but in the dual form not below ten times epsilon trace(K) / ridge
  (1% at most): trace(K) bounds the matrix's largest eigenvalue, ridge the smallest. So of a
  relative ridge it is 10 epsilon n / ridge_relative, n residuals a kernel, whatever the spectrum.
max_steps: of `solve_cg`.
"""

from collections.abc import Callable, Sequence

import tensorflow as tf

from omd_tf2.implicit.linear_solve import Solution, System, check_options, eps, solve_cg
from omd_tf2.implicit.structures import (
    LinearMap,
    Structure,
    check_same_shapes,
    linearised,
    to_tensors,
)

_LEAF_SIZE = 32  # of the recursion: at n = 256 as fast as 16, compiled in half the time
_MAX_TOL = 1e-2  # what a tolerance follows the conditioning up to


def solve_gauss_newton(
    matvec: LinearMap,
    b: Structure,
    *,
    residual_fn: Callable[[Structure, Structure], tf.Tensor],
    solution: Structure,
    batch: Structure,
    outer_residuals: tf.Tensor | None = None,
    inner_residuals: tf.Tensor | None = None,
    kernel: tf.Tensor | None = None,
    independent_heads: bool = False,
    ridge: float = 0.0,
    ridge_relative: float = 0.0,
    correct_inner: bool = False,
    tol: float = 1e-5,
    max_steps: int = 100,
) -> Solution:
    """Solves (J^T J / B + ridge I) v = b, where J = d residual_fn(solution, batch) / d solution.

    The arguments and the two ways to the answer are this module's. `matvec` is not used.

    Raises ValueError for options out of range, or shapes that do not fit one another.
    """
    check_options(ridge=ridge, ridge_relative=ridge_relative, tol=tol, max_steps=max_steps)
    b, solution, batch = to_tensors((b, solution, batch))
    check_same_shapes("b", b, solution)
    residuals, jvp, vjp = linearised(lambda point: residual_fn(point, batch), solution)
    shape = residuals.shape
    e = _checked("outer_residuals", outer_residuals, shape)
    r = _checked("inner_residuals", inner_residuals, shape)
    if correct_inner and (e is None or r is None):
        raise ValueError("correct_inner needs outer_residuals and inner_residuals")

    def pull_back(weights: tf.Tensor) -> Structure:
        return vjp(weights / shape[0])

    def product(vector: Structure) -> Structure:
        return pull_back(jvp(vector))

    parameters = sum(leaf.shape.num_elements() for leaf in tf.nest.flatten(solution))
    if shape.num_elements() >= parameters and not (ridge_relative or correct_inner):
        return solve_cg(product, b, ridge=ridge, tol=tol, max_steps=max_steps)
    if kernel is None:
        units = tf.eye(shape.num_elements(), dtype=residuals.dtype)
        rows = tf.map_fn(lambda unit: jvp(pull_back(tf.reshape(unit, shape))), units)
        kernel = tf.reshape(rows, units.shape)
        if independent_heads and shape.rank == 2:  # the coupling of a head's residuals alone
            kernel = tf.einsum("bhch->hbc", tf.reshape(rows, [*shape, *shape]))
    dual = _Dual(kernel, shape, independent_heads, ridge, ridge_relative)
    if correct_inner:
        e = dual.after_one_step(e, r)
        b = pull_back(e)
    elif e is None:
        e = _Dual(kernel, shape, independent_heads).solve(jvp(b))
    weights = dual.solve(e)
    x = pull_back(weights)
    system = dual.system(product, b, tol)
    return system.finish(system.scaled(x), product=pull_back(jvp(x) + dual.ridge * weights))


def target_weights(
    outer_residuals: tf.Tensor,
    inner_residuals: tf.Tensor,
    kernel: tf.Tensor,
    *,
    independent_heads: bool = False,
    ridge: float = 0.0,
    ridge_relative: float = 0.0,
    correct_inner: bool = False,
    tol: float = 1e-5,
) -> Solution:
    """Returns c, shaped as the residuals: `root_vjp` with `solve_gauss_newton` without any J.

    Where theta moves the inner residuals' targets y alone, its hypergradient is (dy/dtheta)^T c / B
    with c = K (K + ridge I)^{-1} e (docs/equations.md). The residual reported is this system's. The
    identity's c is K e.
    """
    check_options(ridge=ridge, ridge_relative=ridge_relative, tol=tol)
    e = tf.convert_to_tensor(outer_residuals)
    r = _checked("inner_residuals", inner_residuals, e.shape)
    dual = _Dual(kernel, e.shape, independent_heads, ridge, ridge_relative)
    e = dual.after_one_step(e, r) if correct_inner else e
    system = dual.system(lambda x: dual.product(x) + dual.ridge * x, e, tol)
    weights, info = system.finish(system.scaled(dual.solve(e)))
    return dual.product(weights), info


def _checked(name, given, shape):
    if shape.rank not in (1, 2) or not shape.is_fully_defined():
        raise ValueError(f"residual_fn must return [B] or [B, H], got shape {shape}")
    given = None if given is None else tf.convert_to_tensor(given)
    if given is not None and given.shape != shape:
        raise ValueError(f"{name} must have the residuals' shape {shape}, got {given.shape}")
    return given


class _Dual:
    """(K + ridge I) and its inverse, K as `[G, n, n]`: G groups of residuals, not coupled.

    What it maps is shaped as the residuals; against these its ridge broadcasts, a number or `[G]`.
    """

    def __init__(self, kernel, shape, independent_heads, ridge=0.0, ridge_relative=0.0):
        kernel, separate = tf.convert_to_tensor(kernel), independent_heads and shape.rank == 2
        self._shape, groups = shape, shape[1] if separate else 1
        n = shape.num_elements() // groups
        expected = [groups, n, n] if separate else [n, n]
        if kernel.shape != expected:
            raise ValueError(f"kernel must have shape {expected}, got {kernel.shape}")
        self._kernel = tf.reshape(kernel, [groups, n, n])
        trace, self._eps = tf.linalg.trace(self._kernel), eps(kernel.dtype)
        self.ridge = ridge_relative * trace / n if ridge_relative else ridge
        self._condition = tf.reduce_max(tf.math.divide_no_nan(trace, self.ridge))  # 0: no bound
        # A ridge below rounding level is raised to it: a kernel of full rank always factors.
        self._raised = tf.maximum(self._eps * trace, self.ridge)
        diagonal = tf.linalg.diag_part(self._kernel) + self._raised[:, None]
        self._matrix = tf.linalg.set_diag(self._kernel, diagonal)
        self._factor = inverse_factor(self._matrix)

    def system(self, matvec: LinearMap, b: Structure, tol: float) -> System:
        """Of the ridge already in what `matvec` gives, or in what `finish` is given."""
        system = System(matvec, b, 0.0, tol)
        rounding = 10 * self._eps * self._condition
        system.tol = tf.clip_by_value(rounding, system.tol, max(system.tol, _MAX_TOL))
        return system

    def product(self, weights: tf.Tensor) -> tf.Tensor:
        """K weights."""
        return self._residuals(self._kernel @ self._columns(weights))

    def solve(self, weights: tf.Tensor) -> tf.Tensor:
        """(K + ridge I)^{-1} weights."""
        columns = self._columns(weights)
        solved = self._solve_once(columns)  # refined once, since the factor is an inverse's:
        return self._residuals(solved + self._solve_once(columns - self._matrix @ solved))

    def after_one_step(self, outer: tf.Tensor, inner: tf.Tensor) -> tf.Tensor:
        """outer - K (K + ridge I)^{-1} inner, as K (K + ridge I)^{-1} = I - ridge (K + ridge I)^{-1}."""
        return outer - inner + self._raised * self.solve(inner)

    def _solve_once(self, columns):
        return tf.matmul(self._factor, self._factor @ columns, transpose_a=True)

    def _columns(self, weights):
        return tf.transpose(tf.reshape(weights, [-1, self._kernel.shape[0]]))[:, :, None]

    def _residuals(self, columns):
        return tf.reshape(tf.transpose(columns[:, :, 0]), self._shape)


def inverse_factor(matrix: tf.Tensor) -> tf.Tensor:
    """Returns lower triangular W with W A W^T = I for `[..., n, n]` positive definite A: L^{-1}.

    NaN where A is not positive definite. On the CPU this replaces `tf.linalg.cholesky`, for which
    XLA has no LAPACK there: 1 ms instead of 13 ms at n = 256 in float32, because all but the small
    leaves of the recursion are matrix products.
    """
    n = matrix.shape[-1]
    if n <= _LEAF_SIZE:
        return _eliminate(matrix)
    half = n // 2
    w11 = inverse_factor(matrix[..., :half, :half])
    l21 = tf.matmul(matrix[..., half:, :half], w11, transpose_b=True)
    w22 = inverse_factor(matrix[..., half:, half:] - tf.matmul(l21, l21, transpose_b=True))
    w21 = -w22 @ (l21 @ w11)
    top = tf.concat([w11, tf.zeros_like(matrix[..., :half, half:])], -1)
    return tf.concat([top, tf.concat([w21, w22], -1)], -2)


def _eliminate(matrix: tf.Tensor) -> tf.Tensor:
    """`inverse_factor` by Gaussian elimination of [A, I] to [D L^T, L^{-1}], L of unit diagonal."""
    n = matrix.shape[-1]
    rows = tf.range(n)

    def step(k, work):
        pivot_row = tf.gather(work, k, axis=-2)
        below = tf.cast(rows > k, work.dtype)
        column, pivot = tf.gather(work, k, axis=-1), tf.gather(pivot_row, k, axis=-1)[..., None]
        multipliers = below * column / pivot
        return k + 1, work - multipliers[..., :, None] * pivot_row[..., None, :]

    identity = tf.eye(n, batch_shape=matrix.shape[:-2], dtype=matrix.dtype)
    start = (0, tf.concat([matrix, identity], -1))
    _, work = tf.while_loop(lambda k, _: k < n, step, start)
    pivots = tf.linalg.diag_part(work[..., :n])
    return work[..., n:] / tf.sqrt(pivots)[..., :, None]


def dense_layers_kernel(inputs: Sequence[tf.Tensor], cotangents: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns K = J J^T / B, `[..., B, B]`, of residuals of a network of dense layers with biases.

    A sample's gradient in a layer is the outer product of the layer's input and the cotangent of
    its output, so that K = sum over layers of (inputs inputs^T + 1) * (cotangents cotangents^T) / B
    needs no per-sample gradients: at 2 x 32 units it costs a tenth of the products that they need.
    Per layer the inputs are `[..., B, n_in]` and the cotangents, the gradient of the summed residuals
    in its output before the activation, `[..., B, n_out]`.
    """
    gram = [tf.matmul(x, x, transpose_b=True) for x in inputs]
    weight = [tf.matmul(c, c, transpose_b=True) for c in cotangents]
    total = tf.add_n([(g + 1) * w for g, w in zip(gram, weight, strict=True)])
    return total / inputs[0].shape[-2]
