"""Outer losses, one projected Adam step on all instances, and the loop of such steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import tensorflow as tf

from omd_tf2.common.functional import AdamState, adam_step
from omd_tf2.implicit import loss_and_gradient
from omd_tf2.tabular import mdp
from omd_tf2.tabular.mdp import MDP, Model, induced_mdp
from omd_tf2.tabular.solve import fixed_point_vjp, solve_fixed_point

PROJECTIONS = ("joint", "leaf")

OuterLoss = Callable[[tf.Tensor, MDP], tf.Tensor]  # (Q [S, A, N], true MDP) -> [N]


def return_loss(q: tf.Tensor, truth: MDP) -> tf.Tensor:
    """-J of the softmax policy of `q` in the true MDP; `[S, A, N]` -> `[N]`."""
    return -mdp.expected_return(q, truth)


def bellman_loss(q: tf.Tensor, truth: MDP) -> tf.Tensor:
    """Mean over (s, a) of the squared true Bellman error (B Q - Q)^2; `[S, A, N]` -> `[N]`."""
    return tf.reduce_mean((mdp.soft_bellman(q, truth) - q) ** 2, axis=[0, 1])


def mle_loss(model: Model, truth: MDP) -> tf.Tensor:
    """Means over (s, a) of (R_hat - R)^2 and of KL(P || P_hat), summed; `[N]`."""
    reward_error = tf.reduce_mean((model.rewards - truth.rewards) ** 2, axis=[0, 1])
    log_ratio = tf.math.log(truth.transitions) - mdp.log_transitions(model, truth.temperature)
    kl = tf.reduce_sum(truth.transitions * log_ratio, axis=2)  # [A, S, N]
    return reward_error + tf.reduce_mean(kl, axis=[0, 1])


@dataclass(frozen=True)
class Problem:
    """N instances to train: the first `num_mle` by maximum likelihood, the others by OMD."""

    truth: MDP
    outer_loss: OuterLoss  # what OMD minimises
    num_mle: int
    norm_bound: tf.Tensor  # [N]; infinite where there is none
    noise_std: tf.Tensor  # of what is added to the inner solution, [N]
    noise_in_adjoint: bool  # whether f's derivatives are taken there too, or at the solution
    exact: tf.Tensor  # whether the adjoint is solved or replaced by the identity, bool [N]
    projection: str
    lr: float


class State(NamedTuple):
    """What the steps carry along."""

    model: Model
    adam: AdamState
    values: tf.Tensor  # inner solutions V of the OMD instances, where the next solve starts


class Residuals(NamedTuple):
    """How well the inner problem and its adjoint were solved, the worst instance; scalars."""

    inner: tf.Tensor
    adjoint: tf.Tensor


def mle_gradient(model: Model, truth: MDP) -> Model:
    """The gradient of `mle_loss`, per instance."""
    return loss_and_gradient(mle_loss, model, truth)[1]


def omd_gradient(
    problem: Problem, model: Model, values: tf.Tensor, noise: tf.Tensor
) -> tuple[Model, tf.Tensor, Residuals]:
    """The implicit gradient of the outer loss at Q = fixed point + noise, per OMD instance.

    With `noise_in_adjoint` all derivatives are taken at that Q, as a caller has them whose solver
    is inexact; else the outer loss's alone, as in the original. Of the N OMD instances alone:
    values `[S, N]`, where the inner solve starts, noise `[S, A, N]`. Returned with the inner
    solution V `[S, N]` and the residuals of both solves.
    """
    truth = problem.truth
    solution = solve_fixed_point(induced_mdp(model, truth), values)
    noised = solution.q + noise
    _, cotangent = loss_and_gradient(problem.outer_loss, noised, truth)
    exact = problem.exact[problem.num_mle :]
    q = noised if problem.noise_in_adjoint else solution.q
    gradient, info = fixed_point_vjp(model, truth, q, cotangent, exact)
    return gradient, solution.values, Residuals(solution.residual, info.relative_residual)


def project(model: Model, norm_bound: tf.Tensor, projection: str, temperature: float) -> Model:
    """Scales parameters down to the norm bound, `[N]`, which is how the model is misspecified.

    `joint`, the paper's: all parameters together by sqrt(|logits / temperature|^2 + |rewards|^2).
    `leaf`, what the paper's published code computes and its figure shows: each array x by itself,
    by sqrt(|x[0] / temperature|^2 + |x[1:]|^2), whose first axis is the action for the logits and
    the state for the rewards.
    """

    def square(x):
        return tf.reduce_sum(x**2, axis=list(range(len(x.shape) - 1)))

    def scaled(x, hot, cold):
        norm = tf.sqrt(square(hot / temperature) + square(cold))
        return x * tf.where(norm > norm_bound, tf.math.divide_no_nan(norm_bound, norm), 1.0)

    joint = projection == "joint"
    return Model(*(scaled(x, *(model if joint else (x[:1], x[1:]))) for x in model))


def projected_update(problem: Problem, state: State, noise: tf.Tensor) -> tuple[State, Residuals]:
    """One Adam step on every instance's own loss, then the projection.

    noise: standard normal, `[S, A, seeds]`; the seed is the innermost part of the instance's index,
    so that all settings of a seed see the same draw.
    """
    count = problem.num_mle
    parts = slice(count), slice(count, None)
    mle, omd = (Model(*(x[..., part] for x in state.model)) for part in parts)
    std = problem.noise_std[count:]
    scaled = std * tf.tile(noise, [1, 1, std.shape[0] // noise.shape[2]])
    gradient, values, residuals = omd_gradient(problem, omd, state.values, scaled)
    if count:
        pairs = zip(mle_gradient(mle, problem.truth), gradient, strict=True)
        gradient = Model(*(tf.concat(pair, -1) for pair in pairs))
    model, adam = adam_step(state.model, gradient, state.adam, problem.lr)
    model = project(model, problem.norm_bound, problem.projection, problem.truth.temperature)
    return State(model, adam, values), residuals


def train_steps(
    problem: Problem, state: State, noise: tf.Tensor, steps: tf.Tensor
) -> tuple[State, Residuals]:
    """`steps` projected updates, int32 scalar, with the first of the noises `[K, S, A, seeds]`.

    The residuals are the largest met. That `steps` may be less than K saves a compilation.
    """

    def step(k, state, worst):
        state, residuals = projected_update(problem, state, noise[k])
        return k + 1, state, tf.nest.map_structure(tf.maximum, worst, residuals)

    zero = tf.zeros([], noise.dtype)
    start = (tf.constant(0), state, Residuals(zero, zero))
    _, state, worst = tf.while_loop(lambda k, *_: k < steps, step, start)
    return state, worst
