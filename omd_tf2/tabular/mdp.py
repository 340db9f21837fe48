"""Finite MDPs, the soft Bellman operator and the expected return; S states, A actions, N instances.

Transitions are `[A, S, S', N]`, rewards and action values Q `[S, A, N]`, state values V `[S, N]`.
An axis of length 1 in place of N broadcasts: the true MDP is the same for all instances.
"""

from typing import NamedTuple

import tensorflow as tf

OPTIMAL_RETURN = 1.0272727  # of the best policy in `paper_mdp`


class MDP(NamedTuple):
    """A finite MDP and the temperature of the soft values in it."""

    transitions: tf.Tensor  # P(s' | s, a), [A, S, S', N]
    rewards: tf.Tensor  # [S, A, N]
    discount: float
    temperature: float


class Model(NamedTuple):
    """The parameters theta of a learned MDP."""

    logits: tf.Tensor  # of the transitions, times the temperature; [A, S, S', N]
    rewards: tf.Tensor  # [S, A, N]


def paper_mdp() -> MDP:
    """The paper's MDP, from "The Value Function Polytope" (arXiv 1901.11524, appendix A).

    Transitions `[2, 2, 2, 1]` and rewards `[2, 2, 1]`, float64. The softmax policy of its soft Q*
    returns 1.0272551, a little less than the best policy.
    """
    transitions = [[[0.7, 0.3], [0.2, 0.8]], [[0.99, 0.01], [0.99, 0.01]]]
    rewards = [[-0.45, -0.1], [0.5, 0.5]]
    return MDP(
        tf.constant(transitions, tf.float64)[..., None],
        tf.constant(rewards, tf.float64)[..., None],
        discount=0.9,
        temperature=0.01,
    )


def induced_mdp(model: Model, truth: MDP) -> MDP:
    """The MDP of the model: P_hat = softmax(logits / temperature) over s', R_hat as it is."""
    transitions = tf.exp(_log_softmax(model.logits / truth.temperature, axis=2))
    return truth._replace(transitions=transitions, rewards=model.rewards)


def log_transitions(model: Model, temperature: float) -> tf.Tensor:
    """log P_hat, `[A, S, S', N]`, finite where P_hat itself underflows."""
    return _log_softmax(model.logits / temperature, axis=2)


def soft_values(q: tf.Tensor, temperature: float) -> tf.Tensor:
    """V(s) = temperature * logsumexp_a(Q(s, a) / temperature); `[S, A, N]` -> `[S, N]`."""
    return temperature * tf.reduce_logsumexp(q / temperature, axis=1)


def softmax_policy(q: tf.Tensor, temperature: float) -> tf.Tensor:
    """pi(a | s) = softmax_a(Q(s, a) / temperature), `[S, A, N]`."""
    return tf.exp(_log_softmax(q / temperature, axis=1))


def backup(values: tf.Tensor, mdp: MDP) -> tf.Tensor:
    """R(s, a) + discount * sum_s' P(s' | s, a) V(s'); `[S, N]` -> `[S, A, N]`."""
    expected = tf.reduce_sum(mdp.transitions * values, axis=2)  # [A, S, N]
    return mdp.rewards + mdp.discount * tf.transpose(expected, [1, 0, 2])


def soft_bellman(q: tf.Tensor, mdp: MDP) -> tf.Tensor:
    """B Q = R + discount * P (temperature * logsumexp(Q / temperature)), `[S, A, N]`."""
    return backup(soft_values(q, mdp.temperature), mdp)


def policy_matrix(policy: tf.Tensor, mdp: MDP) -> tf.Tensor:
    """I - discount P_pi, P_pi(s' | s) = sum_a pi(a | s) P(s' | s, a); policy `[S, A, N]`.

    `[S, S', N]`, its diagonal dominating the rows.
    """
    joint = tf.transpose(policy, [1, 0, 2])[:, :, None] * mdp.transitions
    matrix = mdp.discount * tf.reduce_sum(joint, axis=0)
    return tf.eye(matrix.shape[0], dtype=matrix.dtype)[:, :, None] - matrix


def expected_return(q: tf.Tensor, mdp: MDP) -> tf.Tensor:
    """J = rho^T (I - discount P_pi)^{-1} R_pi of the softmax policy of `q`; `[S, A, N]` -> `[N]`.

    rho, the distribution of the initial state, is uniform.
    """
    policy = softmax_policy(q, mdp.temperature)
    rewards = tf.reduce_sum(policy * mdp.rewards, axis=1)  # [S, N]
    return tf.reduce_mean(solve_dominant(policy_matrix(policy, mdp), rewards), axis=0)


def solve_dominant(matrix: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Solves N systems of S equations; matrix `[S, S, N]`, b `[S, N]` -> x `[S, N]`.

    Gauss-Jordan elimination without pivoting, which is stable for matrices whose diagonal dominates
    the rows or the columns.
    """
    size = matrix.shape[0]
    rows = [[*tf.unstack(matrix[i]), b[i]] for i in range(size)]  # of the augmented matrix
    for k in range(size):
        rows[k] = [entry / rows[k][k] for entry in rows[k]]
        for i in range(size):
            if i != k:
                factor = rows[i][k]
                rows[i] = [x - factor * y for x, y in zip(rows[i], rows[k], strict=True)]
    return tf.stack([row[-1] for row in rows])


def _log_softmax(x: tf.Tensor, axis: int) -> tf.Tensor:
    return x - tf.reduce_logsumexp(x, axis, keepdims=True)
