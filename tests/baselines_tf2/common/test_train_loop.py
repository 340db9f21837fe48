from unittest import mock

import numpy as np
import pytest

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.rollout import Collector, SerialEnvs
from baselines_tf2.common.train_loop import TrainConfig, TrainLoop
from envs import ConfigError
from tests.toys import Corridor


class FakeAgent:
    """Acts with the number of trainings it has seen, in hundredths."""

    refresh_each_cycle = True

    def __init__(self, fail_at=None):
        self.stored, self.trainings, self.fail_at, self.held = [], 0, fail_at, []

    def exploring_policy(self):
        action = self.trainings / 100
        return lambda: lambda obs: np.full((len(obs), 1), action)

    def store(self, new):
        self.stored.append(new)

    def can_train(self):
        return bool(self.stored)

    def train(self):
        self.held.append(len(self.stored))
        self.trainings += 1
        if self.trainings == self.fail_at:
            raise TrainingError("train/critic_loss is nan")
        return {"train/x": float(self.trainings)}


def run(agent, num_timesteps=10, num_envs=1, **options):
    epochs, cycles = [], []
    options = {"nb_rollout_steps": 3, "nb_epoch_cycles": 2, "random_steps": 0} | options
    envs = SerialEnvs([Corridor(length=4) for _ in range(num_envs)])
    loop = TrainLoop(
        agent,
        Collector(envs, [], np.random.default_rng(0), seed=0),
        num_timesteps=num_timesteps,
        **options,
    )
    loop.run(epochs.append, lambda step, episodes: cycles.append(step))
    return epochs, cycles


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"random_steps": 1000},
            "train.random_steps=1000 leaves.*add --set=train.random_steps=100",
        ),
        ({"random_steps": -1}, "random_steps must be at least 0, not -1"),
        ({"random_steps": 0.5}, "random_steps must be of type int"),
        ({"eval_episodes": 0}, "eval_episodes must be at least 1, not 0"),
    ],
)
def test_training_that_cannot_be_is_refused(options, message):
    TrainConfig(num_timesteps=1000, random_steps=999)
    with pytest.raises(ConfigError, match=message) as error:
        TrainConfig(**{"num_timesteps": 1000} | options)
    assert "\n" not in str(error.value)


def actions(agent):
    return [round(float(new.actions[0, 0, 0] * 100)) for new in agent.stored]


def test_the_schedule_ends_exactly():
    agent = FakeAgent()
    epochs, cycles = run(agent)
    assert cycles == [3, 6, 9, 10]
    assert [epoch.step for epoch in epochs] == [6, 10]
    assert [epoch.metrics["train/x"] for epoch in epochs] == [1.5, 3.5]
    assert [len(epoch.episodes) for epoch in epochs] == [1, 1]
    assert agent.held == [1, 2, 3, 4]


def test_each_cycle_acts_with_what_the_last_one_learned():
    agent = FakeAgent()
    run(agent)
    assert actions(agent) == [0, 1, 2, 3]


def test_overlapped_the_policy_is_one_cycle_old_and_trains_on_what_was_stored_before():
    agent = FakeAgent()
    run(agent, overlap=True)
    assert actions(agent) == [0, 0, 1, 2]
    assert agent.held == [1, 2, 3]


@pytest.mark.parametrize("overlap", [False, True])
def test_random_steps_are_not_trained_on(overlap):
    agent = FakeAgent()
    run(agent, random_steps=6, overlap=overlap)
    assert len(np.unique(np.concatenate([new.actions for new in agent.stored[:2]]))) == 6
    assert actions(agent)[2] == 0
    assert agent.held == ([2, 3] if overlap else [3, 4])


@pytest.mark.parametrize("overlap", [False, True])
def test_the_number_of_environments_changes_no_count(overlap):
    """Updates per transition, rows of the log, random steps and the last, shorter, cycle."""
    found = []
    for num_envs in (1, 2, 4):
        agent = FakeAgent()
        options = {"nb_rollout_steps": 8, "random_steps": 16, "overlap": overlap}
        epochs, cycles = run(agent, num_timesteps=44, num_envs=num_envs, **options)
        # Twice as many actions as there are random steps would be distinct, if they lasted.
        uniform = [len(np.unique(new.actions)) == new.rewards.size for new in agent.stored]
        sizes = [new.rewards.size for new in agent.stored]
        found.append((cycles, agent.held, uniform, sizes, [e.step for e in epochs]))
    assert found[0] == found[1] == found[2]
    assert found[0][0] == [8, 16, 24, 32, 40, 44]
    assert found[0][2] == [True, True, False, False, False, False]
    assert len(found[0][1]) == 4


def test_selection_decides_what_is_stored():
    agent = FakeAgent()
    select, picks = mock.Mock(), iter([None, "first", None, None])
    select.side_effect = lambda new, finished: new if next(picks) else None
    select.metrics.side_effect = [{}, {"epopt/return": 2.0}]
    epochs, _ = run(agent, select=select)
    assert [epoch.metrics.get("epopt/return") for epoch in epochs] == [None, 2.0]
    assert len(agent.stored) == 1
    assert agent.held == [1, 1, 1]  # nothing to train on in the first cycle


@pytest.mark.parametrize("overlap", [False, True])
def test_a_failed_update_says_where(overlap):
    step = 6 if overlap else 9
    with pytest.raises(TrainingError, match=rf"train/critic_loss is nan at step {step}"):
        run(FakeAgent(fail_at=2 if overlap else 3), overlap=overlap, num_timesteps=20)
