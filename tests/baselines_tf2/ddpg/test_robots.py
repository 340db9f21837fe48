"""What a Q critic may know of its robots, on numbers worked out by hand, in float64."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common.networks import MLPConfig
from baselines_tf2.common.replay import Rollout
from baselines_tf2.common.rollout import SerialEnvs
from baselines_tf2.ddpg.agent import DDPGAgent
from baselines_tf2.ddpg.config import DDPGConfig, LoopConfig
from baselines_tf2.ddpg.experiments import EXPERIMENTS
from baselines_tf2.ddpg.learn import make_agent, make_loop
from baselines_tf2.ddpg.robots import make_sight
from baselines_tf2.ddpg.update import actor_gradient
from baselines_tf2.runs.training import spawn_seeds
from envs import ConfigError, Ensemble, make_env
from tests import tiny

MASSES = Ensemble.parse("torso_mass:6,1.5,3,9;reward_offset:0,10,-30,30;friction:1,0.2,0.5,1.5")
ROBOTS = [
    {"torso_mass": 3.0, "reward_offset": 25.0, "friction": 1.5},
    {"torso_mass": 7.5, "reward_offset": -25.0, "friction": 1.0},
]
LINEAR = MLPConfig(num_layers=0)


def make(rewards, members, ends=(), **options):
    """An agent of linear networks that has stored these steps, of which step t observes t."""
    config = DDPGConfig(
        actor_network=LINEAR, critic_network=LINEAR, batch_size=2, normalize_observations=False,
        critic_l2_reg=0.0, noise_type="none", replay_size=100, **options
    )  # fmt: skip
    seen = config.critic_sees
    sight = {} if seen == "nothing" else {"sight": make_sight(seen, MASSES, 2)}
    agent = DDPGAgent(config, 1, 1, seed=0, dtype="float64", **sight)
    for number, robot in enumerate(ROBOTS):
        agent.meet(number, robot)
    time = np.arange(len(rewards), dtype=float).reshape(-1, 1, 1)
    over = np.isin(np.arange(len(rewards)), ends)[:, None]
    columns = (np.array(x)[:, None] for x in (rewards, members))
    rewards, members = columns
    agent.store(Rollout(time, 0 * time, rewards.astype(float), time + 1, over, over, members))
    return agent


def completed(agent, num):
    """Every stored row as an update would get it, in the order of its observation."""
    rows = agent.replay.gather(np.arange(num), np.zeros(num, int))
    return agent._layout.unpack(tf.constant(agent._robots.complete(rows)))


def test_each_robot_loses_its_own_mean_reward():
    agent = make([1.0, 3.0, -10.0, -20.0], [0, 0, 1, 1], reward_centering="robot")
    np.testing.assert_allclose(completed(agent, 4).rewards, [-1, 1, 5, -5])


def test_old_rows_are_centred_by_the_mean_of_today_and_stay_as_they_were_stored():
    agent = make([1.0, 3.0], [0, 0], reward_centering="robot")
    np.testing.assert_allclose(completed(agent, 2).rewards, [-1, 1])
    old = agent.replay.gather(np.arange(2), np.zeros(2, int))
    zeros, no = np.zeros((1, 1, 1)), np.zeros((1, 1), bool)
    agent.store(Rollout(zeros, zeros, np.array([[8.0]]), zeros, no, no, np.zeros((1, 1), int)))
    np.testing.assert_allclose(completed(agent, 3).rewards, [-3, -1, 4])  # mean 4
    np.testing.assert_array_equal(agent.replay.gather(np.arange(2), np.zeros(2, int)), old)


def test_scaled_rewards_are_centred_by_their_scaled_mean():
    agent = make([10.0, 30.0], [0, 0], reward_centering="robot", reward_scale=0.1)
    np.testing.assert_allclose(completed(agent, 2).rewards, [-1, 1])


def test_a_window_loses_the_mean_at_each_of_its_steps():
    options = {"reward_centering": "robot", "n_step": 3, "gamma": 0.5}
    agent = make([4.0, 8.0, 0.0, 8.0, 5.0], [0, 0, 0, 0, 1], ends=[3], **options)
    # Mean 5. The first window is 4 + 8/2 + 0/4 = 8, less 5 (1 + 1/2 + 1/4); the terminal at step
    # 3 cuts the next two to three and two steps, and leaves the value after it 0.
    expected = [8 - 8.75, 8 + 0 + 2 - 8.75, 0 + 4 - 7.5, 8 - 5, 0]
    batch = completed(agent, 5)
    np.testing.assert_allclose(batch.rewards, expected)
    np.testing.assert_array_equal(batch.terminals1, [0, 1, 1, 1, 0])


def test_centring_makes_levels_of_reward_vanish():
    """The batches of robots with offsets are those of the same robots without."""
    rewards, members = np.array([1.0, 2.0, 6.0, 3.0]), [0, 0, 1, 1]
    options = {"reward_centering": "robot", "n_step": 2, "gamma": 0.5}
    plain = make(rewards, members, ends=[1], **options)
    offset = make(rewards + [25, 25, -25, -25], members, ends=[1], **options)
    for a, b in zip(completed(plain, 4)[:6], completed(offset, 4)[:6], strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize(
    "seen, expected",
    # (3, 9) kg and (0.5, 1.5) of friction to [-1, 1]; of the reward's offset nothing
    [("physics", [[-1, 1], [0.5, 0]]), ("robot", [[1, 0], [0, 1]])],
)
def test_what_the_critic_sees_by_hand(seen, expected):
    agent = make([1.0, 2.0, 3.0], [1, 0, 1], critic_sees=seen)
    batch = completed(agent, 3)
    np.testing.assert_allclose(batch.robots, np.take(expected, [1, 0, 1], axis=0))
    np.testing.assert_allclose(batch.rewards, [1, 2, 3])


def test_both_critics_see_the_robot_and_the_actor_does_not():
    agent = make([1.0, 2.0], [0, 1], critic_sees="physics", gamma=0.5)
    nets, batch = agent.nets, completed(agent, 2)
    # Q = 1 s + 2 a + 3 mass + 4 friction, Q' = 10 mass' - friction', mu = tanh(s), mu' = 0
    nets.critic.set_weights([np.array([[1.0], [2.0], [3.0], [4.0]]), np.zeros(1)])
    nets.target_critic.set_weights([np.array([[0.0], [0.0], [10.0], [-1.0]]), np.zeros(1)])
    nets.actor.set_weights([np.array([[1.0]]), np.zeros(1)])
    nets.target_actor.set_weights([np.zeros((1, 1)), np.zeros(1)])
    np.testing.assert_allclose(agent.head.predictions(nets, batch), [0 - 3 + 4, 1 + 1.5 + 0])
    np.testing.assert_allclose(
        agent.head.targets(nets, batch), [1 + 0.5 * (-10 - 1), 2 + 0.5 * (5 - 0)]
    )
    # -mean(Q): what the robot is worth is in it, and gives the actor no gradient.
    loss, grads = actor_gradient(nets, agent.head, batch)
    assert float(loss) == pytest.approx(-(1 + 2.5 + 2 * np.tanh(1.0)) / 2)
    slopes = -(1 - np.tanh([0.0, 1.0]) ** 2)  # -2 (1 - tanh^2) / 2
    np.testing.assert_allclose(grads[0], [[slopes @ [0, 1]]])
    np.testing.assert_allclose(grads[1], [slopes.sum()])
    with tf.GradientTape() as tape:
        tape.watch(batch.robots)
        actions = nets.actor(batch.obs0)
    assert tape.gradient(actions, batch.robots) is None


@pytest.mark.parametrize("seen, average", [("physics", [0, 0]), ("robot", [0.5, 0.5])])
def test_step_is_told_of_no_robot_in_particular(seen, average):
    agent = make([1.0], [0], critic_sees=seen)
    actions, q, _, _ = agent.step([2.0])
    expected = np.array([2.0, actions[0, 0], *average]) @ agent.nets.critic.get_weights()[0][:, 0]
    np.testing.assert_allclose(q, [expected])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"critic": "additive", "reward_centering": "robot"}, "need the Q critic"),
        ({"critic": "concat", "critic_sees": "physics"}, "need the Q critic"),
        ({"reward_centering": "robots"}, "did you mean 'robot'"),
        ({"critic_sees": "physic"}, "did you mean 'physics'"),
        ({"reward_centering": "robot", "n_step": 2, "gamma": 1.0}, "gamma < 1"),
    ],
)
def test_remedies_that_do_nothing_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        DDPGConfig(**options)


@pytest.mark.parametrize(
    "seen, ensemble, size, message",
    [
        ("physics", "reward_offset:0,1,-3,3", 4, "needs an ensemble of physics"),
        ("physics", "", 0, "needs an ensemble of physics"),
        ("robot", "mass:1,0.25,0.5,1.5", 0, "set env.ensemble_size"),
    ],
)
def test_a_critic_that_would_see_nothing_is_refused(seen, ensemble, size, message):
    overrides = [f"agent.critic_sees={seen}", f"env.ensemble={ensemble}"]
    chosen = tiny.make("ddpg_ensemble_pendulum", *overrides, f"env.ensemble_size={size}")
    with pytest.raises(ConfigError, match=message):
        EXPERIMENTS["ddpg_ensemble_pendulum"].prepare(chosen, 0)


def test_training_makes_the_agent_meet_each_environments_robots(eagerly):
    settings = tiny.make("ddpg_offset_pendulum", "agent.critic_sees=robot", "env.ensemble_size=1")
    envs = SerialEnvs([make_env(settings.env, training=True) for _ in range(2)])
    agent = make_agent(envs, replace(settings.agent, nb_rollout_steps=10), seed=0)
    loop = LoopConfig(num_envs=2)
    make_loop(agent, envs, loop, num_timesteps=20, random_steps=0, seeds=spawn_seeds(0))
    np.testing.assert_array_equal(agent._robots.features(np.arange(2)), np.eye(2))
