"""EPOpt's selection of trajectories for an off-policy learner."""

import numpy as np

from baselines_tf2.common.replay import Rollout
from baselines_tf2.common.rollout import Episode
from baselines_tf2.common.state import Stateful
from baselines_tf2.ddpg.config import DDPGConfig, LoopConfig
from envs import ConfigError, worst_episodes
from envs.physics import REWARD_OFFSET


def make_selection(loop: LoopConfig, num_timesteps: int) -> "WorstEpisodes | None":
    """What chooses the episodes that a run of this length stores; None if it stores all."""
    if not loop.epopt_trajectories:
        return None
    warmup = round(loop.epopt_warmup * num_timesteps)
    return WorstEpisodes(loop.epopt_trajectories, loop.epopt_epsilon, warmup)


def check_selection(
    config: DDPGConfig, loop: LoopConfig, num_timesteps: int, episode_steps: int
) -> None:
    """ConfigError if a run with episodes of this length may store no batch, or more than it holds."""
    wanted, warmup = loop.epopt_trajectories, round(loop.epopt_warmup * num_timesteps)
    if not wanted:
        return
    if (-(-warmup // episode_steps) + wanted) * episode_steps > num_timesteps:
        raise ConfigError(
            f"train.epopt_trajectories={wanted} selects nothing in {num_timesteps} steps: after a "
            f"warm-up of {warmup} no {wanted} episodes of {episode_steps} steps end; take fewer, or "
            "train for longer"
        )
    stored = round(wanted * loop.epopt_epsilon) * episode_steps
    if stored > config.replay_size:
        held = f"agent.replay_size={config.replay_size} does not hold the {stored} steps"
        raise ConfigError(f"{held} that are stored of train.epopt_trajectories={wanted} episodes")


class WorstEpisodes(Stateful):
    """Keeps, of every N whole episodes, the worst epsilon-quantile by return.

    Rajeswaran et al. 2017 (arXiv 1610.01283), algorithm 1. What begins in the first
    `warmup_steps` steps is stored as it comes; after that an episode waits until its batch of N
    has ended. Returns are ranked without the robot's reward offset, which says nothing of how
    the robot did.
    """

    STATE = ("_steps", "_warm", "_returns", "_running", "_trajectories", "_metrics")

    def __init__(self, num_trajectories: int, epsilon: float, warmup_steps: int):
        self._wanted, self._epsilon, self._warmup = num_trajectories, epsilon, warmup_steps
        self._steps = 0
        self._warm = warmup_steps > 0  # the running episode is stored as it comes
        # Rollouts; from a checkpoint, the lists of their fields.
        self._running: list[Rollout] = []
        self._trajectories: list[Rollout] = []
        self._returns: list[float] = []
        self._metrics: dict[str, float] = {}

    def __call__(self, new: Rollout, finished: list[Episode]) -> Rollout | None:
        """Takes one environment's next steps; returns what is to be stored now, or None."""
        kept: list[Rollout] = []
        ends = np.flatnonzero(new.ends[:, 0]) + 1
        parts = zip(*(np.split(field, ends) for field in new), strict=True)
        for part, episode in zip(map(Rollout._make, parts), [*finished, None], strict=True):
            self._steps += len(part.ends)
            if len(part.ends):  # the last one may be empty
                (kept if self._warm else self._running).append(part)
            if episode is not None:
                kept += self._end(episode)
        return _join(kept) if kept else None

    def metrics(self) -> dict[str, float]:
        """The latest batch's mean return, and that of what was stored of it; {} before one."""
        return self._metrics

    def end_episodes(self) -> None:
        """Forgets the running episode, which will not be finished."""
        self._running, self._warm = [], self._steps < self._warmup

    def _end(self, episode: Episode) -> list[Rollout]:
        warm, self._warm = self._warm, self._steps < self._warmup
        if warm:
            return []
        offset = episode.physics.get(REWARD_OFFSET, 0.0)
        self._returns.append(episode.episode_return - offset * episode.length)
        self._trajectories.append(_join(self._running))
        self._running = []
        if len(self._returns) < self._wanted:
            return []
        returns = np.array(self._returns)
        worst = worst_episodes(returns, self._epsilon)
        kept = [self._trajectories[i] for i in sorted(worst)]
        self._metrics = {
            "epopt/return": float(returns.mean()),
            "epopt/return_stored": float(returns[worst].mean()),
        }
        self._trajectories, self._returns = [], []
        return kept


def _join(parts):
    return Rollout(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))
