"""The agent: what explores, stores, trains, acts and is saved."""

from collections.abc import Callable
from functools import partial

import numpy as np

from baselines_tf2.common.replay import Replay
from baselines_tf2.common.rollout import Policy, as_observations
from omd_tf2.cartpole.config import CartPoleConfig
from omd_tf2.cartpole.update import init_state, metric_names, update
from omd_tf2.common.acting import best_action, mean_values
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
        seeds = np.random.SeedSequence(seed).generate_state(3)
        self._rng = np.random.default_rng(seeds[0])
        replay = Replay(
            obs_dim, num_actions, capacity=config.replay_size, gamma=config.gamma, dtype=dtype
        )
        batches = 1 if config.agent in ("omd", "qlearning") else 2
        noise_dim = obs_dim if config.prob_model else 0
        self._learner = Learner(
            init_state(config, obs_dim, num_actions, seed=int(seeds[1]), dtype=dtype),
            self._update,
            lambda state: state.critics,
            metric_names(config),
            replay,
            rows=batches * config.batch_size,
            noise_shape=(batches, config.batch_size, noise_dim),
            fits={name: getattr(config, name) for name in FITS},
            seed=int(seeds[2]),
            dtype=dtype,
        )

    def policy(self) -> Policy:
        """The best action by the critics' mean, one-hot: a NumPy function, [N, O] -> [N, A]."""
        return partial(best_action, self._learner.acting, self._dtype)

    def exploring_policy(self) -> Callable[[], Policy]:
        """Gives the policy that explores.

        Uniform with probability epsilon, else drawn from softmax(mean Q / alpha), or best if `hard`.
        """
        critics, config, rng = self._learner.acting, self.config, self._rng

        def sample(obs):
            q = mean_values(critics, self._dtype, obs)
            scores = q if config.hard else q / config.alpha + rng.gumbel(size=q.shape)
            uniform = rng.random((len(q), 1)) < config.epsilon
            # The largest of logits plus Gumbel noise is a draw from their softmax.
            return self._one_hot[np.where(uniform, rng.random(q.shape), scores).argmax(-1)]

        return lambda: sample

    def predict(self, obs: np.ndarray) -> np.ndarray:
        """The best actions' indices, [...], for observations [..., O].

        Raises ConfigError for observations of another length.
        """
        obs = as_observations(obs, self.replay.layout.obs_dim)
        return mean_values(self._learner.acting, self._dtype, obs).argmax(-1)

    def _update(self, state, rows, noise):
        size, unpack = self.config.batch_size, self._learner.replay.layout.unpack
        batches = [
            from_replay(unpack(rows[i : i + size])) for i in range(0, len(noise) * size, size)
        ]
        return update(state, batches, noise, self.config)
