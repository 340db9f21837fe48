"""The DDPG experiments: on one robot, on an ensemble, and with the difference critic."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from baselines_tf2.common.adaptation import make_adaptation
from baselines_tf2.common.checkpoint import Checkpoints
from baselines_tf2.common.experiment import Experiment, Progress, RunFunction
from baselines_tf2.common.networks import MLPConfig
from baselines_tf2.common.rollout import SerialEnvs, action_scale, observation_dim
from baselines_tf2.common.run_folder import WEIGHTS
from baselines_tf2.common.training import (
    Judge,
    TrainConfig,
    check_adaptation,
    check_random_steps,
    run_training,
    spawn_seeds,
)
from baselines_tf2.ddpg.agent import Agent
from baselines_tf2.ddpg.config import DDPGConfig
from baselines_tf2.ddpg.epopt import check_selection
from baselines_tf2.ddpg.learn import make_agent, make_loop
from envs import (
    CONTINUOUS_TASKS,
    ConfigError,
    EnvSpec,
    backends_of,
    default_ensemble,
    make_env,
    time_limit,
)


@dataclass(frozen=True)
class Settings:
    """All that defines a run, but for its seed."""

    env: EnvSpec
    agent: DDPGConfig
    train: TrainConfig

    def __post_init__(self):
        check_random_steps(self.train.num_timesteps, self.agent.random_steps)
        check_adaptation(self.env, self.train)
        episode_steps = time_limit(self.env.task, self.env.backend)
        check_selection(self.agent, self.train.num_timesteps, episode_steps)
        if self.agent.pairing == "same_member" and not self.env.ensemble:
            raise ConfigError("pairing 'same_member' needs an ensemble of robots: set env.ensemble")


LEARNS = DDPGConfig(
    actor_network=MLPConfig(activation="relu"),
    critic_network=MLPConfig(activation="relu", layer_norm=True),
    noise_type="normal_0.2",
    reward_scale=0.1,
    batch_size=256,
    critic_l2_reg=0.0,
    actor_lr=1e-3,
    random_steps=10_000,
    overlap=True,
)
SEED = DDPGConfig(critic="concat", batch_size=128, tau=1.0, critic_optimizer="sgd")
DIFFERENCE = replace(LEARNS, critic="additive", actor_loss="symmetric")


def _settings(task: str, kind: str) -> Callable[[str, str], Settings]:
    def settings(preset: str, backend: str) -> Settings:
        ensemble = "" if kind == "ddpg" else default_ensemble(task, backend)
        difference = kind == "diffcritic"
        if preset == "original":
            agent = SEED if difference else DDPGConfig()
        else:
            agent = DIFFERENCE if difference else LEARNS
            if task == "pendulum":
                agent = replace(agent, random_steps=1_000)
            elif backend == "pybullet":  # rewards are a tenth of MuJoCo's
                agent = replace(agent, reward_scale=1.0)
        if kind == "epopt":
            agent = replace(agent, epopt_trajectories=10)
        return Settings(EnvSpec(task, backend, ensemble=ensemble), agent, _training(task, kind))

    return settings


def _training(task: str, kind: str) -> TrainConfig:
    episodes = 10 if kind == "ddpg" else 2
    if task == "pendulum":  # a quick one
        return TrainConfig(20_000, 2_000, episodes)
    return TrainConfig(eval_episodes=episodes)


def prepare(settings: Settings, seed: int, *, video: bool = False) -> RunFunction:
    """Builds environments and agent; the returned function trains and fills the run folder."""
    seeds = spawn_seeds(seed)
    config, pairing = settings.agent, settings.agent.pairing
    made = [make_env(settings.env, training=True) for _ in range(config.num_envs)]
    envs = SerialEnvs(made, twins=pairing == "coupled")
    agent = make_agent(envs, config, seeds.agent)
    judge = Judge(settings.env, settings.train, seeds.evaluation, video=video)
    train = settings.train
    adaptation = make_adaptation(made, settings.env, train.adapt_every, seeds.target)

    def run(folder: Path, progress: Progress, checkpoints: Checkpoints) -> dict[str, str]:
        loop = make_loop(
            agent, envs, num_timesteps=train.num_timesteps, seeds=seeds, adaptation=adaptation
        )
        return run_training(folder, progress, checkpoints, loop, judge)

    return run


def load(settings: Settings, folder: Path) -> Agent:
    """The trained agent of a run's folder; ConfigError if its weights are missing or damaged."""
    env = make_env(settings.env, training=False)
    action_dim = len(action_scale(env.action_space))
    agent = Agent(settings.agent, observation_dim(env.observation_space), action_dim)
    env.close()
    agent.load(folder / WEIGHTS)
    return agent


def _experiments():
    kinds = {
        "ddpg": ("DDPG with a Q critic", "OpenAI Baselines ea25b9e"),
        "ddpg_ensemble": ("the same on robots of varying mass", "EPOpt, arXiv 1610.01283"),
        "epopt": ("the same, learning from the worst tenth of episodes", "EPOpt, arXiv 1610.01283"),
        "diffcritic": ("difference critic on robots of varying mass", "Difference Critic; Bertsekas 1997"),
    }  # fmt: skip
    for kind, (description, source) in kinds.items():
        for task in CONTINUOUS_TASKS:
            yield Experiment(
                name=f"{kind}_{task}",
                description=f"{task}: {description}",
                source=source,
                backends=backends_of(task),
                settings=_settings(task, kind),
                prepare=prepare,
                num_timesteps=lambda settings: settings.train.num_timesteps,
                load=load,
            )


EXPERIMENTS = {experiment.name: experiment for experiment in _experiments()}
