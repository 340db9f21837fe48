"""Stepping environments with an exploring policy."""

import traceback
from bdb import BdbQuit
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.replay import Rollout
from baselines_tf2.common.spaces import actions_of, observation_dim
from baselines_tf2.common.state import Stateful
from envs.errors import ConfigError
from envs.wrappers import NOISE_SEED, RobotEnsemble, find_robot, get_env_state, set_env_state

# Observations [N, O] -> actions [N, A], in [-1, 1] or one-hot.
Policy = Callable[[np.ndarray], np.ndarray]


class Episode(NamedTuple):
    """One finished episode."""

    episode_return: float
    length: int  # steps
    physics: dict[str, float]  # the robot's parameters, {} where there is no ensemble


class Step(NamedTuple):
    """What N environments answer to one action each; obs1 is before any reset.

    The arrays may be written over by the next step.
    """

    obs1: np.ndarray  # [N, O]
    rewards: np.ndarray  # [N]
    terminals1: np.ndarray  # [N] bool
    truncations: np.ndarray  # [N] bool
    any_end: bool  # whether any of the 2 N flags is set


# Of what an environment raises: what means something to the driver or to a debugger.
PASSING = (ConfigError, TrainingError, MemoryError, BdbQuit)
# What every error that stops a run ends with.
STOPS = " at step {:,}: training stops, and what was logged is kept"


@contextmanager
def failing_at(step: int) -> Iterator[None]:
    """Adds to a TrainingError at which step it was."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"{error}{STOPS.format(step)}") from error.__cause__


@contextmanager
def blaming(env: str, call: str, where: str, passing: tuple = PASSING) -> Iterator[None]:
    """Makes a TrainingError of one line of what an environment raises, but for what is passing."""
    try:
        yield
    except passing:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}, line {frame.lineno}"
        text = " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
        raise TrainingError(f"{env}'s {call} raised {text} ({place}){where}") from error


def env_name(env: gym.Env | gym.vector.VectorEnv) -> str:
    """What to call it in messages."""
    spec = env.unwrapped.spec  # not the wrappers', which copy it each time
    return spec.id if spec else type(env.unwrapped).__name__


class Envs(Protocol):
    """N environments that are reset when told to, never by themselves."""

    name: str
    num_envs: int
    twins: bool = False  # 2i and 2i + 1 share robot, time and noise, not where they begin
    observation_space: gym.Space
    action_space: gym.Space

    def reset(self, ended: np.ndarray, seed: int | None = None) -> tuple[np.ndarray, list[dict]]:
        """Resets where `ended`, [N] bool: current observations [N, O], each robot's parameters."""

    def step(self, actions: np.ndarray) -> Step: ...

    def render(self) -> None: ...

    def get_state(self) -> dict:
        """Where the simulations and their random streams are, of environments that can tell."""
        return {}

    def set_state(self, state: dict) -> bool:
        """Puts back what `get_state` gave; False if new episodes are to begin instead."""
        return False


class SerialEnvs(Envs):
    """Environments of this process, stepped in turn.

    With `twins` the environments 2i and 2i + 1 have the same robot, draw the same noise and start
    together, from states of their own: the end of one cuts the other's episode, as a time limit
    does, so that rows of equal time stay paired. Raises ConfigError for twins of environments that
    are not `make_env`'s, or of an odd number of them.
    """

    def __init__(self, envs: Sequence[gym.Env], *, twins: bool = False):
        self._envs, self.num_envs, self.twins = list(envs), len(envs), twins
        if len({id(env) for env in envs}) < len(envs):
            raise ConfigError("the same environment is in the list twice: make one for each place")
        if twins and self.num_envs % 2:
            raise ConfigError(f"twins come in twos: {self.num_envs} environments are no pairs")
        self._robots = [find_robot(env) for env in envs] if twins else []
        self.name = env_name(envs[0])
        self.observation_space = envs[0].observation_space
        self.action_space = envs[0].action_space
        self._obs = np.zeros((self.num_envs, observation_dim(self.observation_space)))
        self._rewards = np.zeros(self.num_envs)
        self._terminals, self._truncations = np.zeros((2, self.num_envs), bool)
        self._physics: list[dict[str, float]] = [{} for _ in envs]

    @property
    def robot(self) -> RobotEnsemble:
        """What draws the robots; ConfigError for environments that are not ours."""
        return find_robot(self._envs[0])

    def reset(self, ended, seed=None):
        for n in np.flatnonzero(ended):
            env_seed = None if seed is None else seed + int(n)
            options: dict[str, Any] | None = None
            if self.twins and n % 2:
                options = {"physics": self._robots[n - 1].placed}
                if env_seed is not None:
                    options[NOISE_SEED] = env_seed - 1
            self._obs[n], info = self._envs[n].reset(seed=env_seed, options=options)
            self._physics[n] = info.get("physics", {})
        return self._obs, list(self._physics)

    def step(self, actions):
        any_end = False
        for n, env in enumerate(self._envs):
            self._obs[n], self._rewards[n], terminal, truncation, _ = env.step(actions[n])
            self._terminals[n], self._truncations[n] = terminal, truncation
            any_end = any_end or terminal or truncation
        if self.twins and any_end:
            ended = (self._terminals | self._truncations).reshape(-1, 2).any(-1)
            self._truncations |= np.repeat(ended, 2) & ~self._terminals
        return Step(self._obs, self._rewards, self._terminals, self._truncations, any_end)

    def render(self):
        for env in self._envs:
            env.render()

    def get_state(self):
        return {"envs": list(map(get_env_state, self._envs)), "physics": self._physics}

    def set_state(self, state):
        self._physics = state["physics"]
        pairs = zip(self._envs, state["envs"], strict=True)
        exact = [set_env_state(env, own) for env, own in pairs]  # of all, before any answer
        return all(exact)


