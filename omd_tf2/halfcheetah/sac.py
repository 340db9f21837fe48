"""Soft actor-critic (1812.05905) and the model as pure functions of all weights.

Per-sample scalars are [B]. Nothing here draws: the policy's noise, N(0, 1), comes in.
"""

import tensorflow as tf

from omd_tf2.common.functional import Layers, mlp
from omd_tf2.common.transition import Transition
from omd_tf2.halfcheetah.config import HalfCheetahConfig

LOG_STD_MIN, LOG_STD_MAX = -10.0, 2.0

Critics = tuple[Layers, Layers]


def in_model(
    model: Layers, real: Transition, noise: tf.Tensor | None, config: HalfCheetahConfig
) -> Transition:
    """The same transitions as the model has them; terminals are the real ones.

    noise: the policy's, which this model does not draw with, as one on CartPole may.
    """
    out = mlp(model, tf.concat([real.obs0, real.actions], -1))
    obs1 = real.obs0 + out[:, :-1] if config.residual_model else out[:, :-1]
    return real._replace(rewards=out[:, -1], obs1=obs1)


def model_loss(model: Layers, real: Transition, config: HalfCheetahConfig) -> tf.Tensor:
    """MLE: squared errors of next observation (summed over dimensions) and reward, averaged."""
    predicted = in_model(model, real, None, config)
    errors = tf.reduce_sum(tf.square(predicted.obs1 - real.obs1), -1)
    return tf.reduce_mean(errors + tf.square(predicted.rewards - real.rewards))


def gaussian(actor: Layers, obs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and std, [B, A] each, of the action before it is squashed."""
    mean, log_std = tf.split(mlp(actor, obs), 2, -1)
    return mean, tf.exp(tf.clip_by_value(log_std, LOG_STD_MIN, LOG_STD_MAX))


def sample_actions(actor: Layers, obs: tf.Tensor, noise: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Actions tanh(mean + std noise), [B, A], and their log densities, [B] (1812.05905, eq. 26)."""
    import tensorflow_probability as tfp  # a fifth of what a process takes to load everything

    mean, std = gaussian(actor, obs)
    unsquashed = mean + std * noise
    log_prob = tfp.distributions.MultivariateNormalDiag(mean, std).log_prob(unsquashed)
    squash = tfp.bijectors.Tanh()
    # From the action itself the log density would lose its digits where tanh saturates.
    return (
        squash.forward(unsquashed),
        log_prob - squash.forward_log_det_jacobian(unsquashed, event_ndims=1),
    )


def values(critics: Critics, obs: tf.Tensor, actions: tf.Tensor) -> tf.Tensor:
    """Both critics' values, [B, 2]."""
    x = tf.concat([obs, actions], -1)
    return tf.concat([mlp(critic, x) for critic in critics], -1)


def critic_targets(
    target: Critics,
    actor: Layers,
    log_temperature: tf.Tensor,
    batch: Transition,
    noise: tf.Tensor,
    gamma: float,
) -> tf.Tensor:
    """y = r + gamma (1 - terminal) (min Q'(s', a') - temperature log pi(a'|s')), [B].

    The gradient flows into r, and into s' through Q' alone: the next action is drawn at an s' that
    is cut off, as in the original. Target critics and actor are the caller's to hold constant.
    """
    actions, log_probs = sample_actions(actor, tf.stop_gradient(batch.obs1), noise)
    next_values = tf.reduce_min(values(target, batch.obs1, actions), -1)
    soft = next_values - tf.exp(log_temperature) * log_probs
    return batch.rewards + gamma * (1 - batch.terminals1) * soft


def vaml_loss(predicted: tf.Tensor, real: tf.Tensor) -> tf.Tensor:
    """VAML: squared difference of the targets, [B] each, in the model and in reality, averaged."""
    return tf.reduce_mean(tf.square(predicted - real))


def critic_loss(critics: Critics, batch: Transition, targets: tf.Tensor) -> tf.Tensor:
    """mean over the batch of (Q1 - y)^2 + (Q2 - y)^2"""
    errors = values(critics, batch.obs0, batch.actions) - targets[:, None]
    return tf.reduce_mean(tf.reduce_sum(tf.square(errors), -1))


def actor_loss(
    actor: Layers, critics: Critics, log_temperature: tf.Tensor, obs: tf.Tensor, noise: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """mean(temperature log pi(a|s) - min Q(s, a)), and the entropy mean(-log pi)."""
    actions, log_probs = sample_actions(actor, obs, noise)
    lowest = tf.reduce_min(values(critics, obs, actions), -1)
    loss = tf.reduce_mean(tf.exp(log_temperature) * log_probs - lowest)
    return loss, -tf.reduce_mean(log_probs)


def temperature_loss(
    log_temperature: tf.Tensor, entropy: tf.Tensor, target_entropy: float
) -> tf.Tensor:
    """temperature (entropy - target entropy), the entropy held constant."""
    return tf.exp(log_temperature) * tf.stop_gradient(entropy - target_entropy)
