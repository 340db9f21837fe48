"""One gradient step of DDPG, with any critic head."""

from typing import NamedTuple

import keras
import tensorflow as tf

from baselines_tf2.common.replay import Batch
from baselines_tf2.common.running_stats import popart_rescale
from baselines_tf2.ddpg.config import DDPGConfig
from baselines_tf2.ddpg.heads import CriticHead
from baselines_tf2.ddpg.networks import Nets


class Metrics(NamedTuple):
    """What one update reports, scalars."""

    critic_loss: tf.Tensor  # with its L2 penalty
    actor_loss: tf.Tensor
    target_mean: tf.Tensor  # of the critic's targets, in units of return


def ddpg_update(nets: Nets, head: CriticHead, batch: Batch, config: DDPGConfig) -> Metrics:
    """Moves critic, actor, return statistics and target networks by one step.

    Both gradients are taken before either is applied, as in OpenAI Baselines.
    """
    batch = normalise(nets, batch)
    targets = head.targets(nets, batch)
    if (stats := nets.return_stats) is not None:
        old = (stats.mean, stats.std)
        stats.update(targets)
        for network in (nets.critic, nets.target_critic) if config.popart else ():
            popart_rescale(network.layers[-1], old, (stats.mean, stats.std))
    critic_loss, critic_grads = critic_gradient(nets, head, batch, targets, config.critic_l2_reg)
    actor_loss, actor_grads = actor_gradient(nets, head, batch)
    _apply(nets.critic_optimizer, critic_grads, nets.critic, config.clip_norm)
    _apply(nets.actor_optimizer, actor_grads, nets.actor, config.clip_norm)
    soft_update(nets.target_critic, nets.critic, config.tau)
    soft_update(nets.target_actor, nets.actor, config.tau)
    return Metrics(critic_loss, actor_loss, tf.reduce_mean(targets))


def normalise(nets: Nets, batch: Batch) -> Batch:
    """The batch with normalised observations."""
    return batch._replace(obs0=nets.normalise_obs(batch.obs0), obs1=nets.normalise_obs(batch.obs1))


def critic_gradient(
    nets: Nets, head: CriticHead, batch: Batch, targets: tf.Tensor, l2: float
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Loss and gradient of mean((prediction - target)^2) + l2 sum(kernel^2) / 2."""
    with tf.GradientTape() as tape:
        loss = head.loss(nets, batch, targets)
        if l2:
            loss += l2 * hidden_l2(nets.critic)
    return loss, tape.gradient(loss, nets.critic.trainable_variables)


def actor_gradient(nets: Nets, head: CriticHead, batch: Batch) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Loss and gradient of -mean(value of the actor's actions), for the actor alone."""
    with tf.GradientTape() as tape:
        loss = -tf.reduce_mean(head.actor_value(nets, batch, nets.actor(batch.obs0)))
    return loss, tape.gradient(loss, nets.actor.trainable_variables)


def hidden_l2(network: keras.Sequential) -> tf.Tensor:
    """sum(w^2) / 2 over the kernels of all dense layers but the output's."""
    hidden = (x for x in network.layers[:-1] if isinstance(x, keras.layers.Dense))
    return sum(tf.nn.l2_loss(x.kernel) for x in hidden)


def soft_update(target: keras.Sequential, online: keras.Sequential, tau: float) -> None:
    """target <- (1 - tau) target + tau online"""
    for t, o in zip(target.weights, online.weights, strict=True):
        t.assign((1 - tau) * t + tau * o)


def _apply(optimizer, gradients, network, clip_norm):
    if clip_norm is not None:
        gradients, _ = tf.clip_by_global_norm(gradients, clip_norm)
    optimizer.apply(gradients, network.trainable_variables)
