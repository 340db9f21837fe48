"""From settings to a run's function and back to its agent: what all agents of robots share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from baselines_tf2.common.rollout import Envs, SerialEnvs
from baselines_tf2.runs.adaptation import make_adaptation
from baselines_tf2.runs.checkpoint import Checkpoints
from baselines_tf2.runs.experiment import Progress, RunFunction
from baselines_tf2.runs.folder import WEIGHTS
from baselines_tf2.runs.judging import Judge
from baselines_tf2.runs.training import run_training, spawn_seeds
from envs import make_env

MakeAgent = Callable[[Envs, Any, int], Any]  # (envs, config, seed); ConfigError for wrong spaces


def prepare(
    settings: Any, seed: int, *, make_agent: MakeAgent, make_loop: Callable, video: bool = False
) -> RunFunction:
    """Builds environments and agent; the returned function trains and fills the run folder.

    settings: env, agent and train. make_loop(agent, envs, settings, seeds, adaptation) gives the
    TrainLoop.
    """
    seeds, train = spawn_seeds(seed), settings.train
    made, envs = _make_envs(settings, training=True)
    agent = make_agent(envs, settings.agent, seeds.agent)
    judge = Judge(settings.env, train, seeds.evaluation, video=video)
    adaptation = make_adaptation(made, settings.env, train.adapt_every, seeds.target)

    def run(folder: Path, progress: Progress, checkpoints: Checkpoints) -> dict[str, str]:
        loop = make_loop(agent, envs, settings, seeds, adaptation)
        return run_training(folder, progress, checkpoints, loop, judge)

    return run


def load(settings: Any, folder: Path, *, make_agent: MakeAgent) -> Any:
    """The trained agent of a run's folder; ConfigError if its weights are missing or damaged."""
    made, envs = _make_envs(settings, training=False)
    agent = make_agent(envs, settings.agent, 0)
    for env in made:
        env.close()
    agent.load(folder / WEIGHTS)
    return agent


def _make_envs(settings, *, training):
    # Agents that do not say how many environments they step take one, and no pairs.
    num_envs = getattr(settings.train, "num_envs", 1)
    made = [make_env(settings.env, training=training) for _ in range(num_envs)]
    twins = getattr(settings.agent, "pairing", "independent") == "coupled"
    return made, SerialEnvs(made, twins=twins)
