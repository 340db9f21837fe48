"""Runs of every experiment in a second: short episodes, tiny networks, many rows of the log."""

from contextlib import ExitStack, contextmanager
from pathlib import Path
from unittest import mock

import gymnasium as gym
import numpy as np
import tensorflow as tf

from baselines_tf2.common.files import read_arrays, read_table
from baselines_tf2.ddpg import agent as ddpg_agent
from baselines_tf2.runs import training
from baselines_tf2.runs.checkpoint import Checkpoints
from baselines_tf2.runs.experiment import make_settings
from omd_tf2.common import experiment as omd_experiment
from run_experiments import EXPERIMENTS

NEVER = 10**9  # steps between checkpoints
EPISODE = 13  # [steps] of the robots and the pendulum; no multiple of a cycle

DDPG = (
    "train.num_timesteps=80", "train.eval_interval=40", "train.eval_episodes=1",
    "train.random_steps=20", "agent.batch_size=8", "agent.nb_rollout_steps=5",
    "agent.nb_train_steps=1", "train.nb_epoch_cycles=4", "agent.replay_size=50",
    *(f"agent.{name}_network.{size}" for name in ("actor", "critic")
      for size in ("num_layers=1", "num_hidden=8")),
)  # fmt: skip
OMD = (
    "train.num_timesteps=40", "train.eval_interval=20", "train.eval_episodes=1",
    "train.random_steps=36", "agent.batch_size=4", "agent.hidden_dim=4", "agent.replay_size=30",
    "agent.cycle_steps=2", "agent.inner_steps=2",
)  # fmt: skip
TABULAR = ("num_seeds=1", "train.num_timesteps=10")


def family(name):
    """What an experiment's runs have in common with others': ddpg, tabular, ..."""
    if name.startswith(("ddpg", "diffcritic", "epopt")):
        return "ddpg"
    if name.startswith("tabular"):
        return "tabular"
    return "cartpole" if name.endswith("cartpole") else "robots"


def make(name, *overrides, backend=None):
    """The experiment's default settings but for its size, and for what is overridden."""
    kind = family(name)
    tiny = {"ddpg": DDPG, "tabular": TABULAR}.get(kind, OMD)
    if kind in ("cartpole", "robots") and not name.startswith(("qlearning", "sac")):
        tiny += ("agent.model_hidden_dim=4",)
    if name.startswith("epopt"):
        tiny += ("train.epopt_trajectories=2", "train.epopt_epsilon=0.5")
    chosen = {text.partition("=")[0]: text for text in (*tiny, *overrides)}
    with short_episodes():
        return make_settings(EXPERIMENTS[name], "default", backend, list(chosen.values()))


class Progress:
    """Sees the steps; can die at one of the cycles, as a killed process does."""

    def __init__(self, die_at=None):
        self.steps, self.resumed, self._die_at = [], [], die_at

    def update(self, step, episode_return):
        self.steps.append(step)
        if len(self.steps) == self._die_at:
            raise KeyboardInterrupt

    def resume(self, step):
        self.resumed.append(step)


@contextmanager
def short_episodes():
    """The robots' and the pendulum's time limit, as settings and environments see it."""
    with ExitStack() as stack:
        for name, spec in gym.registry.items():
            if name.startswith("robots/"):
                stack.enter_context(mock.patch.object(spec, "max_episode_steps", EPISODE))
        yield


@contextmanager
def tiny_world(eager):
    """Episodes and epochs of few steps, no pictures; `eager` spares the compiler's seconds."""
    with ExitStack() as stack:
        patches = [(omd_experiment, "LOG_INTERVAL", 10), (training, "plot_run", lambda *_: None)]
        patches += [(ddpg_agent, name, 2) for name in ("DIAGNOSTIC_ROBOTS", "DIAGNOSTIC_BATCHES")]
        for patch in patches:
            stack.enter_context(mock.patch.object(*patch))
        stack.enter_context(short_episodes())
        tf.config.run_functions_eagerly(eager)
        stack.callback(tf.config.run_functions_eagerly, False)
        yield


def run(name, folder, settings, *, seed=0, eager=True, checkpoints=None, progress=None):
    """One process's share of a run; returns the summary."""
    folder.mkdir(parents=True, exist_ok=True)
    if checkpoints is None:
        checkpoints = Checkpoints(folder, every=NEVER)
    with tiny_world(eager):
        prepared = EXPERIMENTS[name].prepare(settings, seed)
        return prepared(folder, progress or Progress(), checkpoints)


def files_of(name):
    """Of `result`, sorted."""
    if family(name) == "tabular":
        return ["metrics.csv", "results.csv"]
    return ["eval.csv", "metrics.csv", "weights.npz"]


def result(folder: Path):
    """All numbers of a run but the clock's: {file: rows or arrays}."""
    found = {}
    for path in sorted(folder.rglob("*.csv")):
        rows = read_table(path)
        found[str(path.relative_to(folder))] = [
            [(name, x) for name, x in row.items() if not name.startswith("time/")] for row in rows
        ]
    for path in sorted(folder.rglob("weights.npz")):
        found[str(path.relative_to(folder))] = read_arrays(path)
    return found


def assert_same_result(got, expected):
    assert list(got) == list(expected)
    for name, content in expected.items():
        if isinstance(content, dict):
            assert list(got[name]) == list(content)
            for part, array in content.items():
                np.testing.assert_array_equal(got[name][part], array, f"{name}: {part}")
        else:
            assert got[name] == content, name


def assert_other_numbers(one, other):
    """In every table, and in weights."""
    for (file, content), others in zip(one.items(), other.values(), strict=True):
        if isinstance(content, dict):
            assert not all(np.array_equal(content[part], others[part]) for part in content), file
        else:
            assert content != others, file
