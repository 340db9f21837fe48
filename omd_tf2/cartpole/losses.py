"""The model and soft Q-learning as pure functions of all weights.

Per-sample scalars are [B]. Nothing here draws: a probabilistic model's noise, N(0, 1), comes in.
"""

import numpy as np
import tensorflow as tf

from omd_tf2.cartpole.config import CartPoleConfig
from omd_tf2.common.functional import Layers, mlp, stacked
from omd_tf2.common.transition import Transition

LOG_STD_MIN, LOG_STD_MAX = -5.0, 2.0

# [B, O + A] -> next observation [B, O] (or mean, log std), and -> reward [B, 1]
Model = tuple[Layers, Layers]
Critics = tuple[Layers, ...]  # two, or one: [B, O] -> [B, A]


def gaussian(
    model: Model, obs0: tf.Tensor, actions: tf.Tensor, config: CartPoleConfig
) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and log std, [B, O] each, of a probabilistic model's next observation."""
    mean, log_std = tf.split(mlp(model[0], tf.concat([obs0, actions], -1)), 2, -1)
    log_std = tf.clip_by_value(log_std, LOG_STD_MIN, LOG_STD_MAX)
    return obs0 + mean if config.residual_model else mean, log_std


def in_model(
    model: Model, real: Transition, noise: tf.Tensor, config: CartPoleConfig
) -> Transition:
    """The same transitions, [..., B, ...], as the model has them; terminals are the real ones."""
    x = tf.concat([real.obs0, real.actions], -1)
    if config.prob_model:
        mean, log_std = gaussian(model, real.obs0, real.actions, config)
        obs1 = mean + tf.exp(log_std) * noise
    else:
        obs1 = mlp(model[0], x)
        obs1 = real.obs0 + obs1 if config.residual_model else obs1
    rewards = real.rewards if config.no_learn_reward else mlp(model[1], x)[..., 0]
    return real._replace(rewards=rewards, obs1=obs1)


def mle_loss(model: Model, real: Transition, noise: tf.Tensor, config: CartPoleConfig) -> tf.Tensor:
    """Squared errors of next observation (summed over dimensions) and reward, averaged.

    A probabilistic model's next observation costs its negative log density instead.
    """
    predicted = in_model(model, real, noise, config)
    if config.prob_model:
        mean, log_std = gaussian(model, real.obs0, real.actions, config)
        scaled = tf.square((real.obs1 - mean) / tf.exp(log_std))
        cost = tf.reduce_sum(scaled / 2 + log_std + np.log(2 * np.pi) / 2, -1)
    else:
        cost = tf.reduce_sum(tf.square(predicted.obs1 - real.obs1), -1)
    return tf.reduce_mean(cost + tf.square(predicted.rewards - real.rewards))


def vep_loss(
    model: Model,
    value_functions: tuple[Layers, ...],
    real: Transition,
    noise: tf.Tensor,
    config: CartPoleConfig,
) -> tf.Tensor:
    """Squared differences of fixed functions at real and predicted s', summed, plus reward's."""
    predicted = in_model(model, real, noise, config)
    functions = stacked(value_functions)
    errors = tf.square(mlp(functions, predicted.obs1) - mlp(functions, real.obs1))[..., 0]
    return tf.reduce_mean(tf.reduce_sum(errors, 0) + tf.square(predicted.rewards - real.rewards))


def vaml_loss(
    model: Model, target: Critics, real: Transition, noise: tf.Tensor, config: CartPoleConfig
) -> tf.Tensor:
    """Squared difference of the critics' targets in the model and in reality, averaged."""
    predicted = critic_targets(target, in_model(model, real, noise, config), config)
    return tf.reduce_mean(tf.square(predicted - critic_targets(target, real, config)))


def values(critics: Critics, obs: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    """Every critic's value of the actions taken, [B, H]; actions one-hot."""
    return tf.transpose(tf.reduce_sum(mlp(stacked(critics), obs) * actions, -1))


def critic_targets(target: Critics, batch: Transition, config: CartPoleConfig) -> tf.Tensor:
    """y = r + gamma (1 - terminal) alpha logsumexp(min(Q1', Q2') / alpha), [B].

    The gradient flows into r and s'; the target critics are the caller's to hold constant.
    """
    lowest = tf.reduce_min(mlp(stacked(target), batch.obs1), 0)
    if config.hard:
        best = tf.reduce_max(lowest, -1)
    else:
        best = config.alpha * tf.reduce_logsumexp(lowest / config.alpha, -1)
    return batch.rewards + config.gamma * (1 - batch.terminals1) * best


def critic_loss(critics: Critics, batch: Transition, targets: tf.Tensor) -> tf.Tensor:
    """Mean over critics and batch of (Q - y)^2."""
    return tf.reduce_mean(tf.square(values(critics, batch.obs0, batch.actions) - targets[:, None]))
