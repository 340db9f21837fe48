"""OMD, its baseline and its controls on the robots."""

from dataclasses import dataclass, replace
from typing import Any

from baselines_tf2.common.rollout import Envs
from baselines_tf2.common.spaces import action_scale, observation_dim
from baselines_tf2.common.train_loop import TrainConfig
from envs import EnvSpec
from omd_tf2.common import experiment
from omd_tf2.common.solver import SolverConfig
from omd_tf2.halfcheetah.agent import HalfCheetahAgent
from omd_tf2.halfcheetah.config import AGENTS, HalfCheetahConfig

TASKS = ("cheetah", "hopper", "walker")

# What learned best here: docs/decisions.md has the measurements.
MODEL = {"model_hidden_dim": 256, "residual_model": True}
CORRECTED = SolverConfig("gauss_newton", ridge_relative=0.1, correct_inner=True)
LEARNS: dict[str, dict[str, Any]] = {
    "omd": {**MODEL, "solver": CORRECTED},
    "mle": MODEL,
    "vaml": MODEL,
}


@dataclass(frozen=True)
class Settings(experiment.Settings):
    """All that defines a run, but for its seed."""

    agent: HalfCheetahConfig


def make_agent(envs: Envs, config: HalfCheetahConfig, seed: int) -> HalfCheetahAgent:
    """An agent for these environments; ConfigError unless its actions are a symmetric Box."""
    action_dim = len(action_scale(envs.action_space))
    return HalfCheetahAgent(config, observation_dim(envs.observation_space), action_dim, seed=seed)


def _settings(agent: str, task: str, preset: str, backend: str) -> Settings:
    config = HalfCheetahConfig(agent=agent)
    if preset == "default":
        config = replace(config, **LEARNS.get(agent, {}))
    train = TrainConfig(1_000_000, 5_000, 10, random_steps=10_000)
    return Settings(EnvSpec(task, backend), config, train)


EXPERIMENTS = experiment.make_experiments("soft actor-critic", AGENTS, TASKS, _settings, make_agent)
