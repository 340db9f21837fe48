"""The inner problem of the tabular setting, Q = B_hat Q, and its adjoint: both solved exactly."""

from typing import NamedTuple

import tensorflow as tf

from omd_tf2.implicit import SolveInfo, root_vjp
from omd_tf2.implicit.linear_solve import solve_info
from omd_tf2.tabular.mdp import (
    MDP,
    Model,
    backup,
    induced_mdp,
    policy_matrix,
    soft_bellman,
    soft_values,
    softmax_policy,
    solve_dominant,
)

INNER_TOL = 1e-13  # rounding in float64 leaves 1e-15
NEARLY_SOLVED = 1e-9  # from where one more Newton step, of quadratic convergence, ends in rounding
ADJOINT_TOL = 1e-10  # of a direct solve: only a wrong one is above
MAX_NEWTON_STEPS = 100


class FixedPoint(NamedTuple):
    """The solution of the inner problem, and how well it is solved."""

    q: tf.Tensor  # [S, A, N]
    values: tf.Tensor  # V = soft_values(q), [S, N]
    residual: tf.Tensor  # max |F(V) - V| / max(1, max |V|) of the worst instance, scalar
    steps: tf.Tensor  # int32; Newton steps, of the slowest instance


def solve_fixed_point(mdp: MDP, values: tf.Tensor) -> FixedPoint:
    """Solves Q = B Q for the soft Bellman operator B of `mdp`, starting from V = `values`.

    Newton's method on V = F(V), F(V) = temperature * logsumexp((R + discount P V) / temperature)
    over actions; F is convex and monotone, hence it converges from anywhere. The policy depends on
    V / temperature, so that the last digit counts. `values` `[S, N]`: the solution of a problem
    nearby saves steps. A residual above INNER_TOL, or not finite, is a problem not solved.
    """

    def improved(values):
        return soft_values(backup(values, mdp), mdp.temperature)

    def residual(values, target):
        error, size = (tf.reduce_max(tf.abs(x), 0) for x in (target - values, values))
        return tf.reduce_max(error / tf.maximum(size, 1.0))

    def unsolved(steps, values, target):
        return (steps < MAX_NEWTON_STEPS) & (residual(values, target) > NEARLY_SOLVED)

    def newton_step(steps, values, target):
        policy = softmax_policy(backup(values, mdp), mdp.temperature)
        values += solve_dominant(policy_matrix(policy, mdp), target - values)
        return steps + 1, values, improved(values)

    start = (tf.constant(0), values, improved(values))
    steps, values, target = newton_step(*tf.while_loop(unsolved, newton_step, start))
    return FixedPoint(backup(values, mdp), values, residual(values, target), steps)


def fixed_point_vjp(
    model: Model, truth: MDP, q: tf.Tensor, cotangent: tf.Tensor, exact: tf.Tensor
) -> tuple[Model, SolveInfo]:
    """The gradient in theta of an outer loss through the fixed point Q = B_hat(Q, theta).

    It is -(df/dtheta)^T (df/dQ)^{-T} dloss/dQ, f(Q, theta) = Q - B_hat(Q, theta); where `exact`,
    `[N]` bool, is false, the identity takes the inverse's place. theta is the model, whose discount
    and temperature are those of `truth`; `q`, the fixed point, and the cotangent dloss/dQ are
    `[S, A, N]`. Returns the gradient, shaped as the model, and the worst instance's health.
    """

    def optimality(q, model):
        return q - soft_bellman(q, induced_mdp(model, truth))

    def solve(matvec, b):
        x = tf.where(exact, solve_adjoint(q, induced_mdp(model, truth), b), b)
        # A saturated policy's b may be as small as to be denormal.
        scale = tf.maximum(tf.reduce_max(tf.abs(b), [0, 1]), 1e-290)
        residual = tf.reduce_max(tf.abs(tf.where(exact, matvec(x) - b, 0.0)), [0, 1])
        return x, solve_info(tf.reduce_max(residual / scale), ADJOINT_TOL)

    (gradient,), info = root_vjp(optimality, q, (model,), cotangent, solve)
    return gradient, info


def solve_adjoint(q: tf.Tensor, mdp: MDP, b: tf.Tensor) -> tf.Tensor:
    """Solves (I - dB/dQ)^T x = b; all `[S, A, N]`.

    dB(s, a)/dQ(s', a') = discount P(s' | s, a) pi(a' | s'), so that x = b + pi(a | s) mu(s) with
    S unknowns only: (I - discount P_pi)^T mu = discount P^T b.
    """
    policy = softmax_policy(q, mdp.temperature)
    weighted = mdp.transitions * tf.transpose(b, [1, 0, 2])[:, :, None]
    inflow = mdp.discount * tf.reduce_sum(weighted, axis=[0, 1])  # [S', N]
    mu = solve_dominant(tf.transpose(policy_matrix(policy, mdp), [1, 0, 2]), inflow)
    return b + policy * mu[:, None]
