import gymnasium as gym
import numpy as np
import pytest

from envs import ConfigError, Ensemble, EnvSpec, find_robot, get_env_state, make_env, set_env_state
from envs.wrappers import Distractors, NoisyAction, NoisyObservation

ENSEMBLE = "mass:1,0.25,0.5,1.5"


def make(training=True, **fields):
    return make_env(EnvSpec("pendulum", "classic", **fields), training=training)


def masses(env, episodes, seed=None):
    infos = [env.reset(seed=seed if episode == 0 else None)[1] for episode in range(episodes)]
    return [info["physics"]["mass"] for info in infos]


def test_each_episode_has_a_new_robot_decided_by_the_seed():
    env = make(ensemble=ENSEMBLE)
    drawn = masses(env, 50, seed=1)
    assert len(set(drawn)) == 50
    assert all(0.5 <= mass <= 1.5 for mass in drawn)
    assert masses(env, 50, seed=1) == drawn
    assert masses(env, 50, seed=2) != drawn
    env.reset(seed=1)
    assert env.unwrapped.m == drawn[0]


def test_a_finite_ensemble_has_that_many_robots():
    env = make(ensemble=ENSEMBLE, ensemble_size=3)
    drawn = masses(env, 300, seed=1)
    robots, counts = np.unique(drawn, return_counts=True)
    assert len(robots) == 3
    assert counts.min() > 70  # uniform: 100 each, standard deviation 8
    assert set(masses(env, 300, seed=2)).isdisjoint(drawn)


def test_a_moved_ensemble_is_drawn_from_and_kept_with_the_state():
    env, resumed = (make(ensemble=ENSEMBLE, physics="length=0.7") for _ in range(2))
    before = masses(env, 1, seed=1)
    find_robot(env).move(Ensemble.parse("mass:3,0.1,2.5,1e1"))
    assert env.unwrapped.m == before[0]  # until the next reset
    assert all(mass >= 2.5 for mass in masses(env, 20))
    resumed.reset(seed=9)
    assert set_env_state(resumed, get_env_state(env))
    assert str(find_robot(resumed).ensemble) == "mass:3,0.1,2.5,10"
    assert masses(resumed, 20) == masses(env, 20)


@pytest.mark.parametrize(
    ("fields", "moved", "message"),
    [
        ({"ensemble_size": 2}, "mass:1,0.1,0.5,2", "leave ensemble_size 0"),
        ({}, "length:1,0.1,0.5,2", "cannot become 'length:1,0.1,0.5,2'"),
        ({}, "", "cannot become ''"),
        ({}, "mass:1,0.1,-1,2", "must be positive"),
    ],
)
def test_moves_that_are_refused_change_nothing(fields, moved, message):
    env = make(ensemble=ENSEMBLE, **fields)
    with pytest.raises(ConfigError, match=message):
        find_robot(env).move(Ensemble.parse(moved))
    assert str(find_robot(env).ensemble) == ENSEMBLE


def test_options_choose_the_robot_for_one_episode():
    env = make(ensemble=ENSEMBLE, physics="length=0.7")
    random = masses(env, 3, seed=1)
    assert env.reset(seed=1)[1]["physics"] == {"length": 0.7, "mass": random[0]}
    _, info = env.reset(options={"physics": {"mass": 3.0, "length": 2.0}, "x_init": 0.0})
    assert info["physics"] == {"length": 2.0, "mass": 3.0}
    assert env.unwrapped.state[0] == 0.0  # the original's own option arrives
    # The chosen episode used up its draw: the next one is what it would have been.
    assert env.reset()[1]["physics"] == {"length": 0.7, "mass": random[2]}


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"mas": 1.0}, "did you mean 'mass'"),
        ({"mass": -1.0}, "positive"),
        ({"mass": "heavy"}, "number"),
        ([1.0], "must be a dict"),
    ],
)
def test_bad_options_are_refused(chosen, message):
    with pytest.raises(ConfigError, match=message):
        make().reset(options={"physics": chosen})


@pytest.mark.parametrize("training", [True, False])
def test_reward_offset_acts_in_training_only_and_exactly(training):
    plain, env = make(), make(training=training, ensemble="reward_offset:0,3,-9,9")
    plain.reset(seed=5)
    _, info = env.reset(seed=5)
    offset = info["physics"]["reward_offset"]
    assert (offset != 0) == training
    for _ in range(20):
        action = plain.action_space.sample()
        assert env.step(action)[1] == plain.step(action)[1] + offset


