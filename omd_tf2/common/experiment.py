"""Running an agent of OMD's deep settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from baselines_tf2.common.rollout import Collector, SerialEnvs
from baselines_tf2.common.train_loop import TrainLoop, check_adaptation
from baselines_tf2.runs.adaptation import make_adaptation
from baselines_tf2.runs.checkpoint import Checkpoints
from baselines_tf2.runs.experiment import Progress, RunFunction
from baselines_tf2.runs.folder import WEIGHTS
from baselines_tf2.runs.judging import Judge
from baselines_tf2.runs.training import run_training, spawn_seeds
from envs import ConfigError, make_env

LOG_INTERVAL = 1_000  # environment steps per row of the log


def check_steps(settings: Any) -> None:
    """ConfigError if cycles do not fill the log's rows, or adaptation comes to nothing."""
    check_adaptation(settings.env, settings.train)
    if settings.agent.replay_size < settings.agent.cycle_steps:
        raise ConfigError(
            f"agent.replay_size={settings.agent.replay_size} does not hold one cycle of "
            f"agent.cycle_steps={settings.agent.cycle_steps}"
        )
    if LOG_INTERVAL % settings.agent.cycle_steps:
        raise ConfigError(
            f"agent.cycle_steps must divide {LOG_INTERVAL}, the steps between rows of the log, and "
            f"is {settings.agent.cycle_steps}"
        )


def prepare(
    settings: Any,
    seed: int,
    make_agent: Callable[[Any, gym.Env, int], Any],
    *,
    video: bool = False,
) -> RunFunction:
    """Builds environment and agent; the returned function trains and fills the run folder.

    settings: env, agent and train; make_agent(config, env, seed) raises ConfigError for spaces
    that do not suit it.
    """
    seeds = spawn_seeds(seed)
    config, train = settings.agent, settings.train
    env = make_env(settings.env, training=True)
    agent = make_agent(config, env, seeds.agent)
    judge = Judge(settings.env, train, seeds.evaluation, video=video)
    adaptation = make_adaptation([env], settings.env, train.adapt_every, seeds.target)

    def run(folder: Path, progress: Progress, checkpoints: Checkpoints) -> dict[str, str]:
        rng = np.random.default_rng(seeds.exploration)
        loop = TrainLoop(
            agent,
            Collector(SerialEnvs([env]), [], rng, seed=seeds.envs),
            num_timesteps=train.num_timesteps,
            num_envs=1,
            nb_rollout_steps=config.cycle_steps,
            nb_epoch_cycles=LOG_INTERVAL // config.cycle_steps,
            random_steps=train.random_steps,
            overlap=False,
            adaptation=adaptation,
        )
        return run_training(folder, progress, checkpoints, loop, judge)

    return run


def load(settings: Any, folder: Path, make_agent: Callable[[Any, gym.Env, int], Any]) -> Any:
    """The trained agent of a run's folder; ConfigError if its weights are missing or damaged."""
    env = make_env(settings.env, training=False)
    agent = make_agent(settings.agent, env, 0)
    env.close()
    agent.load(folder / WEIGHTS)
    return agent
