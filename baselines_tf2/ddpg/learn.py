"""`train` for any DDPGConfig, and `learn` with the keywords of OpenAI Baselines' `ddpg.learn`."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np

from baselines_tf2.common.networks import Body, get_network_builder
from baselines_tf2.common.rollout import Collector, Envs, SerialEnvs, as_envs
from baselines_tf2.common.spaces import action_scale, observation_dim
from baselines_tf2.common.train_loop import Adaptation, TrainLoop, check_random_steps
from baselines_tf2.ddpg.agent import DDPGAgent
from baselines_tf2.ddpg.config import DDPGConfig, LoopConfig, check_envs
from baselines_tf2.ddpg.epopt import check_selection, make_selection
from baselines_tf2.ddpg.robots import NOTHING, make_sight
from baselines_tf2.runs.logger import print_metrics
from baselines_tf2.runs.training import RETURN_HISTORY, EpochRows, Seeds, spawn_seeds
from envs.errors import ConfigError, check_at_least


def make_agent(envs: Envs, config: DDPGConfig, seed: int, body: Body | None = None) -> DDPGAgent:
    """An agent for these environments; ConfigError if their spaces do not suit it."""
    check_envs(config, envs.num_envs)
    if envs.twins != (config.pairing == "coupled"):
        raise ConfigError("pairing 'coupled' and environments that are twins need each other")
    dims = observation_dim(envs.observation_space), len(action_scale(envs.action_space))
    sight = _sight(envs, config)
    return DDPGAgent(config, *dims, seed=seed, num_envs=envs.num_envs, sight=sight, body=body)


def _robots_return(envs):
    """False where it is known that none does: of environments not ours it is not."""
    try:
        return not isinstance(envs, SerialEnvs) or envs.robot.ensemble_size > 0
    except ConfigError:
        return True


def _sight(envs, config):
    if config.critic_sees == "nothing":
        return NOTHING
    if not isinstance(envs, SerialEnvs):
        raise ConfigError("critic_sees needs environments of envs.make_env, not a vector one")
    robot = envs.robot
    num_robots = robot.ensemble_size * envs.num_envs  # each environment draws its own
    return make_sight(config.critic_sees, robot.ensemble, num_robots)


def make_loop(
    agent: DDPGAgent,
    envs: Envs,
    loop: LoopConfig,
    num_timesteps: int,
    random_steps: int,
    *,
    seeds: Seeds,
    render: bool = False,
    adaptation: Adaptation | None = None,
) -> TrainLoop:
    """The loop that trains the agent for `num_timesteps` transitions."""
    config = agent.config
    if envs.num_envs != loop.num_envs:
        raise ConfigError(f"num_envs is {loop.num_envs} and there are {envs.num_envs}")
    noises, rng = agent.action_noises, np.random.default_rng(seeds.exploration)
    collector = Collector(envs, noises, rng, seed=seeds.envs, render=render, meet=agent.meet)
    if config.pairing == "same_member" and not (collector.knows_robots and _robots_return(envs)):
        raise ConfigError(
            "pairing 'same_member' needs robots that return, and environments that tell their "
            "robots: those of make_env with an ensemble and an ensemble_size, 16, say, or any whose "
            "reset returns info['physics']"
        )
    return TrainLoop(
        agent,
        collector,
        num_timesteps=num_timesteps,
        nb_rollout_steps=config.nb_rollout_steps,
        nb_epoch_cycles=loop.nb_epoch_cycles,
        random_steps=random_steps,
        overlap=loop.overlap,
        select=make_selection(loop, num_timesteps),
        adaptation=adaptation,
    )


def step_evaluator(
    agent: DDPGAgent, env: gym.Env, num_steps: int, seed: int, render: bool
) -> Callable[[], dict[str, float]]:
    """Baselines' evaluation: a number of steps at a time, episodes running on between calls."""
    rng, history = np.random.default_rng(seed), deque[float](maxlen=RETURN_HISTORY)
    envs = as_envs(env)
    if observation_dim(envs.observation_space) != agent.replay.layout.obs_dim:
        raise ConfigError("env and eval_env have observations of different shapes")
    collector = Collector(envs, [], rng, seed=seed, render=render)

    def evaluate():
        new, episodes = collector.collect(agent.policy, num_steps)
        q = agent.step(new.obs0.reshape(-1, new.obs0.shape[-1]))[1]
        metrics = {"eval/q": float(q.mean()), "eval/episodes": len(episodes)}
        if episodes:
            returns = [episode.episode_return for episode in episodes]
            history.extend(returns)
            metrics["eval/return"] = float(np.mean(returns))
            metrics["eval/return_history"] = float(np.mean(history))
        return metrics

    return evaluate


