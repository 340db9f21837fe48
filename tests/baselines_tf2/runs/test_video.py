"""Recording episodes as mp4."""

import builtins
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

from baselines_tf2.runs.judging import evaluate
from baselines_tf2.runs.video import EpisodeRecorder, video_env
from envs import ConfigError, EnvSpec, make_env

ffmpeg = pytest.importorskip("imageio_ffmpeg")
pytest.importorskip("pygame")

STEPS = 12
ROBOTS = [("cheetah", "mujoco"), ("ant", "mujoco"), ("cheetah", "pybullet")]
CLASSIC = [("pendulum", "classic"), ("cartpole", "classic")]
SIZES = {"mujoco": (480, 480), "pybullet": (320, 240), "pendulum": (500, 500)}  # width, height
SIZES["cartpole"] = (600, 400)
FPS = {"mujoco": 20, "pybullet": 60, "pendulum": 30, "cartpole": 50}


def short(task, backend, steps=STEPS, **fields):
    env = make_env(EnvSpec(task, backend, **fields), training=False, render_mode="rgb_array")
    return EpisodeRecorder(gym.wrappers.TimeLimit(env, steps))


def policy_of(env):
    """Moves every joint, depends on the observation; on CartPole pushes left until it falls."""
    if isinstance(env.action_space, gym.spaces.Discrete):
        return lambda obs: np.eye(2)[np.zeros(len(obs), int)]
    size = env.action_space.shape[0]
    return lambda obs: np.tanh(1 + np.cumsum(obs, axis=1)[:, -size:])


def episodes(env, count, seed=3):
    return evaluate(policy_of(env), env, np.random.default_rng(seed), [None] * count)


def decode(path):
    """The pictures of a video, [N, height, width, 3], and its frames per second."""
    reader = ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    pictures = [np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader]
    return np.array(pictures), meta["fps"]


@pytest.mark.parametrize(("task", "backend"), ROBOTS + CLASSIC)
def test_a_video_shows_the_start_and_every_step(task, backend, tmp_path):
    env = short(task, backend)
    env.record([tmp_path / "videos" / "step_50000.mp4"])
    (episode,) = episodes(env, 1)
    assert os.listdir(tmp_path / "videos") == ["step_50000.mp4"]  # before close: it is over
    pictures, fps = decode(tmp_path / "videos" / "step_50000.mp4")
    kind = task if backend == "classic" else backend
    assert pictures.shape == (episode.length + 1, *SIZES[kind][::-1], 3) and fps == FPS[kind]
    assert all(picture.std() > 10 for picture in pictures)
    assert np.abs(pictures[-1].astype(int) - pictures[0]).max() > 50  # something moved
    env.close()


@pytest.mark.parametrize(("task", "backend"), ROBOTS)
def test_the_camera_follows_the_robot(task, backend):
    """The picture's middle changes when the robot moves, far from where the first was drawn."""
    env = short(task, backend)
    env.reset(seed=0)
    env.render()
    robot = env.unwrapped
    if backend == "mujoco":
        position = robot.data.qpos.copy()
        position[0] = 100
        robot.set_state(position, robot.data.qvel)
    else:
        robot._p.resetJointState(robot.robot.robot_body.bodies[0], 0, 100.0)
    env.step(0 * env.action_space.sample())
    before = env.render().astype(int)
    for _ in range(8):
        env.step(env.action_space.high)
    height, width, _ = before.shape
    changed = np.abs(env.render() - before)
    assert changed[height // 4 : -height // 4, width // 4 : -width // 4].max() > 50
    env.close()


@pytest.mark.parametrize(("task", "backend"), ROBOTS + CLASSIC)
def test_recording_changes_no_result(task, backend, tmp_path):
    noise = {} if task == "cartpole" else {"action_noise": 0.1}
    noise |= {"distractors": 2, "observation_noise": 0.1}
    spec = EnvSpec(task, backend, physics="reward_offset=5", **noise)  # which is of training alone
    plain = gym.wrappers.TimeLimit(make_env(spec, training=False), STEPS)
    env = video_env(spec)
    env.env = gym.wrappers.TimeLimit(env.env, STEPS)
    env.record([tmp_path / "a.mp4", None, tmp_path / "b.mp4"])
    assert episodes(env, 4) == episodes(plain, 4)
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "b.mp4"]
    env.close()


