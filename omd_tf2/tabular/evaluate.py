"""What a trained model is worth: its policy's return, its error in Q and the bounds on that."""

from typing import NamedTuple

import tensorflow as tf

from omd_tf2.tabular.mdp import MDP, Model, expected_return, induced_mdp, soft_bellman
from omd_tf2.tabular.solve import solve_fixed_point
from omd_tf2.tabular.update import Problem, mle_loss


class Evaluation(NamedTuple):
    """One instance's numbers, all `[N]` but for the residual."""

    J: tf.Tensor  # true expected return of the policy of the model's Q
    q_error: tf.Tensor  # max |Q* - Q|
    bound: tf.Tensor  # on q_error without noise; `omd_bound` or `mle_bound`
    loss: tf.Tensor  # what the instance minimises
    residual: tf.Tensor  # of the inner problem, scalar


def evaluate(problem: Problem, model: Model, noise: tf.Tensor) -> Evaluation:
    """Evaluates Q = fixed point + noise of every instance; noise as in `projected_update`."""
    truth, count = problem.truth, problem.num_mle
    zeros = tf.zeros_like(model.rewards[:, 0])
    solution = solve_fixed_point(induced_mdp(model, truth), zeros)
    repeats = problem.noise_std.shape[0] // noise.shape[2]
    q = solution.q + problem.noise_std * tf.tile(noise, [1, 1, repeats])
    best, of_mle = solve_fixed_point(truth, zeros[:, :1]).q, tf.range(q.shape[2]) < count
    return Evaluation(
        J=expected_return(q, truth),
        q_error=tf.reduce_max(tf.abs(best - q), [0, 1]),
        bound=tf.where(of_mle, mle_bound(model, truth), omd_bound(solution.q, model, truth)),
        loss=tf.where(of_mle, mle_loss(model, truth), problem.outer_loss(q, truth)),
        residual=solution.residual,
    )


def omd_bound(q: tf.Tensor, model: Model, truth: MDP) -> tf.Tensor:
    """eps / (1 - discount), eps = max |B Q - B_hat Q| at the model's fixed point Q; `[N]`."""
    error = soft_bellman(q, truth) - soft_bellman(q, induced_mdp(model, truth))
    return tf.reduce_max(tf.abs(error), [0, 1]) / (1 - truth.discount)


def mle_bound(model: Model, truth: MDP) -> tf.Tensor:
    """eps_r / (1 - discount) + discount r_max eps_p / (2 (1 - discount)^2), `[N]`.

    eps_r is the largest error of a reward, eps_p the largest L1 error of a transition row, r_max
    the largest true |reward|.
    """
    transitions = induced_mdp(model, truth).transitions
    eps_p = tf.reduce_max(tf.reduce_sum(tf.abs(transitions - truth.transitions), 2), [0, 1])
    eps_r = tf.reduce_max(tf.abs(model.rewards - truth.rewards), [0, 1])
    r_max, horizon = tf.reduce_max(tf.abs(truth.rewards)), 1 / (1 - truth.discount)
    return eps_r * horizon + truth.discount * r_max * eps_p * horizon**2 / 2
