"""The DDPG experiments: on one robot, on an ensemble, and with the difference critic."""

from dataclasses import dataclass, replace
from functools import partial

from baselines_tf2.common.networks import MLPConfig
from baselines_tf2.common.train_loop import check_adaptation
from baselines_tf2.ddpg.config import DDPGConfig, DDPGTrainConfig, check_envs
from baselines_tf2.ddpg.epopt import check_selection
from baselines_tf2.ddpg.learn import make_agent, make_loop
from baselines_tf2.runs.experiment import Experiment
from baselines_tf2.runs.training import load, prepare
from envs import CONTINUOUS_TASKS, ConfigError, EnvSpec, backends_of, default_ensemble, time_limit


@dataclass(frozen=True)
class Settings:
    """All that defines a run, but for its seed."""

    env: EnvSpec
    agent: DDPGConfig
    train: DDPGTrainConfig

    def __post_init__(self):
        check_envs(self.agent, self.train.num_envs)
        check_adaptation(self.env, self.train)
        episode_steps = time_limit(self.env.task, self.env.backend)
        check_selection(self.agent, self.train, self.train.num_timesteps, episode_steps)
        if self.agent.pairing == "same_member" and not self.env.ensemble_size:
            raise ConfigError(
                "pairing 'same_member' with a new robot each episode pairs an episode with itself: "
                "set env.ensemble and env.ensemble_size=16, say, for robots that return"
            )


LEARNS = DDPGConfig(
    actor_network=MLPConfig(activation="relu"),
    critic_network=MLPConfig(activation="relu", layer_norm=True),
    noise_type="normal_0.2",
    reward_scale=0.1,
    batch_size=256,
    critic_l2_reg=0.0,
    actor_lr=1e-3,
)
# On MuJoCo: with returns of one step the critic's values grow far beyond any sum of rewards on
# these robots, with five they do not (docs/studies/ddpg.toml).
FIVE_STEPS = ("hopper", "walker")
AS_PROPOSED = DDPGConfig(critic="concat", batch_size=128, tau=1.0, critic_optimizer="sgd")
# This is the pairing that does what no Q critic can; which head is best is open.
DIFFERENCE = replace(LEARNS, critic="additive", actor_loss="symmetric", pairing="same_member")
ROBOTS = 16  # that return, so that pairs of one robot come from many of its episodes
# The std of a robot's level of reward, about what a good step pays: 10 on MuJoCo's cheetah, a
# tenth of it on PyBullet; Pendulum's rewards lie in [-16, 0], and good and bad policies 5 apart.
OFFSET_STD = {"mujoco": 10, "pybullet": 1, "classic": 5}


def _settings(task: str, kind: str, preset: str, backend: str) -> Settings:
    original, difference = preset == "original", kind.startswith("diffcritic")
    offset = kind.endswith("offset")
    ensemble = "" if kind == "ddpg" else default_ensemble(task, backend)
    if offset:
        std = OFFSET_STD[backend]
        ensemble += f";reward_offset:0,{std},{-3 * std},{3 * std}"
    robots = ROBOTS if offset or (difference and not original) else 0
    env = EnvSpec(task, backend, ensemble, robots)
    if original:
        agent = AS_PROPOSED if difference else DDPGConfig()
    else:
        agent = DIFFERENCE if difference else LEARNS
        if backend == "pybullet":  # rewards are a tenth of MuJoCo's
            agent = replace(agent, reward_scale=1.0)
        elif task in FIVE_STEPS:
            agent = replace(agent, n_step=5)
    quick = task == "pendulum"
    train = DDPGTrainConfig(
        eval_episodes=10 if kind == "ddpg" else 2,
        epopt_trajectories=10 if kind == "epopt" else 0,
        random_steps=0 if original else 1_000 if quick else 10_000,
    )
    if quick:
        train = replace(train, num_timesteps=20_000, eval_interval=2_000)
    return Settings(env, agent, train)


def _make_loop(agent, envs, settings, seeds, adaptation):
    train = settings.train
    length = train.num_timesteps, train.random_steps
    return make_loop(agent, envs, train, *length, seeds=seeds, adaptation=adaptation)


def _experiments():
    kinds = {
        "ddpg": ("DDPG with a Q critic", "OpenAI Baselines ea25b9e"),
        "ddpg_ensemble": ("the same on robots of varying mass", "EPOpt, arXiv 1610.01283"),
        "epopt": ("the same, learning from the worst tenth of episodes", "EPOpt, arXiv 1610.01283"),
        "ddpg_offset": ("a Q critic on 16 robots that disagree on the level of reward", "ours"),
        "diffcritic": ("difference critic on 16 robots of varying mass", "Difference Critic; Bertsekas 1997"),
        "diffcritic_offset": ("the same where they disagree on the level of reward", "ours"),
    }  # fmt: skip
    for kind, (description, source) in kinds.items():
        for task in CONTINUOUS_TASKS:
            yield Experiment(
                name=f"{kind}_{task}",
                description=f"{task}: {description}",
                source=source,
                backends=backends_of(task),
                settings=partial(_settings, task, kind),
                prepare=partial(prepare, make_agent=make_agent, make_loop=_make_loop),
                load=partial(load, make_agent=make_agent),
            )


EXPERIMENTS = {experiment.name: experiment for experiment in _experiments()}
