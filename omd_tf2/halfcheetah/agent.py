"""The agent: what explores, stores, trains, acts and is saved."""

from collections.abc import Callable
from functools import partial

import numpy as np

from baselines_tf2.common.rollout import Policy
from baselines_tf2.common.spaces import as_observations
from omd_tf2.common.acting import mean_action, numpy_mlp
from omd_tf2.common.agent import LearnerAgent
from omd_tf2.halfcheetah import update as steps
from omd_tf2.halfcheetah.sac import LOG_STD_MAX, LOG_STD_MIN


class HalfCheetahAgent(LearnerAgent):
    """Soft actor-critic in a learned model; its config is a HalfCheetahConfig."""

    FITS = ("agent", "residual_model", "hidden_dim")
    ACTS = "actor"
    STEPS = steps

    def policy(self) -> Policy:
        """The mean action as a NumPy function of observations, [N, O] -> [N, A] in [-1, 1]."""
        return partial(mean_action, self._acting, self._dtype)

    def exploring_policy(self) -> Callable[[], Policy]:
        """Gives the policy that samples its actions."""
        actor, rng = self._acting, self._rng

        def sample(obs):
            mean, log_std = np.split(numpy_mlp(actor, obs.astype(self._dtype)), 2, axis=-1)
            std = np.exp(np.clip(log_std, LOG_STD_MIN, LOG_STD_MAX))
            return np.tanh(mean + std * rng.standard_normal(mean.shape))

        return lambda: sample

    def predict(self, obs: np.ndarray) -> np.ndarray:
        """Actions in [-1, 1] for observations [..., O], without exploration.

        Raises ConfigError for observations of another length.
        """
        return self.policy()(as_observations(obs, self.replay.layout.obs_dim))

    def _sizes(self, state):
        config, action_dim = self.config, state.actor[-1][1].shape[0] // 2  # means and log stds
        batch, k = config.batch_size, config.inner_steps
        noise = (k + 1, batch, action_dim), (k, batch, action_dim)
        return config.cycle_steps * config.outer_steps, (batch,), *noise
