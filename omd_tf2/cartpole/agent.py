"""The agent: what explores, stores, trains, acts and is saved."""

from collections.abc import Callable
from functools import partial

import numpy as np
import tensorflow as tf

from baselines_tf2.common.replay import Replay
from baselines_tf2.common.rollout import Policy
from baselines_tf2.common.spaces import as_observations
from omd_tf2.cartpole.config import CartPoleConfig
from omd_tf2.cartpole.update import (
    Noise,
    init_state,
    metric_names,
    num_batches,
    num_critic_draws,
    update,
)
from omd_tf2.common.acting import DrawnAction, best_action, mean_values, perturbed
from omd_tf2.common.agent import LearnerAgent
from omd_tf2.common.learner import Learner
from omd_tf2.common.transition import from_replay

FITS = (
    "agent",
    "hard",
    "no_double",
    "prob_model",
    "residual_model",
    "hidden_dim",
)  # settings that give weights their meaning


class CartPoleAgent(LearnerAgent):
    """Soft Q-learning in a learned model; all randomness is spawned from the seed."""

    def __init__(
        self,
        config: CartPoleConfig,
        obs_dim: int,
        num_actions: int,
        *,
        seed: int,
        dtype: str = "float32",
    ):
        self.config, self._dtype = config, dtype
        self._solver, self._updates = config.solver, config.cycle_steps
        self._one_hot = np.eye(num_actions)
        seeds = np.random.SeedSequence(seed).generate_state(3)
        self._rng = np.random.default_rng(seeds[0])
        replay = Replay(
            obs_dim, num_actions, capacity=config.replay_size, gamma=config.gamma, dtype=dtype
        )
        state = init_state(config, obs_dim, num_actions, seed=int(seeds[1]), dtype=dtype)
        batches = (num_batches(config), config.batch_size)
        self._model_noise = (*batches, obs_dim if config.prob_model else 0)
        noise_size = np.prod(self._model_noise, dtype=int) + num_critic_draws(state, config)
        self._learner = Learner(
            state,
            self._update,
            lambda state: state.critics,
            metric_names(config),
            replay,
            rows_shape=batches,
            noise_shape=(noise_size,),
            distinct=True,
            fits={name: getattr(config, name) for name in FITS},
            seed=int(seeds[2]),
            dtype=dtype,
        )

    def policy(self) -> Policy:
        """What is judged, a NumPy function, [N, O] -> one-hot [N, A].

        The best action by the critics' mean if `greedy` or `hard`, else one drawn from
        softmax(mean Q / alpha).
        """
        critics, config = self._learner.acting, self.config
        if config.greedy or config.hard:
            return partial(best_action, critics, self._dtype)
        return DrawnAction(critics, self._dtype, config.alpha)

    def exploring_policy(self) -> Callable[[], Policy]:
        """Gives the policy that explores.

        Uniform with probability epsilon, else drawn from softmax(mean Q / alpha), or best if `hard`.
        """
        critics, config, rng = self._learner.acting, self.config, self._rng

        def sample(obs):
            q = mean_values(critics, self._dtype, obs)
            scores = q if config.hard else perturbed(rng, q / config.alpha)
            uniform = rng.random((len(q), 1)) < config.epsilon
            return self._one_hot[np.where(uniform, rng.random(q.shape), scores).argmax(-1)]

        return lambda: sample

    def predict(self, obs: np.ndarray) -> np.ndarray:
        """The best actions' indices, [...], for observations [..., O].

        Raises ConfigError for observations of another length.
        """
        obs = as_observations(obs, self.replay.layout.obs_dim)
        return mean_values(self._learner.acting, self._dtype, obs).argmax(-1)

    def _update(self, state, rows, noise):
        batches = from_replay(self._learner.replay.layout.unpack(rows))
        size = np.prod(self._model_noise, dtype=int)
        noise = Noise(tf.reshape(noise[:size], self._model_noise), noise[size:])
        return update(state, batches, noise, self.config)