def test_only_recorded_episodes_are_drawn(tmp_path, monkeypatch):
    env = short("cartpole", "classic")
    drawn = []
    render = env.env.render
    monkeypatch.setattr(env.env, "render", lambda: drawn.append(1) or render())
    episodes(env, 2)
    assert not drawn
    env.record([None, tmp_path / "second.mp4"])
    lengths = [episode.length for episode in episodes(env, 3)]
    assert len(drawn) == lengths[1] + 1 == len(decode(tmp_path / "second.mp4")[0])


@pytest.mark.parametrize("leave", [lambda env: env.reset(seed=1), lambda env: env.close()])
def test_an_episode_that_is_left_leaves_no_file(leave, tmp_path):
    env = short("cartpole", "classic")
    env.record([tmp_path / "half.mp4"])
    env.reset(seed=0)
    env.step(0)
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith(".video-")
    leave(env)
    assert not os.listdir(tmp_path)


def test_a_video_replaces_the_last_of_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "step_1.mp4"
    path.write_bytes(b"the last one")
    env = short("cartpole", "classic")
    env.record([path])
    env.reset(seed=0)
    env.step(0)
    assert path.read_bytes() == b"the last one"
    env.record([path])
    episodes(env, 1)
    assert path.stat().st_size > 1000


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is POSIX's")
@pytest.mark.parametrize("limit", [100, 2000])  # bytes; both below the video's
def test_a_full_disk_leaves_no_stump(limit, tmp_path):
    """ffmpeg inherits a limit on the size of files."""
    env = short("cartpole", "classic", steps=STEPS)
    env.record([tmp_path / "large.mp4"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        with pytest.raises(OSError, match="could not write .*large.mp4; is the disk full"):
            episodes(env, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    env.close()
    assert not os.listdir(tmp_path)


def test_without_ffmpeg_it_says_what_to_install(monkeypatch):
    plain = builtins.__import__

    def without(name, *rest):
        if name == "imageio_ffmpeg":
            raise ImportError("No module named 'imageio_ffmpeg'")
        return plain(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[video\]'"):
        video_env(EnvSpec("cartpole", "classic"))


def test_without_pygame_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr("envs.classic_physics.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install 'gymnasium\\[classic-control\\]'"):
        video_env(EnvSpec("cartpole", "classic"))


def test_a_machine_that_cannot_draw_is_known_at_once(monkeypatch):
    def fail(self):
        raise AttributeError("no EGL\nand more")

    monkeypatch.setattr("gymnasium.envs.mujoco.mujoco_env.MujocoEnv.render", fail)
    with pytest.raises(ConfigError, match="mujoco cannot draw on this machine: no EGL$"):
        video_env(EnvSpec("cheetah", "mujoco"))


SCRIPT = """
import tensorflow as tf, pathlib, sys
tf.function(lambda x: x @ x, jit_compile=True)(tf.ones((8, 8)))  # LLVM is in use
from baselines_tf2.runs.video import video_env
from envs import EnvSpec
left = []
for robot in sys.argv[1:]:
    env = video_env(EnvSpec(*robot.split("-")))
    env.record([pathlib.Path(f"{robot}.mp4")])
    env.reset(seed=0)
    env.step(env.action_space.sample())
    left.append(env)
    tf.function(lambda x: x + x, jit_compile=True)(tf.ones(len(left)))
    print("drawn")
"""


def test_without_a_screen_beside_tensorflow(tmp_path):
    """In a process of its own, which ends in the middle of three episodes: no file is left."""
    unset = ("DISPLAY", "WAYLAND_DISPLAY", "MUJOCO_GL", "SDL_VIDEODRIVER", "XDG_RUNTIME_DIR")
    root = str(Path(__file__).parents[3])
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, "cheetah-mujoco", "cheetah-pybullet", "cartpole-classic"],
        cwd=tmp_path,
        env=kept | {"PYTHONPATH": root},
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "drawn\n" * 3), done.stderr
    assert "XDG_RUNTIME_DIR" not in done.stderr and not os.listdir(tmp_path)
