"""`learn`, with the keywords of OpenAI Baselines' `ddpg.learn`, and the training it stands on."""

import gymnasium as gym
import numpy as np

from baselines_tf2.common.adaptation import TargetAdaptation
from baselines_tf2.common.evaluate import summarise
from baselines_tf2.common.logger import print_metrics
from baselines_tf2.common.networks import get_network_builder
from baselines_tf2.common.rollout import (
    Collector,
    Envs,
    action_scale,
    as_envs,
    observation_dim,
)
from baselines_tf2.common.train_loop import TrainLoop
from baselines_tf2.common.training import RETURN_HISTORY, EpochRows, Seeds, spawn_seeds
from baselines_tf2.ddpg.agent import Agent
from baselines_tf2.ddpg.config import DDPGConfig
from baselines_tf2.ddpg.epopt import make_selection
from envs.errors import ConfigError


def make_agent(envs: Envs, config: DDPGConfig, seed: int, **bodies) -> Agent:
    """An agent for these environments; ConfigError if their spaces do not suit it."""
    if envs.num_envs != config.num_envs:
        raise ConfigError(f"num_envs is {config.num_envs} and there are {envs.num_envs}")
    action_dim = len(action_scale(envs.action_space))
    return Agent(config, observation_dim(envs.observation_space), action_dim, seed=seed, **bodies)


def make_loop(
    agent: Agent,
    envs: Envs,
    *,
    num_timesteps: int,
    seeds: Seeds,
    render: bool = False,
    adaptation: TargetAdaptation | None = None,
) -> TrainLoop:
    """The loop that trains the agent for `num_timesteps` transitions."""
    config = agent.config
    collector = Collector(
        envs,
        agent.action_noises,
        np.random.default_rng(seeds.exploration),
        seed=seeds.envs,
        twins=config.pairing == "coupled",
        render=render,
    )
    return TrainLoop(
        agent,
        collector,
        num_timesteps=num_timesteps,
        num_envs=config.num_envs,
        nb_rollout_steps=config.nb_rollout_steps,
        nb_epoch_cycles=config.nb_epoch_cycles,
        random_steps=config.random_steps,
        overlap=config.overlap,
        select=make_selection(config, num_timesteps),
        adaptation=adaptation,
    )


class StepEvaluator:
    """Baselines' evaluation: a number of steps at a time, episodes running on between calls."""

    def __init__(self, agent: Agent, env: gym.Env, *, seed: int, render: bool):
        self._agent, self._history = agent, []
        rng = np.random.default_rng(seed)
        self._collector = Collector(as_envs(env), [], rng, seed=seed, render=render)

    def __call__(self, num_steps: int) -> dict[str, float]:
        new, episodes = self._collector.collect(self._agent.policy, num_steps)
        q = self._agent.step(new.obs0.reshape(-1, new.obs0.shape[-1]))[1]
        metrics = {"eval/q": float(q.mean()), "eval/episodes": len(episodes)}
        if episodes:
            self._history += [episode.episode_return for episode in episodes]
            self._history = self._history[-RETURN_HISTORY:]
            metrics["eval/return"] = summarise(episodes)["return_mean"]
            metrics["eval/return_history"] = float(np.mean(self._history))
        return metrics


def learn(
    network,
    env,
    seed=None,
    total_timesteps=None,
    nb_epochs=None,
    nb_epoch_cycles=20,
    nb_rollout_steps=100,
    reward_scale=1.0,
    render=False,
    render_eval=False,
    noise_type="adaptive-param_0.2",
    normalize_returns=False,
    normalize_observations=True,
    critic_l2_reg=1e-2,
    actor_lr=1e-4,
    critic_lr=1e-3,
    popart=False,
    gamma=0.99,
    clip_norm=None,
    nb_train_steps=50,
    nb_eval_steps=100,
    batch_size=64,
    tau=0.01,
    eval_env=None,
    param_noise_adaption_interval=50,
    load_path=None,
    *,
    callback=print_metrics,
    **network_kwargs,
) -> Agent:
    """Trains DDPG on `env` and returns the agent: OpenAI Baselines' `ddpg.learn`, by keyword.

    network: "mlp", another registered name, or a builder of Keras layers; network_kwargs are its
    options. env: a Gymnasium environment, or a vector one that does not reset itself. The number
    of steps is total_timesteps, or nb_epochs (500 by default) times their length, so 1M for one
    environment. eval_env is stepped nb_eval_steps per cycle, all at the epoch's end. callback(step,
    metrics) is called after every epoch; None keeps quiet. Raises ConfigError for settings or spaces that cannot be
    used, TrainingError where something is not finite.
    """
    if total_timesteps is not None and nb_epochs is not None:
        raise ConfigError("give total_timesteps or nb_epochs, not both")
    for name, count in (("total_timesteps", total_timesteps), ("nb_epochs", nb_epochs)):
        if count is not None and count < 0:
            raise ConfigError(f"{name} must be at least 0, not {count}")
    envs, builder = as_envs(env), get_network_builder(network)
    config = DDPGConfig(
        nb_epoch_cycles=nb_epoch_cycles,
        nb_rollout_steps=nb_rollout_steps,
        reward_scale=reward_scale,
        noise_type=noise_type or "none",
        normalize_returns=normalize_returns,
        normalize_observations=normalize_observations,
        critic_l2_reg=critic_l2_reg,
        actor_lr=actor_lr,
        critic_lr=critic_lr,
        popart=popart,
        gamma=gamma,
        clip_norm=clip_norm,
        nb_train_steps=nb_train_steps,
        batch_size=batch_size,
        tau=tau,
        param_noise_adaption_interval=param_noise_adaption_interval,
        num_envs=envs.num_envs,
    )

    def body(**kwargs):
        return builder(**kwargs, **network_kwargs)

    seeds = spawn_seeds(seed)
    agent = make_agent(envs, config, seeds.agent, actor_body=body, critic_body=body)
    if load_path is not None:
        agent.load(load_path)
    evaluator = None
    if eval_env is not None:
        if as_envs(eval_env).observation_space.shape != envs.observation_space.shape:
            raise ConfigError("env and eval_env have observations of different shapes")
        if nb_eval_steps < 1:
            raise ConfigError(f"nb_eval_steps must be at least 1, not {nb_eval_steps}")
        evaluator = StepEvaluator(agent, eval_env, seed=seeds.evaluation, render=render_eval)
    if total_timesteps is None:
        epoch_steps = nb_epoch_cycles * nb_rollout_steps * envs.num_envs
        total_timesteps = (500 if nb_epochs is None else nb_epochs) * epoch_steps

    def on_epoch(step, metrics):
        if evaluator is not None:
            metrics = metrics | evaluator(nb_eval_steps * nb_epoch_cycles)
        if callback is not None:
            callback(step, metrics)

    loop = make_loop(agent, envs, num_timesteps=int(total_timesteps), seeds=seeds, render=render)
    loop.run(EpochRows(agent, on_epoch).epoch)
    return agent
