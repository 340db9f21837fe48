import gymnasium as gym
import numpy as np
import pytest

from envs import ConfigError, EnvSpec, default_ensemble, find_robot, make_env
from envs.spec import NOMINAL_MASS

NOMINAL = {"cart_mass": 1.0, "pole_mass": 0.1, "pole_length": 1.0}


def make(**fields):
    return make_env(EnvSpec("cartpole", "classic", **fields), training=True)


def make_robot(physics=""):
    robot = find_robot(make(physics=physics))
    robot.reset(seed=0)
    return robot


def constants(robot):
    """Every number of Gymnasium's environment which is not the episode's."""
    return {
        name: value for name, value in vars(robot.unwrapped).items() if isinstance(value, float)
    }


def random_policy(seed):
    rng = np.random.default_rng(seed)
    return lambda observation: int(rng.integers(2))


def balance(observation):
    """Pushes towards where the pole falls; holds it up for a whole episode."""
    return int(observation @ [0.1, 0.3, 1.0, 0.5] > 0)


def episode(env, policy, seed):
    """The whole episode: what reset and each step returned, without the infos."""
    observation, _ = env.reset(seed=seed)
    rows = [observation]
    while True:
        observation, reward, terminated, truncated, _ = env.step(policy(observation))
        rows.append((observation, reward, terminated, truncated))
        if terminated or truncated:
            return rows


@pytest.mark.parametrize("falls", [True, False])
def test_whole_episodes_are_those_of_gymnasium_to_the_bit(falls):
    ours, theirs = make(), gym.make("CartPole-v1")
    for seed in range(10 if falls else 2):
        policies = [random_policy(seed) if falls else balance for _ in range(2)]
        got, expected = episode(ours, policies[0], seed), episode(theirs, policies[1], seed)
        assert got[0].dtype == expected[0].dtype == np.float32
        np.testing.assert_array_equal(got[0], expected[0])
        assert len(got) == len(expected)
        for (observation, *rest), (wanted, *wanted_rest) in zip(got[1:], expected[1:], strict=True):
            np.testing.assert_array_equal(observation, wanted)
            assert rest == wanted_rest
        assert (len(got) - 1 == 500) != falls
        assert got[-1][2:] == (falls, not falls)
    assert ours.spec.max_episode_steps == theirs.spec.max_episode_steps == 500
    assert ours.action_space == gym.spaces.Discrete(2)


@pytest.mark.parametrize(
    ("cart", "pole", "length"), [(1.0, 0.1, 1.0), (3.0, 0.1, 1.0), (1.0, 0.4, 1.0), (0.5, 0.2, 1.6)]
)
@pytest.mark.parametrize("action", [0, 1])
def test_acceleration_is_that_of_a_uniform_rod_on_a_cart(cart, pole, length, action):
    """Lagrange's equations, L the whole rod's length, a the angle from upright, x the cart's place:

    (M + m) x'' + (m L/2 cos a) a'' = F + (m L/2 sin a) a'^2
    (m L/2 cos a) x'' + (m L^2/3) a'' = m g L/2 sin a
    """
    robot = make_robot(f"cart_mass={cart},pole_mass={pole},pole_length={length}")
    angle, rate, force = 0.15, 0.7, 20 * action - 10  # [rad], [rad/s], [N]
    robot.physics.set_state(np.array([0.0, 0.0, angle, rate, -1]))
    arm = pole * length / 2
    inertia = [[cart + pole, arm * np.cos(angle)], [arm * np.cos(angle), pole * length**2 / 3]]
    forces = [force + arm * np.sin(angle) * rate**2, 9.8 * arm * np.sin(angle)]
    acceleration = np.linalg.solve(inertia, forces)
    robot.step(action)
    change = (robot.physics.get_state()[[1, 3]] - [0.0, rate]) / 0.02  # Euler steps of 0.02 s
    np.testing.assert_allclose(change, acceleration, rtol=1e-10)


def test_nominal_values_and_units():
    robot = make_robot()
    assert robot.physics.read_all() == NOMINAL
    assert NOMINAL_MASS["cartpole", "classic"] == NOMINAL["pole_mass"]
    assert robot.unwrapped.length == 0.5  # [m] half of the pole
    robot.physics.set({"pole_length": 1.4})
    assert robot.unwrapped.length == 0.7


