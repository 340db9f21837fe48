"""Evaluation on several cores: the same episodes, and one clear line for each fault."""

import os
import pickle
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.networks import MLPConfig
from baselines_tf2.common.replay import Rollout
from baselines_tf2.ddpg import DDPGConfig
from baselines_tf2.ddpg.agent import DDPGAgent as DDPG
from baselines_tf2.runs import workers
from baselines_tf2.runs.judging import evaluate
from baselines_tf2.runs.workers import Workers
from envs import ConfigError, EnvSpec, make_env
from omd_tf2.cartpole.agent import CartPoleAgent as CartPole
from omd_tf2.cartpole.config import CartPoleConfig
from omd_tf2.halfcheetah.agent import HalfCheetahAgent as HalfCheetah
from omd_tf2.halfcheetah.config import HalfCheetahConfig
from tests.toys import Elsewhere, Here, fail, kill, still

PENDULUM = EnvSpec("pendulum", "classic")
NOISY = {"observation_noise": 0.1, "action_noise": 0.1, "distractors": 2}


def ddpg(obs_dim, action_dim):
    """With normalised observations that are not where they began."""
    network = MLPConfig(num_hidden=16, activation="elu", layer_norm=True)
    agent = DDPG(DDPGConfig(actor_network=network), obs_dim, action_dim, seed=0)
    rng, shape = np.random.default_rng(0), (50, 1)
    obs, zeros = rng.normal(2, 3, (2, *shape, obs_dim)), np.zeros(shape)
    actions = np.zeros((*shape, action_dim))
    agent.store(Rollout(obs[0], actions, zeros, obs[1], zeros > 0, zeros > 0, zeros.astype(int)))
    return agent


def evaluate_on(cores, policy, spec, robots, seed=3):
    with closing(Workers(cores)) as several:
        return several.evaluate(policy, spec, np.random.default_rng(seed), robots)


@pytest.fixture
def elsewhere(monkeypatch):
    """The episodes that other processes ran."""
    episodes, receive = [], workers._Worker.receive

    def noted(self):
        episodes.extend(answer := receive(self))
        return answer

    monkeypatch.setattr(workers._Worker, "receive", noted)
    return episodes


@pytest.fixture
def processes(monkeypatch):
    """What was started."""
    started, popen = [], subprocess.Popen

    def remembered(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", remembered)
    return started


@pytest.mark.parametrize(
    ("task", "backend", "ensemble", "robots"),
    [
        ("cheetah", "mujoco", "torso_mass:6,1.5,3,9", [{"torso_mass": m} for m in (2.0, 2.0, 8.0)]),
        ("walker", "pybullet", "friction:0.5,1.5", [{"friction": f} for f in (0.4, 1.0, 0.4, 2.0)]),
        ("pendulum", "classic", "mass:0.5,1.5", [None, None, {"mass": 2.0}, {"mass": 2.0}]),
    ],
)
def test_episodes_are_those_of_one_process(task, backend, ensemble, robots, elsewhere):
    spec = EnvSpec(task, backend, ensemble=ensemble, **NOISY)
    env = make_env(spec, training=False)
    policy = ddpg(env.observation_space.shape[0], env.action_space.shape[0]).policy()
    alone = evaluate(policy, env, np.random.default_rng(3), robots)
    env.close()
    several = evaluate_on(2, policy, spec, robots)
    assert several == alone and elsewhere
    assert len({episode.episode_return for episode in alone}) == len(robots)


def test_one_core_starts_no_process(processes):
    alone = evaluate_on(1, still, PENDULUM, [None] * 2)
    assert len(alone) == 2 and not processes


LOAD = """
import pickle, sys
policies, obs = pickle.load(sys.stdin.buffer)
assert not {"tensorflow", "keras", "absl"} & sys.modules.keys()
sys.stdout.buffer.write(pickle.dumps([policy(obs) for policy in policies]))
"""


def test_every_agents_policy_acts_in_a_process_without_tensorflow():
    agents = [
        ddpg(4, 2),
        CartPole(CartPoleConfig(hidden_dim=8), 4, 2, seed=0),
        HalfCheetah(HalfCheetahConfig(hidden_dim=8), 4, 2, seed=0),
    ]
    policies, obs = [x.policy() for x in agents], np.random.default_rng(0).normal(size=(1, 4))
    answer = subprocess.run(
        [sys.executable, "-c", LOAD], input=pickle.dumps((policies, obs)), check=True,
        stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    for actions, policy in zip(pickle.loads(answer.stdout), policies, strict=True):
        np.testing.assert_array_equal(actions, policy(obs))


@pytest.mark.parametrize(
    ("cores", "policy", "error", "message"),
    [
        (3, Elsewhere(kill), TrainingError, "evaluations was ended by SIGKILL"),
        (2, Elsewhere(partial(os._exit, 3)), TrainingError, "ended by itself, with status 3"),
        (2, Elsewhere(partial(fail, TrainingError("bad"))), TrainingError, "^bad$"),
        (2, Elsewhere(partial(fail, MemoryError())), MemoryError, None),
        (3, Here(partial(fail, KeyboardInterrupt())), KeyboardInterrupt, None),
    ],
)
def test_a_fault_is_one_error_and_no_process_is_left(cores, policy, error, message, processes):
    with pytest.raises(error, match=message):
        evaluate_on(cores, policy, PENDULUM, [None] * 10)
    assert len(processes) == cores - 1
    assert all(process.returncode is not None for process in processes)


def test_a_robot_that_cannot_be():
    with pytest.raises(ConfigError, match="mass must be positive"):
        evaluate_on(2, still, PENDULUM, [{"mass": -1.0}] * 2)


LONG = """
import numpy as np
from baselines_tf2.runs.workers import Workers
from envs import EnvSpec
from tests.toys import still
rng = np.random.default_rng(0)
Workers(2).evaluate(still, EnvSpec("pendulum", "classic"), rng, [None] * 100_000)
"""


def patiently(condition):
    """Waits until there is something to return."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("it did not happen")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_process_takes_the_others_with_it():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, "-c", LONG], env=environment)
    children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    (child,) = patiently(lambda: children.read_text().split())
    parent.kill()
    parent.wait()

    def gone():
        status = Path(f"/proc/{child}/stat")
        return not status.exists() or status.read_text().split()[2] == "Z"

    patiently(gone)
