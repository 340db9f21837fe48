"""The agent: what explores, stores, trains, acts and is saved."""

from collections.abc import Callable
from functools import partial

import numpy as np
import tensorflow as tf

from baselines_tf2.common.replay import Replay
from baselines_tf2.common.rollout import Policy, as_observations
from omd_tf2.cartpole.config import CartPoleConfig
from omd_tf2.cartpole.update import (
    Noise,
    init_state,
    metric_names,
    num_batches,
    num_critic_draws,
    update,
)
from omd_tf2.common.agent import LearnerAgent
from omd_tf2.common.functional import numpy_mlp
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


class Agent(LearnerAgent):
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
        seeds = np.random.SeedSequence(seed).generate_state(4)
        self._rng, self._judged_rng = (np.random.default_rng(seeds[i]) for i in (0, 3))
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
        critics, rng = self._learner.acting, self._judged_rng
        scores = self._values if self.config.greedy else partial(self._scores, rng)
        return lambda obs: self._one_hot[scores(critics, obs).argmax(-1)]

    def exploring_policy(self) -> Callable[[], Policy]:
        """Gives the policy that explores.

        Uniform with probability epsilon, else drawn from softmax(mean Q / alpha), or best if `hard`.
        """
        critics, config, rng = self._learner.acting, self.config, self._rng

        def sample(obs):
            scores = self._scores(rng, critics, obs)
            uniform = rng.random((len(scores), 1)) < config.epsilon
            return self._one_hot[np.where(uniform, rng.random(scores.shape), scores).argmax(-1)]

        return lambda: sample

    def _scores(self, rng, critics, obs):
        """The largest is a draw from softmax(Q / alpha): logits plus Gumbel noise; Q if `hard`."""
        q = self._values(critics, obs)
        return q if self.config.hard else q / self.config.alpha + rng.gumbel(size=q.shape)

    def _values(self, critics, obs):
        obs = obs.astype(self._dtype)
        return sum(numpy_mlp(critic, obs) for critic in critics) / len(critics)

    def predict(self, obs: np.ndarray) -> np.ndarray:
        """The best actions' indices, [...], for observations [..., O].

        Raises ConfigError for observations of another length.
        """
        obs = as_observations(obs, self.replay.layout.obs_dim)
        return self._values(self._learner.acting, obs).argmax(-1)

    def get_state(self) -> dict:
        """All that coming cycles and evaluations depend on, but for the replay."""
        return super().get_state() | {"judged_rng": self._judged_rng.bit_generator.state}

    def set_state(self, state: dict) -> None:
        """Puts back what `get_state` gave."""
        super().set_state(state)
        self._judged_rng.bit_generator.state = state["judged_rng"]

    def _update(self, state, rows, noise):
        batches = from_replay(self._learner.replay.layout.unpack(rows))
        size = np.prod(self._model_noise, dtype=int)
        noise = Noise(tf.reshape(noise[:size], self._model_noise), noise[size:])
        return update(state, batches, noise, self.config)
