"""The agent: what explores, stores, trains, acts and is saved."""

from collections.abc import Callable
from functools import partial

import numpy as np

from baselines_tf2.common.rollout import Policy
from baselines_tf2.common.spaces import as_observations
from omd_tf2.cartpole import update as steps
from omd_tf2.common.acting import DrawnAction, best_action, mean_values
from omd_tf2.common.agent import LearnerAgent


class CartPoleAgent(LearnerAgent):
    """Soft Q-learning in a learned model; its config is a CartPoleConfig."""

    FITS = ("agent", "hard", "no_double", "prob_model", "residual_model", "hidden_dim")
    ACTS = "critics"
    DISTINCT = True
    STEPS = steps

    def policy(self) -> Policy:
        """What is judged, a NumPy function, [N, O] -> one-hot [N, A].

        The best action by the critics' mean if `greedy` or `hard`, else one drawn from
        softmax(mean Q / alpha).
        """
        critics, config = self._acting, self.config
        if config.greedy or config.hard:
            return partial(best_action, critics, self._dtype)
        return DrawnAction(critics, self._dtype, config.alpha)

    def exploring_policy(self) -> Callable[[], Policy]:
        """Gives the policy that explores.

        Uniform with probability epsilon, else drawn from softmax(mean Q / alpha), or best if `hard`.
        """
        critics, config, rng = self._acting, self.config, self._rng

        def sample(obs):
            q = mean_values(critics, self._dtype, obs)
            scores = q if config.hard else q / config.alpha + rng.gumbel(size=q.shape)
            uniform = rng.random((len(q), 1)) < config.epsilon
            chosen = np.where(uniform, rng.random(q.shape), scores).argmax(-1)
            return np.eye(q.shape[-1])[chosen]

        return lambda: sample

    def predict(self, obs: np.ndarray) -> np.ndarray:
        """The best actions' indices, [...], for observations [..., O].

        Raises ConfigError for observations of another length.
        """
        obs = as_observations(obs, self.replay.layout.obs_dim)
        return mean_values(self._acting, self._dtype, obs).argmax(-1)

    def _sizes(self, state):
        config, obs_dim = self.config, self.replay.layout.obs_dim
        batches = steps.num_batches(config), config.batch_size
        model_noise = *batches, obs_dim if config.prob_model else 0
        return config.cycle_steps, batches, model_noise, (steps.num_critic_draws(state, config),)
