"""Builds an environment from its EnvSpec; importing this tells Gymnasium about all of them."""

import importlib
from dataclasses import asdict
from typing import Any

import gymnasium as gym

from envs.display import has_screen
from envs.errors import ConfigError
from envs.physics import Physics
from envs.spec import ORIGINALS, EnvSpec
from envs.wrappers import Distractors, NoisyAction, NoisyObservation, RobotEnsemble

TIME_LIMITS = {"pendulum": 200, "cartpole": 500}  # [steps] the originals'; 1000 for all others
PACKAGES = {  # what a backend needs
    "mujoco": "gymnasium[mujoco]",
    "pybullet": "pybullet_envs_gymnasium",
    "classic": "gymnasium",
}


def make_env(spec: EnvSpec, *, training: bool, render_mode: str | None = None) -> gym.Env:
    """The environment of `spec`, time limit included, as Gymnasium's own `make` builds it.

    `training=False` is for evaluation: rewards come without reward_offset. Observations keep the
    original's dtype: float64 [O] on MuJoCo, else float32 [O]; actions are float32 [A] within the
    space's bounds, but for cartpole an integer, 0 or 1. `render_mode` is None, "human" or
    "rgb_array". Raises ConfigError if the backend is not installed, or for a parameter which the
    robot does not have.
    """
    name = robot_id(spec.task, spec.backend)
    return gym.make(name, **asdict(spec), training=training, render_mode=render_mode)


def build(training: bool = True, render_mode: str | None = None, **fields: Any) -> gym.Env:
    """The registered entry point: the environment without time limit; `fields` are EnvSpec's."""
    spec = EnvSpec(**fields)
    env, physics = _original(spec, render_mode)
    env = RobotEnsemble(env, physics, spec, training)
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
    try:  # imported only here, so that each backend runs without the others
        module = importlib.import_module(f"envs.{spec.backend}_physics")
    except ImportError as error:
        package = PACKAGES[spec.backend]
        message = f"{spec.backend} is not installed ({error}): pip install '{package}'"
        raise ConfigError(message) from error
    original = ORIGINALS[spec.task, spec.backend]
    options = {"bare_mass": True} if spec.bare_mass else {}
    try:
        return module.make_original(original, render_mode, **options)
    except ConfigError:
        raise
    except Exception as error:  # a driver, a library or a file that is missing or does not fit
        reason = " ".join(str(error).split())
        raise ConfigError(f"{original} cannot be made: {type(error).__name__}: {reason}") from error


def robot_id(task: str, backend: str) -> str:
    """The id under which Gymnasium knows this environment, e.g. robots/cheetah-mujoco-v0."""
    return f"robots/{task}-{backend}-v0"


def time_limit(task: str, backend: str) -> int:
    """The steps after which an episode is cut."""
    steps = gym.spec(robot_id(task, backend)).max_episode_steps
    return steps  # type: ignore[return-value]  # an environment may have none; all of ours do


for _task, _backend in ORIGINALS:
    gym.register(
        robot_id(_task, _backend),
        entry_point="envs.make:build",
        max_episode_steps=TIME_LIMITS.get(_task, 1000),
        kwargs={"task": _task, "backend": _backend},
    )
