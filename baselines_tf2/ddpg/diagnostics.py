"""How much of a critic's learning signal is signal: comparable between values and differences."""

import tensorflow as tf

from baselines_tf2.common.replay import Batch
from baselines_tf2.ddpg.heads import CriticHead
from baselines_tf2.ddpg.networks import Nets
from baselines_tf2.ddpg.update import actor_gradient, normalise


def target_diagnostics(
    nets: Nets, head: CriticHead, batch: Batch, num_groups: int
) -> dict[str, tf.Tensor]:
    """Statistics of the critic's targets over G groups that each come from one robot.

    batch: the groups as `Replay.sample_members` gives them. Returns scalars: `target_variance`;
    `robot_share`, the part of it explained by the robot, by one-way analysis of variance with the
    within-group noise taken off; `residual_ratio`, the mean squared TD residual over the variance.
    """
    batch = normalise(nets, batch)
    targets = tf.reshape(head.targets(nets, batch), [num_groups, -1])
    predictions = tf.reshape(head.predictions(nets, batch), [num_groups, -1])
    within = tf.reduce_mean(_sample_variance(targets))
    size = tf.cast(tf.shape(targets)[1], targets.dtype)
    between = _sample_variance(tf.reduce_mean(targets, axis=1)) - within / size
    between = tf.maximum(between, 0)
    variance = tf.math.reduce_variance(targets)
    residual = tf.reduce_mean(tf.square(targets - predictions))
    return {
        "target_variance": variance,
        "robot_share": tf.math.divide_no_nan(between, between + within),
        "residual_ratio": tf.math.divide_no_nan(residual, variance),
    }


def flat_actor_gradient(nets: Nets, head: CriticHead, batch: Batch) -> tf.Tensor:
    """The actor's gradient on one minibatch, [number of weights]."""
    _, gradients = actor_gradient(nets, head, normalise(nets, batch))
    return tf.concat([tf.reshape(g, [-1]) for g in gradients], axis=0)


def signal_to_noise(gradients: tf.Tensor) -> tf.Tensor:
    """Signal-to-noise ratio of the gradients of M minibatches, [M, number of weights], a scalar.

    |mean gradient|^2 over the mean of |gradient - mean gradient|^2, the signal's own share of
    sampling noise, 1/M of the noise, taken off; 0 if nothing is left.
    """
    noise = tf.reduce_sum(_sample_variance(tf.transpose(gradients)))
    count = tf.cast(tf.shape(gradients)[0], gradients.dtype)
    signal = tf.reduce_sum(tf.square(tf.reduce_mean(gradients, axis=0))) - noise / count
    return tf.math.divide_no_nan(tf.maximum(signal, 0), noise)


def _sample_variance(x):
    """Unbiased, over the last axis."""
    n = tf.cast(tf.shape(x)[-1], x.dtype)
    return tf.math.reduce_variance(x, axis=-1) * n / (n - 1)
