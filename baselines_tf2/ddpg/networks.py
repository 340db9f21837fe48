"""DDPG's networks, optimisers and normalisers: all that an update reads and moves."""

from functools import partial

import keras
import numpy as np
import tensorflow as tf

from baselines_tf2.common.networks import Body, build_network, copy_network, mlp, output_layer
from baselines_tf2.common.running_stats import RunningStats
from baselines_tf2.ddpg.config import DDPGConfig


class Nets(tf.Module):
    """Actor and critic, their targets, their optimisers, and the running statistics.

    actor: [B, O] -> [B, A] in [-1, 1]. critic: [B, critic_dim] -> [B, 1], in normalised units.
    Every variable exists once this returns, as compiled calls need. body: builds the hidden layers
    of both in place of the config's.
    """

    def __init__(
        self,
        config: DDPGConfig,
        obs_dim: int,
        action_dim: int,
        critic_dim: int,
        *,
        seed: int = 0,
        dtype: str = "float32",
        body: Body | None = None,
    ):
        super().__init__()
        seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(4)]
        bodies = [
            body or partial(mlp, **vars(x)) for x in (config.actor_network, config.critic_network)
        ]
        actor, critic = (list(bodies[i](seed=seeds[i], dtype=dtype)) for i in (0, 1))
        actor.append(output_layer(action_dim, "tanh", seed=seeds[2], dtype=dtype))
        critic.append(output_layer(1, "linear", seed=seeds[3], dtype=dtype))
        self.actor = build_network(actor, obs_dim)
        self.critic = build_network(critic, critic_dim)
        self.target_actor = copy_network(self.actor)
        self.target_critic = copy_network(self.critic)
        self.actor_optimizer = _optimizer("adam", config.actor_lr, self.actor)
        self.critic_optimizer = _optimizer(config.critic_optimizer, config.critic_lr, self.critic)
        self._clip = config.observation_range
        self.obs_stats: RunningStats | None = None
        self.return_stats: RunningStats | None = None
        if config.normalize_observations:
            self.obs_stats = RunningStats((obs_dim,), dtype=dtype)
        if config.normalize_returns:
            self.return_stats = RunningStats((), dtype=dtype, centred=not config.paired)

    def normalise_obs(self, obs: tf.Tensor) -> tf.Tensor:
        """[B, O] -> [B, O]"""
        if self.obs_stats is None:
            return obs
        return tf.clip_by_value(self.obs_stats.normalise(obs), -self._clip, self._clip)

    def normalise_return(self, values: tf.Tensor) -> tf.Tensor:
        return values if self.return_stats is None else self.return_stats.normalise(values)

    def denormalise_return(self, values: tf.Tensor) -> tf.Tensor:
        return values if self.return_stats is None else self.return_stats.denormalise(values)

    def state(self) -> dict[str, tf.Variable]:
        """Every variable by its group and place there, "actor/0", for saving."""
        groups = {
            "actor": self.actor.weights,
            "critic": self.critic.weights,
            "target_actor": self.target_actor.weights,
            "target_critic": self.target_critic.weights,
            "actor_optimizer": _moments(self.actor_optimizer),
            "critic_optimizer": _moments(self.critic_optimizer),
        }
        for name in ("obs_stats", "return_stats"):
            stats = getattr(self, name)
            if stats is not None:
                groups[name] = (stats.count, stats.sum, stats.sum_squares)
        return {f"{group}/{i}": x for group, held in groups.items() for i, x in enumerate(held)}


def _moments(optimizer):
    """Its state but for the learning rate, which is a setting."""
    return [v for v in optimizer.variables if v.path != optimizer.learning_rate.path]


def _optimizer(name, learning_rate, network):
    if name == "sgd":
        optimizer = keras.optimizers.SGD(learning_rate)
    else:
        optimizer = keras.optimizers.Adam(learning_rate, beta_1=0.9, beta_2=0.999, epsilon=1e-8)
    optimizer.build(network.trainable_variables)
    return optimizer
