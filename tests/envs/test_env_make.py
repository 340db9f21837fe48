import os
import subprocess
import sys
import warnings
from importlib import import_module
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from envs import CONTINUOUS_TASKS, ConfigError, EnvSpec, default_ensemble, make_env
from envs.make import robot_id
from envs.spec import ORIGINALS

ROOT = Path(envs.__file__).parents[1]


def everything(task):
    noise = {"observation_noise": 0.1, "action_noise": 0.1 if task in CONTINUOUS_TASKS else 0.0}
    return {"distractors": 2, "ensemble_size": 3} | noise


def trajectory(env, seed, steps=60):
    env.action_space.seed(seed)
    observation, info = env.reset(seed=seed)
    rows = [np.append(observation, 0.0), list(info["physics"].values())]
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        rows.append(np.append(observation, reward))
        if terminated or truncated:
            observation, info = env.reset()
            rows += [np.append(observation, 0.0), list(info["physics"].values())]
    return np.concatenate(rows)


@pytest.mark.parametrize(("task", "backend"), ORIGINALS)
@pytest.mark.parametrize("extras", [False, True])
def test_gymnasiums_checks_pass(task, backend, extras):
    fields = everything(task) | {"ensemble": default_ensemble(task, backend)} if extras else {}
    env = gym.make(robot_id(task, backend), **fields)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # unbounded observations, and that there are wrappers
        check_env(env, skip_render_check=True)
    env.close()


@pytest.mark.parametrize(("task", "backend"), ORIGINALS)
def test_same_seed_same_trajectory_to_the_bit(task, backend):
    ensemble = default_ensemble(task, backend) + ";reward_offset:0,3,-9,9"
    spec = EnvSpec(task, backend, ensemble=ensemble, **everything(task))
    first, second = make_env(spec, training=True), make_env(spec, training=True)
    expected = trajectory(first, seed=3)
    np.testing.assert_array_equal(trajectory(second, seed=3), expected)
    trajectory(second, seed=4)  # whatever happened before
    np.testing.assert_array_equal(trajectory(second, seed=3), expected)
    assert not np.array_equal(trajectory(second, seed=4), expected)
    first.close()
    second.close()


@pytest.mark.parametrize(("task", "backend"), ORIGINALS)
def test_nominal_robot_is_the_original_to_the_bit(task, backend):
    env = make_env(EnvSpec(task, backend), training=True)
    module = import_module(f"envs.{backend}_physics")
    original, _ = module.make_original(ORIGINALS[task, backend], None)
    registered = gym.spec(ORIGINALS[task, backend])
    assert env.spec.max_episode_steps == registered.max_episode_steps
    assert env.observation_space == original.observation_space
    assert env.action_space == original.action_space
    env.action_space.seed(0)
    np.testing.assert_array_equal(env.reset(seed=2)[0], original.reset(seed=2)[0])
    for _ in range(100):
        action = env.action_space.sample()
        ours, theirs = env.step(action), original.step(action)
        assert ours[0].dtype == env.observation_space.dtype
        np.testing.assert_array_equal(ours[0], theirs[0])
        assert ours[1:4] == theirs[1:4]
        if ours[2]:
            np.testing.assert_array_equal(env.reset(seed=1)[0], original.reset(seed=1)[0])
    env.close()
    original.close()


@pytest.mark.parametrize(
    ("task", "backend"),
    [
        ("cheetah", "mujoco"),
        ("cheetah", "pybullet"),
        ("pendulum", "classic"),
        ("cartpole", "classic"),
    ],
)
def test_pictures(task, backend):
    """Without a screen, beside TensorFlow and in a fresh process: the videos' tests."""
    env = make_env(EnvSpec(task, backend), training=False, render_mode="rgb_array")
    env.reset(seed=0)
    picture = env.render()
    assert (picture.ndim, picture.shape[2], picture.dtype) == (3, 3, np.uint8)
    assert picture.std() > 10
    env.close()


@pytest.mark.parametrize("task", ["pendulum", "cartpole"])
def test_pictures_of_the_classic_ones_need_pygame(task, monkeypatch):
    monkeypatch.setattr("envs.classic_physics.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pictures need pygame"):
        make_env(EnvSpec(task, "classic"), training=False, render_mode="rgb_array")
    make_env(EnvSpec(task, "classic"), training=False)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems always have a screen")
@pytest.mark.parametrize(
    ("task", "backend"), [("cheetah", "mujoco"), ("cheetah", "pybullet"), ("cartpole", "classic")]
)
def test_a_window_needs_a_screen(task, backend, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(ConfigError, match="needs a screen"):
        make_env(EnvSpec(task, backend), training=False, render_mode="human")


def test_unknown_render_mode():
    with pytest.raises(ConfigError, match="render_mode"):
        make_env(EnvSpec("pendulum", "classic"), training=False, render_mode="rgb")


def test_bodies_are_checked_when_made():
    with pytest.raises(ConfigError, match="did you mean 'mass/torso'"):
        make_env(EnvSpec("cheetah", "mujoco", physics="mass/torsoo=2"), training=True)
    with pytest.raises(ConfigError, match="unknown parameter"):
        make_env(EnvSpec("ant", "pybullet", ensemble="mass/tail:2,1,1,3"), training=True)


def test_vector_environments():
    vector = gym.make_vec(
        robot_id("cheetah", "mujoco"), num_envs=2, ensemble="torso_mass:6,1.5,3,9"
    )
    _, info = vector.reset(seed=0)
    assert len(set(info["physics"]["torso_mass"])) == 2
    vector.close()


def test_specs_of_gymnasium_make_the_same_environment():
    env = make_env(EnvSpec("pendulum", "classic", ensemble="mass:1,0.25,0.5,1.5"), training=True)
    again = gym.make(env.spec)
    assert again.reset(seed=0)[1] == env.reset(seed=0)[1]


def test_closing_disconnects_from_bullet():
    pybullet = pytest.importorskip("pybullet")
    env = make_env(EnvSpec("hopper", "pybullet"), training=True)
    client = env.unwrapped.physicsClientId
    assert pybullet.isConnected(client)
    env.close()
    assert not pybullet.isConnected(client)
    env.close()  # twice is allowed


BLOCKER = """
import gymnasium, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError("No module named '" + name + "'", name=name)
sys.meta_path.insert(0, Blocker())
gymnasium.make("envs:robots/pendulum-classic-v0").reset(seed=0)
assert not {backends} & sys.modules.keys()
env = gymnasium.make("envs:robots/cheetah-{works}-v0", ensemble="torso_mass:6,1.5,3,9")
env.reset(seed=0)
env.step(env.action_space.sample())
env.close()
from envs import ConfigError, EnvSpec, make_env
try:
    make_env(EnvSpec("cheetah", "{missing}"), training=True)
except ConfigError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("missing", "works", "blocked", "command"),
    [
        ("mujoco", "pybullet", {"mujoco"}, "pip install 'gymnasium[mujoco]'"),
        (
            "pybullet",
            "mujoco",
            {"pybullet", "pybullet_envs_gymnasium", "pybullet_utils", "pybullet_data"},
            "pip install 'pybullet_envs_gymnasium'",
        ),
    ],
)
def test_each_backend_runs_without_the_other_and_prints_nothing(
    missing, works, blocked, command, tmp_path
):
    """In a fresh interpreter, where the one line printed is the error; and no file is written."""
    backends = {"mujoco", "pybullet", "pybullet_envs_gymnasium"}
    code = BLOCKER.format(blocked=blocked, backends=backends, works=works, missing=missing)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{missing} is not installed") and command in done.stdout
    assert done.stdout.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
