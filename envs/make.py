"""Builds an environment from its EnvSpec, and tells Gymnasium about all of them."""

import importlib
from dataclasses import asdict
from typing import Any

import gymnasium as gym

from envs.display import has_screen
from envs.ensemble import Ensemble
from envs.errors import ConfigError
from envs.physics import Physics
from envs.spec import ORIGINALS, EnvSpec, parse_physics
from envs.wrappers import Distractors, NoisyAction, NoisyObservation, RobotEnsemble

# Per backend: our module for it, what makes an environment's Physics, and the package it needs.
BACKENDS = {
    "mujoco": ("envs.mujoco_physics", "MujocoPhysics", "gymnasium[mujoco]"),
    "pybullet": ("envs.pybullet_physics", "BulletPhysics", "pybullet_envs_gymnasium"),
    "classic": ("envs.classic_physics", "classic_physics", "gymnasium"),
}

TIME_LIMITS = {"pendulum": 200, "cartpole": 500}  # [steps] the originals'; 1000 for all others


def make_env(spec: EnvSpec, *, training: bool, render_mode: str | None = None) -> gym.Env:
    """The environment of `spec`, time limit included, as Gymnasium's own `make` builds it.

    `training=False` is for evaluation: rewards come without reward_offset. Observations keep the
    original's dtype: float64 [O] on MuJoCo, else float32 [O]; actions are float32 [A] within the
    space's bounds, but for cartpole an integer, 0 or 1. `render_mode` is None, "human" or
    "rgb_array". Raises ConfigError if the backend is not installed, or for a parameter which the
    robot does not have.
    """
    return gym.make(
        robot_id(spec.task, spec.backend),
        **{name: v for name, v in asdict(spec).items() if name not in ("task", "backend")},
        training=training,
        render_mode=render_mode,
    )


def build(
    task: str, backend: str, training: bool = True, render_mode: str | None = None, **fields: Any
) -> gym.Env:
    """The registered entry point: the environment without time limit; `fields` are EnvSpec's."""
    spec = EnvSpec(task, backend, **fields)
    env, physics = _original(spec, render_mode)
    ensemble, fixed = Ensemble.parse(spec.ensemble), parse_physics(spec.physics)
    env = RobotEnsemble(env, physics, ensemble, spec.ensemble_size, fixed, training)
    if spec.action_noise:
        env = NoisyAction(env, spec.action_noise)
    if spec.observation_noise:
        env = NoisyObservation(env, spec.observation_noise)
    if spec.distractors:
        env = Distractors(env, spec.distractors)
    return env


def _original(spec: EnvSpec, render_mode: str | None) -> tuple[gym.Env, Physics]:
    if render_mode not in (None, "human", "rgb_array"):
        raise ConfigError(f"render_mode must be None, human or rgb_array; got '{render_mode}'")
    if render_mode == "human" and not has_screen():  # the simulators would end the interpreter
        raise ConfigError("render_mode 'human' needs a screen, and there is none: use 'rgb_array'")
    name, physics, package = BACKENDS[spec.backend]
    try:  # imported only here, so that each backend runs without the others
        module = importlib.import_module(name)
    except ImportError as error:
        message = f"{spec.backend} is not installed ({error}): pip install '{package}'"
        raise ConfigError(message) from error
    original = ORIGINALS[spec.task, spec.backend]
    try:
        env = module.make_original(original, render_mode)
    except ConfigError:
        raise
    except Exception as error:  # a driver, a library or a file that is missing or does not fit
        reason = " ".join(str(error).split())
        raise ConfigError(f"{original} cannot be made: {type(error).__name__}: {reason}") from error
    options = {"bare_mass": True} if spec.bare_mass else {}
    return env, getattr(module, physics)(env, **options)


def robot_id(task: str, backend: str) -> str:
    """The id under which Gymnasium knows this environment, e.g. robots/cheetah-mujoco-v0."""
    return f"robots/{task}-{backend}-v0"


def time_limit(task: str, backend: str) -> int:
    """The steps after which an episode is cut."""
    steps = gym.spec(robot_id(task, backend)).max_episode_steps
    return steps  # type: ignore[return-value]  # an environment may have none; all of ours do


def register_all() -> None:
    """Registers every task and backend with Gymnasium; no simulator is imported by it."""
    for task, backend in ORIGINALS:
        gym.register(
            robot_id(task, backend),
            entry_point="envs.make:build",
            max_episode_steps=TIME_LIMITS.get(task, 1000),
            kwargs={"task": task, "backend": backend},
        )