class VectorEnvs(Envs):
    """A Gymnasium vector environment made with `autoreset_mode=AutoresetMode.DISABLED`.

    Never of twins: its reset takes one robot for all.
    """

    def __init__(self, env: gym.vector.VectorEnv):
        if env.metadata.get("autoreset_mode") != gym.vector.AutoresetMode.DISABLED:
            raise ConfigError(
                "the vector environment resets itself: make it with "
                "vector_kwargs={'autoreset_mode': gymnasium.vector.AutoresetMode.DISABLED}"
            )
        self._env, self.num_envs, self.name = env, env.num_envs, env_name(env)
        self.observation_space = env.single_observation_space
        self.action_space = env.single_action_space
        self._physics: list[dict[str, float]] = [{} for _ in range(env.num_envs)]

    def reset(self, ended, seed=None):
        options = None if ended.all() else {"reset_mask": ended}
        obs, info = self._env.reset(seed=seed, options=options)
        physics = info.get("physics", {})
        masks = {name: physics.get(f"_{name}", ended) for name in physics if name[0] != "_"}
        for n in np.flatnonzero(ended):
            told = [name for name, mask in masks.items() if mask[n]]
            self._physics[n] = {name: float(physics[name][n]) for name in told}
        return obs, list(self._physics)

    def step(self, actions):
        obs1, rewards, terminals1, truncations, _ = self._env.step(actions)
        any_end = bool(terminals1.any() or truncations.any())
        return Step(obs1, rewards, terminals1, truncations, any_end)

    def render(self):
        self._env.render()


def as_envs(
    env: gym.Env | gym.vector.VectorEnv | Sequence[gym.Env], *, twins: bool = False
) -> Envs:
    """Wraps a Gymnasium environment, a list of them, or a vector one; ConfigError for no such."""
    if isinstance(env, gym.vector.VectorEnv):
        if twins:
            raise ConfigError(
                "a vector environment cannot hold twins: give a list of environments of make_env"
            )
        return VectorEnvs(env)
    envs: Any = env if isinstance(env, Sequence) and env else [env]
    for one in envs:
        if not isinstance(one, gym.Env):
            raise ConfigError(
                "env must be a Gymnasium environment, as gymnasium.make gives, "
                f"not a {type(one).__name__}"
            )
    return SerialEnvs(envs, twins=twins)