def test_reward_offsets_have_the_ensembles_spread():
    env = make(ensemble="reward_offset:0,3,-9,9;mass:1,0.25,0.5,1.5")
    offsets = [env.reset(seed=seed)[1]["physics"]["reward_offset"] for seed in range(2000)]
    # N(0, 3) cut at three standard deviations has a std of 0.98658 * 3 = 2.960.
    assert np.std(offsets) == pytest.approx(2.96, rel=0.05)
    assert np.mean(offsets) == pytest.approx(0, abs=0.2)


def test_offset_does_not_change_the_robots():
    """Training and evaluation meet the same robots for the same seed."""
    fields = {"ensemble": ENSEMBLE + ";reward_offset:0,3,-9,9"}
    assert masses(make(**fields), 5, seed=0) == masses(make(training=False, **fields), 5, seed=0)


def test_steps_info_is_left_alone():
    env = make(ensemble=ENSEMBLE + ";reward_offset:0,3,-9,9")
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[4] == {}


class Echo(gym.Env):
    """Observes the action that it was given."""

    action_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.ones(4, np.float32), {}

    def step(self, action):
        return action, 0.0, False, False, {}


def rollout(env, steps, action, seed=0):
    first, _ = env.reset(seed=seed)
    return np.array([first] + [env.step(np.array(action, np.float32))[0] for _ in range(steps)])


def test_observation_noise_is_multiplicative():
    env = NoisyObservation(Echo(), 0.1)
    seen = rollout(env, 5000, [0, 0.1, 0.5, 1])
    assert seen.dtype == np.float32
    assert (seen[0] != 1).all()  # the first observation too
    assert (seen[1:, 0] == 0).all()
    np.testing.assert_allclose(seen[1:].mean(axis=0), [0, 0.1, 0.5, 1], atol=0.01)
    np.testing.assert_allclose(seen[1:].std(axis=0), [0, 0.01, 0.05, 0.1], rtol=0.05)
    assert np.isinf(env.observation_space.high).all()
    np.testing.assert_array_equal(seen, rollout(env, 5000, [0, 0.1, 0.5, 1]))


def test_action_noise_is_multiplicative_and_clipped():
    env = NoisyAction(Echo(), 0.1)
    taken = rollout(env, 5000, [0, -0.1, 0.5, 1])[1:]
    assert taken.dtype == np.float32
    assert (taken[:, 0] == 0).all()
    np.testing.assert_allclose(taken[:, :3].mean(axis=0), [0, -0.1, 0.5], atol=0.01)
    np.testing.assert_allclose(taken[:, :3].std(axis=0), [0, 0.01, 0.05], rtol=0.05)
    assert taken.max() == 1  # bounds hold
    assert (taken[:, 3] == 1).mean() == pytest.approx(0.5, abs=0.03)  # every upward one was cut
    np.testing.assert_array_equal(taken, rollout(env, 5000, [0, -0.1, 0.5, 1])[1:])


def test_distractors_are_standard_normal_and_appended():
    env = Distractors(Echo(), 3)
    seen = rollout(env, 5000, [0.5] * 4)
    assert seen.shape == (5001, 7) and seen.dtype == np.float32
    assert env.observation_space.shape == (7,)
    np.testing.assert_array_equal(env.observation_space.high, 4 * [1] + 3 * [np.inf])
    assert (seen[1:, :4] == 0.5).all()
    np.testing.assert_allclose(seen[:, 4:].mean(axis=0), 0, atol=0.06)
    np.testing.assert_allclose(np.cov(seen[:, 4:].T), np.eye(3), atol=0.08)
    np.testing.assert_array_equal(seen, rollout(env, 5000, [0.5] * 4))


def test_distractors_are_not_noisy():
    """Both at once: noise is for the robot's own sensors, and the streams are independent."""
    one = make(distractors=3, observation_noise=0.5)
    other = make(distractors=3)
    np.testing.assert_array_equal(one.reset(seed=0)[0][3:], other.reset(seed=0)[0][3:])
    assert (one.reset(seed=0)[0][:3] != other.reset(seed=0)[0][:3]).all()


def test_find_robot():
    assert find_robot(make(distractors=1)).physics.read("mass") == 1.0
    with pytest.raises(ConfigError, match="make_env"):
        find_robot(gym.make("Pendulum-v1"))


@pytest.mark.parametrize("options", [{"mass": 2.0}, {"physic": {"mass": 2.0}}])
def test_a_robot_in_the_wrong_place_of_the_options_is_refused(options):
    env = make_env(EnvSpec("pendulum", "classic"), training=True)
    with pytest.raises(ConfigError, match="unknown reset option"):
        env.reset(seed=0, options=options)
    env.reset(seed=0, options={"x_init": 0.1, "y_init": 0.1})  # the original's own
