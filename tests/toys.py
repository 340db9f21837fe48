"""Small environments with known answers, and small helpers of the tests."""

import os
import signal

import gymnasium as gym
import numpy as np

from envs import EnvSpec, Physics, RobotEnsemble


class Corridor(gym.Env):
    """The observation is [time, id]; the reward is time + 1; ends at `length`, terminal or cut."""

    def __init__(self, length=5, terminal=True, name=0.0, action_space=None):
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float64)
        self.action_space = action_space or gym.spaces.Box(-2.0, 2.0, (1,), np.float32)
        self.length, self.terminal, self.name, self.time = length, terminal, name, 0
        self.actions, self.resets = [], []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.resets.append((seed, options))
        self.time = 0
        return np.array([0.0, self.name]), {}

    def step(self, action):
        self.actions.append(np.array(action))
        self.time += 1
        over = self.time == self.length
        obs = np.array([self.time, self.name])
        return obs, float(self.time), over and self.terminal, over and not self.terminal, {}


class Robots(Corridor):
    """A corridor whose robot changes from episode to episode, as those of `envs` do."""

    def __init__(self, masses=(1.0, 2.0), **kwargs):
        super().__init__(**kwargs)
        self.masses, self.episode = masses, -1

    def reset(self, *, seed=None, options=None):
        obs, _ = super().reset(seed=seed, options=options)
        self.episode += 1
        mass = self.masses[self.episode % len(self.masses)]
        mass = (options or {}).get("physics", {"torso_mass": mass})["torso_mass"]
        return obs, {"physics": {"torso_mass": mass}}


class Mass(Physics):
    """One parameter, which the simulator rounds: what is read back is not what was put in."""

    names = ("torso_mass",)

    def __init__(self):
        self.values = {}

    def _read(self, name):
        return self.values[name] + 1e-9 * self.values[name] ** 2

    def _set(self, values):
        self.values = dict(values)


def ensemble_of(env, masses="torso_mass:6,1.5,3,9"):
    """The environment with a robot that is drawn, as `make_env` gives it."""
    return RobotEnsemble(env, Mass(), EnvSpec("cheetah", "mujoco", masses), training=False)


class Target(gym.Env):
    """One-step episodes with reward -(action - 0.5 observation)^2: solved in a few hundred steps."""

    def __init__(self):
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        return self.x, {}

    def step(self, action):
        reward = -float((action[0] - 0.5 * self.x[0]) ** 2)
        return self.x, reward, True, False, {}


def still(obs):
    """A policy of one action dimension, loaded by other processes without TensorFlow."""
    return 0 * obs[:, :1]


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def fail(error):
    raise error


class Elsewhere:
    """`still` in the process that makes it; in any other one it calls `fault` first."""

    def __init__(self, fault):
        self.fault, self.home = fault, os.getpid()

    def __call__(self, obs):
        if os.getpid() != self.home:
            self.fault()
        return still(obs)


class Here(Elsewhere):
    """The same the other way round."""

    def __call__(self, obs):
        if os.getpid() == self.home:
            self.fault()
        return still(obs)
