"""Running an agent of OMD's deep settings."""

from typing import Any

import numpy as np

from baselines_tf2.common.rollout import Collector
from baselines_tf2.common.train_loop import TrainLoop, check_adaptation
from baselines_tf2.runs.training import Seeds
from envs import ConfigError

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


def make_loop(agent, envs, settings: Any, seeds: Seeds, adaptation) -> TrainLoop:
    """The loop that trains the agent."""
    config, train = settings.agent, settings.train
    rng = np.random.default_rng(seeds.exploration)
    return TrainLoop(
        agent,
        Collector(envs, [], rng, seed=seeds.envs),
        num_timesteps=train.num_timesteps,
        nb_rollout_steps=config.cycle_steps,
        nb_epoch_cycles=LOG_INTERVAL // config.cycle_steps,
        random_steps=train.random_steps,
        adaptation=adaptation,
    )
