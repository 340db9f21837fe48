"""The agent: what explores, stores, trains, acts and is saved."""

from collections.abc import Callable
from functools import partial

import numpy as np

from baselines_tf2.common.replay import Replay
from baselines_tf2.common.rollout import Policy
from baselines_tf2.common.spaces import as_observations
from omd_tf2.common.acting import mean_action, numpy_mlp
from omd_tf2.common.agent import LearnerAgent
from omd_tf2.common.learner import Learner
from omd_tf2.common.transition import from_replay
from omd_tf2.halfcheetah.config import HalfCheetahConfig
from omd_tf2.halfcheetah.sac import LOG_STD_MAX, LOG_STD_MIN
from omd_tf2.halfcheetah.update import Noise, init_state, metric_names, update

FITS = ("agent", "residual_model", "hidden_dim")  # settings that give weights their meaning


class HalfCheetahAgent(LearnerAgent):
    """Soft actor-critic in a learned model; all randomness is spawned from the seed."""

    def __init__(
        self,
        config: HalfCheetahConfig,
        obs_dim: int,
        action_dim: int,
        *,
        seed: int,
        dtype: str = "float32",
    ):
        self.config, self._dtype = config, dtype
        self._solver, self._updates = config.solver, config.cycle_steps * config.outer_steps
        seeds = np.random.SeedSequence(seed).generate_state(3)
        self._rng = np.random.default_rng(seeds[0])
        replay = Replay(
            obs_dim, action_dim, capacity=config.replay_size, gamma=config.gamma, dtype=dtype
        )
        draws = 2 * config.inner_steps + 1
        self._learner = Learner(
            init_state(config, obs_dim, action_dim, seed=int(seeds[1]), dtype=dtype),
            self._update,
            lambda state: state.actor,
            metric_names(config),
            replay,
            rows_shape=(config.batch_size,),
            noise_shape=(draws, config.batch_size, action_dim),
            fits={name: getattr(config, name) for name in FITS},
            seed=int(seeds[2]),
            dtype=dtype,
        )

    def policy(self) -> Policy:
        """The mean action as a NumPy function of observations, [N, O] -> [N, A] in [-1, 1]."""
        return partial(mean_action, self._learner.acting, self._dtype)

    def exploring_policy(self) -> Callable[[], Policy]:
        """Gives the policy that samples its actions."""
        actor, rng = self._learner.acting, self._rng

        def sample(obs):
            mean, std = _gaussian(actor, obs.astype(self._dtype))
            return np.tanh(mean + std * rng.standard_normal(mean.shape))

        return lambda: sample

    def predict(self, obs: np.ndarray) -> np.ndarray:
        """Actions in [-1, 1] for observations [..., O], without exploration.

        Raises ConfigError for observations of another length.
        """
        return self.policy()(as_observations(obs, self.replay.layout.obs_dim))

    def _update(self, state, rows, noise):
        real = from_replay(self._learner.replay.layout.unpack(rows))
        split = self.config.inner_steps + 1
        return update(state, real, Noise(noise[:split], noise[split:]), self.config)


def _gaussian(actor, obs):
    mean, log_std = np.split(numpy_mlp(actor, obs), 2, axis=-1)
    return mean, np.exp(np.clip(log_std, LOG_STD_MIN, LOG_STD_MAX))