def test_changes_never_compound():
    robot = make_robot()
    before = constants(robot)
    assert before["total_mass"] == 1.1 and before["polemass_length"] == 0.05
    values = {"cart_mass": 2.0, "pole_mass": 0.3, "pole_length": 0.8}
    for _ in range(3):
        _, info = robot.reset(options={"physics": values})
        assert info["physics"] == values == robot.physics.read_all()
        assert robot.unwrapped.total_mass == 2.3  # 2 + 0.3
        assert robot.unwrapped.polemass_length == pytest.approx(0.12)  # 0.3 * 0.8 / 2
        robot.reset(options={"physics": values | {"cart_mass": 0.5}})
    robot.physics.set({"pole_mass": 0.2})  # what is not named turns nominal
    assert robot.physics.read_all() == NOMINAL | {"pole_mass": 0.2}
    robot.reset()
    assert constants(robot) == before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cart_mass": 0.0}, "cart_mass must be positive"),
        ({"pole_mass": -0.1}, "pole_mass must be positive"),
        ({"pole_length": 0.0}, "pole_length must be positive"),
        ({"pole_length": float("inf")}, "finite"),
        ({"pole_mass": "heavy"}, "must be a number"),
        ({"mass": 1.0}, "unknown parameter of this robot 'mass'"),
        ({"pole_lenght": 1.0}, "did you mean 'pole_length'"),
    ],
)
def test_bad_values_are_refused_and_change_nothing(values, message):
    physics = make_robot().physics
    before = physics.read_all()
    with pytest.raises(ConfigError, match=message):
        physics.set({"cart_mass": 3.0} | values)
    assert physics.read_all() == before


@pytest.mark.parametrize("steps_before", [0, 3, 60])  # at its start, under way, fallen long ago
@pytest.mark.filterwarnings("ignore:.*already returned terminated")
def test_another_simulator_goes_on_exactly(steps_before):
    """Also through the fall: its step is rewarded with 1, each one after it with 0."""
    robot, other = make_robot("pole_mass=0.2"), make_robot("pole_mass=0.2")
    for _ in range(steps_before):
        robot.step(1)
    state = robot.physics.get_state()
    other.reset(seed=5)
    other.physics.set_state(state)
    np.testing.assert_array_equal(other.physics.get_state(), state)
    expected = [robot.step(1) for _ in range(30)]
    got = [other.step(1) for _ in range(30)]
    np.testing.assert_array_equal([one[0] for one in got], [one[0] for one in expected])
    assert [one[1:3] for one in got] == [one[1:3] for one in expected]
    assert expected[-1][1:3] == (0.0, True)
    assert (sum(one[1] for one in expected) > 0) == (steps_before < 60)

    robot.physics.set_state(state)  # back again: the episode's own simulator too
    np.testing.assert_array_equal([robot.step(1)[0] for _ in range(30)], [one[0] for one in got])


def test_ensemble_through_gymnasium():
    env = gym.make(
        "envs:robots/cartpole-classic-v0", ensemble=default_ensemble("cartpole", "classic")
    )
    drawn = [env.reset(seed=seed)[1]["physics"]["pole_mass"] for seed in range(30)]
    assert len(set(drawn)) == 30
    assert all(0.05 <= mass <= 0.15 for mass in drawn)
    assert env.unwrapped.masspole == drawn[-1]


def test_the_originals_options_still_work():
    env, original = make(), gym.make("CartPole-v1")
    bounds = {"low": -0.2, "high": -0.1}
    expected, _ = original.reset(seed=3, options=bounds)
    observation, info = env.reset(seed=3, options=bounds | {"physics": {"pole_length": 2.0}})
    np.testing.assert_array_equal(observation, expected)
    assert info["physics"] == {"pole_length": 2.0}
    np.testing.assert_array_equal(env.reset(seed=3, options=bounds)[0], expected)
    with pytest.raises(ConfigError, match="unknown reset option 'pole_mass'"):
        env.reset(options={"pole_mass": 0.2})


def test_distractors_and_noise():
    env = make(distractors=2, observation_noise=0.1)
    plain = make()
    assert env.observation_space.shape == (6,)
    exact, _ = plain.reset(seed=0)
    seen, _ = env.reset(seed=0)
    assert seen.dtype == np.float32 and seen.shape == (6,)
    for _ in range(8):
        relative = seen[:4] / exact - 1
        assert (relative != 0).all() and (abs(relative) < 0.6).all()  # six standard deviations
        exact, seen = plain.step(1)[0], env.step(1)[0]


@pytest.mark.parametrize("make_it", [make, lambda **x: gym.make("robots/cartpole-classic-v0", **x)])
def test_action_noise_needs_continuous_actions(make_it):
    with pytest.raises(ConfigError) as caught:
        make_it(action_noise=0.1)
    assert str(caught.value) == "action_noise must be 0: cartpole's actions are discrete"
    make_it(action_noise=0.0)