class Collector(Stateful):
    """Collects transitions, keeping the running episodes between calls.

    Environments that are twins share their exploration noise too. meet(number, physics) is called
    at each new robot, before the first of its transitions is returned.
    """

    STATE = ("_steps", "_rng", "_obs", "_physics", "_returns", "_lengths", "_members")

    def __init__(
        self,
        envs: Envs,
        action_noises: Sequence,
        rng: np.random.Generator,
        *,
        seed: int | None,
        render: bool = False,
        meet: Callable[[int, dict[str, float]], None] = lambda number, physics: None,
    ):
        self._meet = meet
        self._envs, self._noises, self._rng = envs, action_noises, rng
        self._twins, self._render = envs.twins, render
        self._actions = actions_of(envs.action_space)
        self.num_envs, self._steps = envs.num_envs, 0
        self._ids: dict[tuple[float, ...], int] = {}
        self._policy: Any = None  # a Policy; one that lasts has a state of its own
        self._policy_lasts = False  # from one call to the next
        self._obs: np.ndarray  # [N, O], set by each reset and step
        self._returns = np.zeros(self.num_envs)
        self._lengths = np.zeros(self.num_envs, int)
        self._members = np.zeros(self.num_envs, int)
        self._reset(np.ones(self.num_envs, bool), seed)

    def collect(
        self, new_policy: Callable[[], Policy] | None, num_steps: int, *, refresh: bool = True
    ) -> tuple[Rollout, list[Episode]]:
        """Steps every environment `num_steps` times.

        new_policy: gives the policy to act with; None draws uniform actions instead. With
        `refresh` it is asked at each call, without only where an episode has ended, so that a
        perturbed policy lasts an episode. Returns the transitions and the finished episodes.
        Raises TrainingError at an observation or a reward that is not finite, and if the
        environment raises.
        """
        if new_policy is not None and (refresh or self._policy is None):
            self._policy = new_policy()
        self._policy_lasts = new_policy is not None and not refresh
        out = self._allocate(num_steps)
        episodes = []
        for t in range(num_steps):
            out.obs0[t] = self._obs
            actions = self._act(out.actions[t], uniform=new_policy is None)
            step = self._ask("step", actions)
            self._obs, out.obs1[t], out.rewards[t] = step.obs1, step.obs1, step.rewards
            self._steps += self.num_envs
            self._returns += step.rewards
            self._lengths += 1
            if self._render:
                self._envs.render()
            if step.any_end:
                out.terminals1[t] = step.terminals1
                out.ends[t] = step.terminals1 | step.truncations
                for n in np.flatnonzero(out.ends[t]):
                    whole = float(self._returns[n]), int(self._lengths[n]), self._physics[n]
                    episodes.append(Episode(*whole))
                self._reset(out.ends[t])
                out.members[t + 1 :] = self._members
                if new_policy is not None and not refresh:
                    self._policy = new_policy()
        self._check_finite(out)
        return out, episodes

    @property
    def knows_robots(self) -> bool:
        """Whether the environments tell which robot each episode has."""
        return all(self._physics)

    def get_state(self) -> dict:
        """Everything that coming steps depend on, but for the agent."""
        return super().get_state() | {
            "envs": self._envs.get_state(),
            "ids": list(self._ids.items()),
            "noises": [noise.get_state() for noise in self._noises],
            "policy": self._policy.get_state() if self._policy_lasts else None,
        }

    def set_state(self, state: Mapping, policy: Callable) -> bool:  # type: ignore[override]
        """Puts back what `get_state` gave; False if instead new episodes have begun.

        That is so where a simulator cannot be put back into the middle of an episode. policy()
        gives one to put a lasting policy's state into.
        """
        super().set_state(state)
        self._ids = {tuple(robot): number for robot, number in state["ids"]}
        if not self._envs.set_state(state["envs"]):
            self._reset(np.ones(self.num_envs, bool))
            return False
        for noise, own in zip(self._noises, state["noises"], strict=True):
            noise.set_state(own)
        if state["policy"] is not None:
            self._policy = policy()
            self._policy.set_state(state["policy"])
        return True

    def _allocate(self, num_steps):
        shape, obs_width = (num_steps, self.num_envs), self._obs.shape[1:]
        widths = obs_width, (self._actions.dim,), (), obs_width
        obs0, actions, rewards, obs1 = (np.empty((*shape, *x), np.float32) for x in widths)
        terminals1, ends = np.zeros((2, *shape), bool)
        members = np.tile(self._members.astype(np.int32), (num_steps, 1))
        return Rollout(obs0, actions, rewards, obs1, terminals1, ends, members)

    def _ask(self, call, *args):
        with blaming(self._envs.name, call, STOPS.format(self._steps)):
            return getattr(self._envs, call)(*args)

    def _act(self, actions, *, uniform):
        """Fills in this step's actions, [N, A]; returns them as the environment takes them."""
        if uniform:
            actions[:] = self._shared(lambda num: self._actions.sample(self._rng, num))
            return self._actions.to_env(actions)
        actions[:] = self._policy(self._obs)
        dim = self._actions.dim
        for noise in self._noises:
            actions += self._shared(lambda num, n=noise: n.sample(self._rng, (num, dim)))
        if self._noises:
            np.maximum(np.minimum(actions, 1, out=actions), -1, out=actions)
        return self._actions.to_env(actions)

    def _shared(self, draw):
        drawn = draw(self.num_envs // (1 + self._twins))
        return np.repeat(drawn, 2, axis=0) if self._twins else drawn

    def _reset(self, ended, seed=None):
        self._returns[ended], self._lengths[ended] = 0, 0
        for noise in self._noises:
            noise.reset(ended[::2] if self._twins else ended)
        self._obs, self._physics = self._ask("reset", ended, seed)
        for n in np.flatnonzero(ended):  # equal parameters are the same robot
            robot = tuple(self._physics[n].values())
            if robot not in self._ids:
                self._ids[robot] = len(self._ids)
                self._meet(self._ids[robot], self._physics[n])
            self._members[n] = self._ids[robot]

    def _check_finite(self, out):
        checked = (("observation", out.obs1), ("reward", out.rewards), ("observation", out.obs0))
        for name, values in checked:
            if not np.isfinite(values).all():
                bad = np.argwhere(~np.isfinite(values))[0]
                step = self._steps - out.rewards.size + int(bad[0]) * self.num_envs + int(bad[1])
                raise TrainingError(
                    f"the environment's {name} is {values[tuple(bad)]}{STOPS.format(step)}"
                )
