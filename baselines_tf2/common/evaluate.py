"""Judging a policy on whole episodes without exploration."""

from collections.abc import Sequence

import gymnasium as gym
import numpy as np

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.rollout import Episode, Policy, actions_of, blame, env_name
from baselines_tf2.common.video import EpisodeRecorder


def run_episode(
    policy: Policy, env: gym.Env, *, seed: int, physics: dict[str, float] | None = None
) -> Episode:
    """Runs one episode; `physics` fixes the robot in an environment of `envs`.

    Raises TrainingError if its return is not finite, or the environment raises.
    """
    actions = actions_of(env.action_space)
    options = {"physics": physics} if physics else None
    try:
        obs, info = env.reset(seed=seed, options=options)
    except Exception as error:
        _blame(env, "reset", error)
        raise
    total, length, over = 0.0, 0, False
    while not over:
        action = actions.to_env(policy(obs[None]))[0]
        try:
            obs, reward, terminal, truncation, _ = env.step(action)
        except Exception as error:
            _blame(env, "step", error)
            raise
        total += reward
        length += 1
        over = terminal or truncation
    if not np.isfinite(total):
        raise TrainingError(f"an evaluation episode of {length} steps returned {total}")
    return Episode(float(total), length, info.get("physics", {}))


def _blame(env, call, error):
    """A video that cannot be written is no fault of the environment's."""
    if not (isinstance(error, OSError) and isinstance(env, EpisodeRecorder)):
        blame(env_name(env), call, error, " in an evaluation episode")


def evaluate(
    policy: Policy,
    env: gym.Env,
    rng: np.random.Generator,
    robots: Sequence[dict[str, float] | None],
) -> list[Episode]:
    """Runs one episode on each of the robots (None: the environment's own), from fresh seeds."""
    seeds = rng.integers(2**31, size=len(robots))
    return [
        run_episode(policy, env, seed=int(seed), physics=robot)
        for seed, robot in zip(seeds, robots, strict=True)
    ]


def summarise(episodes: Sequence[Episode]) -> dict[str, float]:
    """Mean, 10th, 50th and 90th percentile of the returns, and the mean length [steps]."""
    returns = [episode.episode_return for episode in episodes]
    low, median, high = np.percentile(returns, (10, 50, 90))
    return {
        "return_mean": float(np.mean(returns)),
        "return_p10": float(low),
        "return_p50": float(median),
        "return_p90": float(high),
        "length_mean": float(np.mean([episode.length for episode in episodes])),
    }
