"""Implicit differentiation: gradients through the solution of f(solution, *args) = 0.

`root_vjp` is the core, `custom_root` sugar over it. Both take a linear solver, `solve(matvec, b) ->
(x, SolveInfo)`, which `get_solver` finds by name. Vectors are nested structures of tensors; all of
it runs eagerly and under `tf.function(jit_compile=True)`, in float32 and float64.

    optimality_fn = gradient_of(inner_loss)  # inner_loss(w, theta)
    w, inner = solve_inner(
        lambda w: optimality_fn(w, theta), lambda w, g: w - 0.1 * g, w, max_steps=100, tol=1e-6
    )
    solve = guarded(get_solver("cg", ridge=1e-3), on_failure="identity")
    (grad_theta,), info = root_vjp(optimality_fn, w, (theta,), grad_w_of_outer_loss, solve)

`info.result` says which way a solve failed (`Result`). A fixed number of steps, which is not to
converge, is `guarded(get_solver("cg", max_steps=10), on_failure="use")`.
"""

from omd_tf2.implicit.gauss_newton import dense_layers_kernel, target_weights
from omd_tf2.implicit.inner import solve_inner
from omd_tf2.implicit.linear_solve import Result, SolveInfo
from omd_tf2.implicit.root import custom_root, gradient_of, root_vjp
from omd_tf2.implicit.solvers import (
    SOLVERS,
    SolveError,
    check_converged,
    get_solver,
    guarded,
    solver_options,
)
from omd_tf2.implicit.structures import loss_and_gradient