def train(
    env: gym.Env | gym.vector.VectorEnv | Sequence[gym.Env],
    config: DDPGConfig,
    loop: LoopConfig | None = None,
    *,
    total_timesteps: int,
    random_steps: int = 0,
    seed: int | None = None,
    eval_env: gym.Env | None = None,
    nb_eval_steps: int = 100,
    load_path: str | Path | None = None,
    callback: Callable[[int, dict[str, float]], None] | None = print_metrics,
    render: bool = False,
    render_eval: bool = False,
    body: Body | None = None,
) -> DDPGAgent:
    """Trains DDPG as `config` says, with any critic, pairing and return; returns the agent.

    env: `loop.num_envs` Gymnasium environments: one, a list of them, or a vector one that does
    not reset itself. loop: None is `LoopConfig()`. random_steps: of uniform actions at the start,
    without training. `coupled` pairs need a list of environments of `envs.make_env`, `same_member`
    ones whose robots return and are told. eval_env is stepped nb_eval_steps per cycle, all at the
    epoch's end. load_path: weights to start from, of `DDPGAgent.save`. callback(step, metrics) is
    called after every epoch; None keeps quiet. body: builds other hidden layers than the config's.
    Raises ConfigError for settings or environments that cannot be used, TrainingError where
    something is not finite or the environment raises.
    """
    check_at_least(0, total_timesteps=total_timesteps, random_steps=random_steps)
    check_at_least(1, nb_eval_steps=nb_eval_steps)
    check_random_steps(total_timesteps, random_steps)
    steps, settings = int(total_timesteps), LoopConfig() if loop is None else loop
    envs, seeds = as_envs(env, twins=config.pairing == "coupled"), spawn_seeds(seed)
    given = env if isinstance(env, Sequence) else [env]
    if any(one is eval_env for one in given):
        raise ConfigError("eval_env is an environment that is trained on: make another one")
    check_selection(config, settings, steps, getattr(given[0].spec, "max_episode_steps", None) or 1)
    agent = make_agent(envs, config, seeds.agent, body)
    if load_path is not None:
        agent.load(load_path)
    evaluate: Callable[[], dict[str, float]] = dict
    if eval_env is not None:
        num_steps = nb_eval_steps * settings.nb_epoch_cycles
        evaluate = step_evaluator(agent, eval_env, num_steps, seeds.evaluation, render_eval)

    def on_epoch(step, metrics):
        metrics = metrics | evaluate()
        if callback is not None:
            callback(step, metrics)

    length = steps, random_steps
    training = make_loop(agent, envs, settings, *length, seeds=seeds, render=render)
    training.run(EpochRows(agent, on_epoch).epoch)
    return agent


def learn(
    network, env, seed=None, total_timesteps=None, nb_epochs=None, nb_epoch_cycles=20,
    nb_rollout_steps=100, reward_scale=1.0, render=False, render_eval=False,
    noise_type="adaptive-param_0.2", normalize_returns=False, normalize_observations=True,
    critic_l2_reg=1e-2, actor_lr=1e-4, critic_lr=1e-3, popart=False, gamma=0.99, clip_norm=None,
    nb_train_steps=50, nb_eval_steps=100, batch_size=64, tau=0.01, eval_env=None,
    param_noise_adaption_interval=50, load_path=None, *, callback=print_metrics, **network_kwargs,
) -> DDPGAgent:  # fmt: skip
    """Trains DDPG on `env` and returns the agent: OpenAI Baselines' `ddpg.learn`, by keyword.

    network: "mlp", or a builder of Keras layers; network_kwargs are its options. env: as in
    `train`; each environment of a vector one is stepped nb_rollout_steps per cycle, with
    nb_train_steps for each, so that updates per transition stay as they are. The number of steps is
    total_timesteps, or nb_epochs (500 by default) times their length. The rest is as in `train`.
    """
    given = locals()
    if total_timesteps is not None and nb_epochs is not None:
        raise ConfigError("give total_timesteps or nb_epochs, not both")
    num_envs = as_envs(env).num_envs
    settings = {x.name: given[x.name] for x in fields(DDPGConfig) if x.name in given}
    settings["noise_type"] = noise_type or "none"
    for name in ("nb_rollout_steps", "nb_train_steps"):  # a cycle's, of all environments
        settings[name] *= num_envs
    config = DDPGConfig(**settings)
    body = partial(get_network_builder(network), **network_kwargs)
    if total_timesteps is None:
        nb_epochs = 500 if nb_epochs is None else nb_epochs
        check_at_least(0, nb_epochs=nb_epochs)
        total_timesteps = nb_epochs * nb_epoch_cycles * config.nb_rollout_steps
    loop = LoopConfig(num_envs=num_envs, nb_epoch_cycles=nb_epoch_cycles)
    same = ("seed", "eval_env", "nb_eval_steps", "load_path", "callback", "render", "render_eval")
    options = {name: given[name] for name in same}
    return train(env, config, loop, total_timesteps=total_timesteps, body=body, **options)
