"""The DDPG experiments: on one robot, on an ensemble, and with the difference critic."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from baselines_tf2.common.evaluate import evaluate, summarise
from baselines_tf2.common.experiment import Experiment, Progress, settings_from
from baselines_tf2.common.files import read_json
from baselines_tf2.common.logger import Logger
from baselines_tf2.common.networks import MLPConfig
from baselines_tf2.common.plots import plot_run
from baselines_tf2.common.rollout import Episode, SerialEnvs, action_scale, observation_dim
from baselines_tf2.ddpg.agent import Agent
from baselines_tf2.ddpg.config import DDPGConfig
from baselines_tf2.ddpg.learn import make_agent, spawn_seeds, train
from envs import (
    TASKS,
    ConfigError,
    Ensemble,
    EnvSpec,
    backends_of,
    default_ensemble,
    make_env,
    mass_grid,
    mass_parameter,
)


@dataclass(frozen=True)
class TrainConfig:
    """How long to train and how to judge."""

    num_timesteps: int = 1_000_000  # transitions
    eval_interval: int = 50_000  # transitions between evaluations, in whole rows of the log
    eval_episodes: int = 10  # per evaluation, or per robot of the mass grid on ensembles

    def __post_init__(self):
        for name, value in vars(self).items():
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, not {value}")


@dataclass(frozen=True)
class Settings:
    """All that defines a run, but for its seed."""

    env: EnvSpec
    agent: DDPGConfig
    train: TrainConfig

    def __post_init__(self):
        steps, random_steps = self.train.num_timesteps, self.agent.random_steps
        if random_steps >= steps:
            raise ConfigError(
                f"agent.random_steps={random_steps} leaves nothing to train on in {steps} steps: "
                f"add --set=agent.random_steps={steps // 10}, or train for longer"
            )
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
        return Settings(EnvSpec(task, backend, ensemble=ensemble), agent, _training(task, kind))

    return settings


def _training(task: str, kind: str) -> TrainConfig:
    episodes = 10 if kind == "ddpg" else 2
    if task == "pendulum":  # a quick one
        return TrainConfig(20_000, 2_000, episodes)
    return TrainConfig(eval_episodes=episodes)


def prepare(settings: Settings, seed: int) -> Callable[[Path, Progress], dict[str, str]]:
    """Builds environments and agent; the returned function trains and fills the run folder."""
    seeds = spawn_seeds(seed)
    config, pairing = settings.agent, settings.agent.pairing
    made = [make_env(settings.env, training=True) for _ in range(config.num_envs)]
    envs = SerialEnvs(made, twins=pairing == "coupled")
    agent = make_agent(envs, config, seeds.agent)
    judge = Judge(settings, seeds.evaluation)

    def run(folder: Path, progress: Progress) -> dict[str, str]:
        logger = Logger(folder)

        def on_epoch(step, metrics):
            if judge.due(step):
                episodes = judge.episodes(agent.policy())
                logger.log_episodes(step, [_row(i, e) for i, e in enumerate(episodes)])
                metrics = metrics | judge.summary(episodes) | agent.diagnostics()
            logger.log(step, metrics)

        def on_cycle(step, episodes):
            returns = [episode.episode_return for episode in episodes]
            progress.update(step, np.mean(returns) if returns else None)

        try:
            train(
                agent,
                envs,
                num_timesteps=settings.train.num_timesteps,
                seeds=seeds,
                on_epoch=on_epoch,
                on_cycle=on_cycle,
            )
        finally:  # a run that was stopped leaves what it had
            logger.close()
            agent.save(folder / "weights.npz")
            plot_run(folder, judge.training_range)
        return judge.verdict()

    return run


def load_run(folder: str | Path) -> Agent:
    """The trained agent of a finished run; ConfigError if a file of it is missing or damaged."""
    config = read_json(Path(folder) / "config.json")
    settings = settings_from(Settings, config["settings"])
    env = make_env(settings.env, training=False)
    action_dim = len(action_scale(env.action_space))
    agent = Agent(settings.agent, observation_dim(env.observation_space), action_dim)
    env.close()
    agent.load(Path(folder) / "weights.npz")
    return agent


class Judge:
    """Evaluates on whole episodes; a mass ensemble on a grid of masses inside and outside it."""

    def __init__(self, settings: Settings, seed: int):
        self._interval = settings.train.eval_interval
        self._total = settings.train.num_timesteps
        self._last, self._rng = 0, np.random.default_rng(seed)
        self._env = make_env(settings.env, training=False)
        self._summary = {}
        ensemble = Ensemble.parse(settings.env.ensemble)
        self._mass, robots = mass_parameter(settings.env.task), [None]
        self.training_range = None  # [kg]
        if self._mass in ensemble:
            self.training_range = (ensemble[self._mass].low, ensemble[self._mass].high)
            robots = [{self._mass: mass} for mass in mass_grid(ensemble[self._mass])]
        self._robots = robots * settings.train.eval_episodes

    def due(self, step: int) -> bool:
        """Whether an evaluation is due at this step: each interval, and at the end."""
        due = step // self._interval > self._last // self._interval or step >= self._total
        self._last = step
        return due

    def episodes(self, policy) -> list[Episode]:
        return evaluate(policy, self._env, self._rng, self._robots)

    def summary(self, episodes: list[Episode]) -> dict[str, float]:
        """Percentiles over all episodes, and the means inside and outside the training range."""
        out = summarise(episodes)
        if self.training_range:
            low, high = self.training_range
            inside = np.array([low <= e.physics[self._mass] <= high for e in episodes])
            returns = np.array([e.episode_return for e in episodes])
            for name, chosen in (("inside", inside), ("outside", ~inside)):
                if chosen.any():
                    out[f"return_{name}"] = float(returns[chosen].mean())
        self._summary = out
        return {f"eval/{name}": value for name, value in out.items()}

    def verdict(self) -> dict[str, str]:
        """The last evaluation in words."""
        s = self._summary
        text = {
            "return": f"{s['return_mean']:.1f} mean of {len(self._robots)} episodes "
            f"(10th percentile {s['return_p10']:.1f}, 90th {s['return_p90']:.1f})"
        }
        if self.training_range:
            low, high = self.training_range
            text["robots"] = ", ".join(
                f"{s[f'return_{name}']:.1f} {name} the training range [{low:.3g}, {high:.3g}] kg"
                for name in ("inside", "outside")
                if f"return_{name}" in s
            )
        return text


def _row(index: int, episode: Episode) -> dict[str, float]:
    row = {"episode": index, "return": episode.episode_return, "length": episode.length}
    return row | {f"physics/{name}": value for name, value in episode.physics.items()}


def _experiments():
    kinds = {
        "ddpg": ("DDPG with a Q critic", "OpenAI Baselines ea25b9e"),
        "ddpg_ensemble": ("the same on robots of varying mass", "EPOpt, arXiv 1610.01283"),
        "diffcritic": ("difference critic on robots of varying mass", "Difference Critic; Bertsekas 1997"),
    }  # fmt: skip
    for kind, (description, source) in kinds.items():
        for task in TASKS:
            yield Experiment(
                name=f"{kind}_{task}",
                description=f"{task}: {description}",
                source=source,
                backends=backends_of(task),
                settings=_settings(task, kind),
                prepare=prepare,
                num_timesteps=lambda settings: settings.train.num_timesteps,
            )


EXPERIMENTS = {experiment.name: experiment for experiment in _experiments()}
