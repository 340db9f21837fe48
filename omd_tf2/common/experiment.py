"""Experiments of OMD's deep settings."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from baselines_tf2.common.rollout import Collector
from baselines_tf2.common.train_loop import TrainConfig, TrainLoop, check_adaptation
from baselines_tf2.runs import training
from baselines_tf2.runs.experiment import Experiment
from envs import ConfigError, EnvSpec, backends_of

LOG_INTERVAL = 1_000  # environment steps per row of the log


@dataclass(frozen=True)
class Settings:
    """All that defines a run, but for its seed; subclasses say whose config the agent's is."""

    env: EnvSpec
    agent: Any
    train: TrainConfig

    def __post_init__(self):
        check_adaptation(self.env, self.train)
        cycle_steps, replay_size = self.agent.cycle_steps, self.agent.replay_size
        if replay_size < cycle_steps:
            raise ConfigError(
                f"agent.replay_size={replay_size} does not hold one cycle of "
                f"agent.cycle_steps={cycle_steps}"
            )
        if LOG_INTERVAL % cycle_steps:
            raise ConfigError(
                f"agent.cycle_steps must divide {LOG_INTERVAL}, the steps between rows of the log, "
                f"and is {cycle_steps}"
            )


WHERE = {  # an agent learns
    "omd": "in a model learned for the agent's sake",
    "mle": "in a model learned to predict",
    "vep": "in a model learned to keep random values",
    "vaml": "in a model learned to keep the critic's targets",
    "sac": "on real data, without a model",
    "qlearning": "on real data, without a model",
}
SOURCES = {  # of the agents that are not of the paper on OMD
    "vaml": "VAML, AISTATS 2017",
    "sac": "SAC, arXiv 1812.05905",
    "qlearning": "control, no model",
}


def make_loop(agent, envs, settings: Settings, seeds: training.Seeds, adaptation) -> TrainLoop:
    """The loop that trains the agent."""
    config, train = settings.agent, settings.train
    return TrainLoop(
        agent,
        Collector(envs, [], np.random.default_rng(seeds.exploration), seed=seeds.envs),
        num_timesteps=train.num_timesteps,
        nb_rollout_steps=config.cycle_steps,
        nb_epoch_cycles=LOG_INTERVAL // config.cycle_steps,
        random_steps=train.random_steps,
        adaptation=adaptation,
    )


def make_experiments(
    learner: str,
    agents: Iterable[str],
    tasks: Iterable[str],
    settings: Callable,
    make_agent: training.MakeAgent,
) -> dict[str, Experiment]:
    """The experiments AGENT_TASK by name. settings(agent, task, preset, backend) are their Settings."""
    experiments = [
        Experiment(
            name=f"{agent}_{task}",
            description=f"{task}: {learner} {WHERE[agent]}",
            source=SOURCES.get(agent, "OMD, arXiv 2106.03273"),
            backends=backends_of(task),
            settings=partial(settings, agent, task),
            prepare=partial(training.prepare, make_agent=make_agent, make_loop=make_loop),
            load=partial(training.load, make_agent=make_agent),
        )
        for task in tasks
        for agent in agents
    ]
    return {one.name: one for one in experiments}
