"""OMD, its baselines and its controls on CartPole."""

from dataclasses import dataclass, replace
from typing import Any

from baselines_tf2.common.rollout import Envs
from baselines_tf2.common.spaces import OneHotActions, observation_dim
from baselines_tf2.common.train_loop import TrainConfig
from envs import EnvSpec
from omd_tf2.cartpole.agent import CartPoleAgent
from omd_tf2.cartpole.config import AGENTS, CartPoleConfig
from omd_tf2.common import experiment
from omd_tf2.common.solver import SolverConfig

# What learned best here; docs/decisions.md has the measurements.
LEARNS: dict[str, Any] = {"inner_steps": 4, "tau": 0.02, "cycle_steps": 10, "greedy": True}
ITS_OWN: dict[str, dict[str, Any]] = {
    "omd": {
        "lr": 3e-4,
        "no_learn_reward": True,
        "solver": SolverConfig("gauss_newton", ridge=10.0, tol=1e-3, on_failure="identity"),
    },
    # As the mean of five functions with a gain of sqrt(2).
    "vep": {"value_gain": (2 / 5) ** 0.5, "one_batch": True},
    **{agent: {"one_batch": True} for agent in ("mle", "vaml", "qlearning")},
}


@dataclass(frozen=True)
class Settings(experiment.Settings):
    """All that defines a run, but for its seed."""

    agent: CartPoleConfig


def make_agent(envs: Envs, config: CartPoleConfig, seed: int) -> CartPoleAgent:
    """An agent for these environments; ConfigError unless its actions are discrete."""
    num_actions = OneHotActions(envs.action_space).dim
    return CartPoleAgent(config, observation_dim(envs.observation_space), num_actions, seed=seed)


def _settings(agent: str, task: str, preset: str, backend: str) -> Settings:
    config, original = CartPoleConfig(agent=agent), preset == "original"
    if not original:
        config = replace(config, **LEARNS, **ITS_OWN[agent])
    train = TrainConfig(200_000, 1_000, 10, eval_at_start=original, random_steps=1_000)
    return Settings(EnvSpec(task, backend), config, train)


EXPERIMENTS = experiment.make_experiments("Q-learning", AGENTS, ["cartpole"], _settings, make_agent)
