"""How much of a critic's learning signal is signal: comparable between values and differences."""

import tensorflow as tf

from baselines_tf2.common.replay import Batch
from baselines_tf2.ddpg.heads import CriticHead
from baselines_tf2.ddpg.networks import Nets
from baselines_tf2.ddpg.update import actor_gradient, normalise


def target_diagnostics(nets: Nets, head: CriticHead, groups: list[Batch]) -> dict[str, tf.Tensor]:
    """Statistics of the critic's targets over groups that each come from one robot.

    groups: G batches of equal size, within each of which every row (or pair) has the same
    robot(s). Returns scalars: `target_variance`; `robot_share`, the part of it explained by the
    robot, by one-way analysis of variance with the within-group noise taken off; and
    `residual_ratio`, the mean squared TD residual over the target variance.
    """
    groups = [normalise(nets, group) for group in groups]
    targets = tf.stack([head.targets(nets, group) for group in groups])  # [G, n]
    predictions = tf.stack([head.predictions(nets, group) for group in groups])
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


def actor_gradient_snr(nets: Nets, head: CriticHead, batches: list[Batch]) -> tf.Tensor:
    """Signal-to-noise ratio of the actor's gradient over M minibatches, a scalar.

    |mean gradient|^2 over the mean of |gradient - mean gradient|^2, the signal's own share of
    sampling noise, 1/M of the noise, taken off; 0 if nothing is left.
    """
    flat = []
    for batch in batches:
        _, gradients = actor_gradient(nets, head, normalise(nets, batch))
        flat.append(tf.concat([tf.reshape(g, [-1]) for g in gradients], axis=0))
    flat = tf.stack(flat)  # [M, number of weights]
    noise = tf.reduce_sum(_sample_variance(tf.transpose(flat)))
    signal = tf.reduce_sum(tf.square(tf.reduce_mean(flat, axis=0))) - noise / len(batches)
    return tf.math.divide_no_nan(tf.maximum(signal, 0), noise)


def _sample_variance(x):
    """Unbiased, over the last axis."""
    n = tf.cast(tf.shape(x)[-1], x.dtype)
    return tf.math.reduce_variance(x, axis=-1) * n / (n - 1)
