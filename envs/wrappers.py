"""What our environments add to the originals: robots that change, noise and distractors."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar, cast

import gymnasium as gym
import numpy as np
from gymnasium.spaces import Box
from gymnasium.wrappers import TimeLimit

from envs.ensemble import Ensemble
from envs.errors import ConfigError
from envs.physics import REWARD_OFFSET, Physics, check_values, parse_physics
from envs.spec import EnvSpec

# One random stream for each purpose, all from the seed of reset(seed=): switching one wrapper on
# leaves the others' numbers, and the simulator's own, as they were.
ROBOT, OBSERVATION_NOISE, ACTION_NOISE, DISTRACTORS, POLICY = range(5)
State = list[dict[str, Any]]  # of each wrapper that has one, the outermost first
Options = dict[str, Any] | None
Reset = tuple[np.ndarray, dict[str, Any]]  # observation, info
NOISE_SEED = "noise_seed"  # reset option: seeds the last three, apart from the rest


def stream(seed: int | None, purpose: int) -> np.random.Generator:
    """A generator of its own for each purpose of a seed; None draws from the system's entropy."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(purpose,)))


class RobotEnsemble(gym.Wrapper):
    """Puts a robot into the simulator at each reset and tells which in `info["physics"]`.

    The robot is the nominal one, changed by `physics`, then by a draw from `ensemble`, then by
    `reset(options={"physics": {...}})`, which holds for that episode. `ensemble_size` robots are
    drawn at the first reset and at each `reset(seed=)`, and each episode takes one of them
    uniformly; 0 draws a new robot each episode. `info["physics"]` maps each parameter that was
    named anywhere to its value read back from the simulator.

    `reward_offset` is added to each reward when `training`; else it is reported as 0.0. Raises
    ConfigError for a parameter which the robot does not have.
    """

    def __init__(self, env: gym.Env, physics: Physics, spec: EnvSpec, training: bool) -> None:
        super().__init__(env)
        self.physics, self._training = physics, training
        self._fixed, self.ensemble_size = parse_physics(spec.physics), spec.ensemble_size
        self._rng = stream(None, ROBOT)
        self._robots: list[Any] = []  # the values of each that returns
        self._draw_from(Ensemble.parse(spec.ensemble))
        self.place(self._fixed)

    def reset(self, *, seed: int | None = None, options: Options = None) -> Reset:
        chosen, others = _split(options, self.physics.names)
        if seed is not None:
            self._rng, self._robots = stream(seed, ROBOT), []
        if not self._robots:
            self._robots = [self.ensemble.draw(self._rng) for _ in range(self.ensemble_size)]
        drawn = self._rng.choice(self._robots) if self._robots else self.ensemble.draw(self._rng)
        values = self._fixed | drawn | chosen
        self._check(values)  # before anything has changed
        observation, info = self.env.reset(seed=seed, options=others)
        # After the original's reset, which on Bullet restores its own gravity.
        self.place(values)
        read = {name: self.physics.read(name) for name in values if name != REWARD_OFFSET}
        if REWARD_OFFSET in values:
            read[REWARD_OFFSET] = self._reward_offset
        return observation, info | {"physics": read}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        self.physics.before_step()
        if not self._reward_offset:
            return self.env.step(action)
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float(reward) + self._reward_offset, terminated, truncated, info

    def place(self, values: Mapping[str, float]) -> None:
        """Makes the robot the nominal one but for `values`, until the next reset."""
        self.physics.set({name: v for name, v in values.items() if name != REWARD_OFFSET})
        self._reward_offset = float(values.get(REWARD_OFFSET, 0.0)) if self._training else 0.0
        # What makes this robot another than the nominal one, as drawn: reading it back rounds.
        self.placed = dict(values)

    def move(self, ensemble: Ensemble) -> None:
        """Draws from `ensemble` from the next reset on: `adapt`'s answer, while training goes on.

        Raises ConfigError unless it has the same parameters with possible values, and where
        robots return (`ensemble_size`): transitions stored as one's would come from several.
        """
        if self.ensemble_size:
            raise ConfigError("robots that return cannot be moved: leave ensemble_size 0")
        if ensemble.keys() != self.ensemble.keys():
            raise ConfigError(f"an ensemble of '{self.ensemble}' cannot become '{ensemble}'")
        self._draw_from(ensemble)

    def get_state(self) -> dict[str, Any]:
        """The robot, the simulation and the random streams, the simulator's own included."""
        return {
            "ensemble": str(self.ensemble),
            "placed": self.placed,
            "robots": self._robots,
            "rng": self._rng.bit_generator.state,
            "simulation": self.physics.get_state(),
            "simulator_rng": self.unwrapped.np_random.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Puts back what `get_state` gave; to be called after a reset."""
        self.ensemble = Ensemble.parse(state["ensemble"])
        self._robots = state["robots"]
        self._rng.bit_generator.state = state["rng"]
        self.unwrapped.np_random.bit_generator.state = state["simulator_rng"]
        self.place(state["placed"])
        self.physics.set_state(state["simulation"])

    def _draw_from(self, ensemble: Ensemble) -> None:
        for drawn in ensemble.ends():
            self._check(self._fixed | drawn)
        self.ensemble = ensemble

    def _check(self, values: Mapping[str, float]) -> None:
        check_values(values, (*self.physics.names, REWARD_OFFSET), "this robot")


def _split(options: Options, known: Iterable[str]) -> tuple[dict[str, float], Options]:
    """Our part of reset's options, and what is left for the original environment."""
    others = dict(options or {})
    chosen, _ = others.pop("physics", {}), others.pop(NOISE_SEED, None)
    if not isinstance(chosen, dict):
        raise ConfigError(f"options['physics'] must be a dict of name: value; got {chosen!r}")
    for name in others:
        if name in known or get_close_matches(name, ["physics"]):
            message = "the robot is set as options={'physics': {name: value}}"
            raise ConfigError(f"unknown reset option '{name}': {message}")
    return chosen, others or None


def find_robot(env: gym.Env) -> RobotEnsemble:
    """The RobotEnsemble inside `env`; its step knows no time limit, noise or distractors.

    Raises ConfigError if there is none: the environment is not one of ours.
    """
    for layer in _layers(env):
        if isinstance(layer, RobotEnsemble):
            return layer
    raise ConfigError(f"{env} has no RobotEnsemble: make it with envs.make_env")


def get_env_state(env: gym.Env) -> State:
    """All that the episode's rest and the coming episodes depend on, as nested tables.

    env: from make_env, reset at least once. Raises ConfigError if it is not one of ours.
    """
    find_robot(env)
    return [
        {"steps": layer._elapsed_steps} if isinstance(layer, TimeLimit) else layer.get_state()
        for layer in _layers(env)
    ]


def set_env_state(env: gym.Env, state: State) -> bool:
    """Puts back what get_env_state gave; env: reset at least once.

    False if the simulator does not go on from there to the bit (`Physics.exact_state`): its random
    streams are then put back, and the caller resets it to begin the next episode.
    """
    for layer, own in zip(_layers(env), state, strict=True):
        if isinstance(layer, TimeLimit):
            layer._elapsed_steps = own["steps"]
        else:
            layer.set_state(own)
    return find_robot(env).physics.exact_state


def _layers(env: gym.Env) -> Iterator[Any]:
    """The wrappers that have a state, the outermost first."""
    while isinstance(env, gym.Wrapper):
        if isinstance(env, TimeLimit) or hasattr(type(env), "get_state"):
            yield env
        env = env.env


class _Random(gym.Wrapper):
    """A wrapper with a random stream of its own, seeded by `reset(seed=)`.

    `reset(options={"noise_seed": ...})` seeds it apart, so that two environments which begin
    elsewhere can draw the same numbers.
    """

    purpose: ClassVar[int]

    def __init__(self, env: gym.Env, amount: Any) -> None:
        super().__init__(env)
        self._amount, self._rng = amount, stream(None, self.purpose)

    def reset(self, *, seed: int | None = None, options: Options = None) -> Reset:
        own = (options or {}).get(NOISE_SEED, seed)
        if own is not None:
            self._rng = stream(own, self.purpose)
        return super().reset(seed=seed, options=options)

    def get_state(self) -> dict[str, Any]:
        """The random stream."""
        return {"rng": self._rng.bit_generator.state}

    def set_state(self, state: dict[str, Any]) -> None:
        """Puts back what `get_state` gave; to be called after a reset."""
        self._rng.bit_generator.state = state["rng"]


class NoisyObservation(_Random, gym.ObservationWrapper):
    """observation * (1 + noise * N(0, 1)), a new number for each entry and step."""

    purpose = OBSERVATION_NOISE

    def __init__(self, env: gym.Env, noise: float) -> None:
        super().__init__(env, noise)
        space = cast(Box, env.observation_space)
        self.observation_space = Box(-np.inf, np.inf, space.shape, space.dtype)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        factor = 1 + self._amount * self._rng.standard_normal(observation.shape)
        return (observation * factor).astype(observation.dtype)


class NoisyAction(_Random, gym.ActionWrapper):
    """action * (1 + noise * N(0, 1)), a new number for each entry and step, then clipped."""

    purpose = ACTION_NOISE

    def action(self, action: np.ndarray) -> np.ndarray:
        space = cast(Box, self.action_space)
        noisy = action * (1 + self._amount * self._rng.standard_normal(space.shape))
        return np.clip(noisy, space.low, space.high).astype(space.dtype)


class Distractors(_Random, gym.ObservationWrapper):
    """Appends `count` independent N(0, 1) numbers to the observation, new at each step."""

    purpose = DISTRACTORS

    def __init__(self, env: gym.Env, count: int) -> None:
        super().__init__(env, count)
        space = cast(Box, env.observation_space)
        low = np.pad(space.low, (0, count), constant_values=-np.inf)
        high = np.pad(space.high, (0, count), constant_values=np.inf)
        self.observation_space = Box(low, high, dtype=low.dtype)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        extra = self._rng.standard_normal(self._amount).astype(observation.dtype)
        return np.concatenate([observation, extra])
