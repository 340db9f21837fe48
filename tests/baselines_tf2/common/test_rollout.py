import gymnasium as gym
import numpy as np
import pytest

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.noise import NormalNoise
from baselines_tf2.common.rollout import Collector, SerialEnvs, as_envs
from baselines_tf2.common.spaces import action_scale
from envs import ConfigError, EnvSpec, make_env
from tests.toys import Corridor, Robots, ensemble_of


def spy(robot, observations, actions):
    """Notes what the robot itself shows, resets included, and what it is made to do."""
    reset, step = robot.reset, robot.step

    def noted(answer):
        observations.append(np.array(answer[0]))
        return answer

    robot.reset = lambda **kwargs: noted(reset(**kwargs))
    robot.step = lambda action: (actions.append(float(action[0])), noted(step(action)))[1]


def half(obs):
    return np.full((len(obs), 1), 0.5)


def collector(envs, noises=(), **options):
    return Collector(envs, list(noises), np.random.default_rng(0), seed=7, **options)


def test_transitions_in_order_across_a_terminal():
    env = Corridor(length=3)
    new, episodes = collector(SerialEnvs([env])).collect(lambda: half, 5)
    np.testing.assert_array_equal(new.obs0[:, 0, 0], [0, 1, 2, 0, 1])
    np.testing.assert_array_equal(new.obs1[:, 0, 0], [1, 2, 3, 1, 2])  # 3, not the reset's 0
    np.testing.assert_array_equal(new.rewards[:, 0], [1, 2, 3, 1, 2])
    np.testing.assert_array_equal(new.terminals1[:, 0], [0, 0, 1, 0, 0])
    np.testing.assert_array_equal(new.ends[:, 0], [0, 0, 1, 0, 0])
    assert [(e.episode_return, e.length) for e in episodes] == [(6.0, 3)]
    np.testing.assert_allclose(env.actions, 1.0)  # 0.5 of the bound 2
    assert env.resets[0] == (7, None)


def test_episodes_run_on_between_calls():
    running = collector(SerialEnvs([Corridor(length=5)]))
    assert running.collect(lambda: half, 3)[1] == []
    (episode,) = running.collect(lambda: half, 3)[1]
    assert (episode.episode_return, episode.length) == (15.0, 5)
    (episode,) = running.collect(lambda: half, 4)[1]
    assert (episode.episode_return, episode.length) == (15.0, 5)


def test_a_time_limit_ends_the_episode_and_is_no_terminal():
    new, episodes = collector(SerialEnvs([Corridor(3, terminal=False)])).collect(lambda: half, 4)
    assert not new.terminals1.any()
    np.testing.assert_array_equal(new.ends[:, 0], [0, 0, 1, 0])
    assert len(episodes) == 1


def test_noise_is_added_and_clipped_to_the_bounds():
    env = Corridor(length=99)
    new, _ = collector(SerialEnvs([env]), [NormalNoise(5.0)]).collect(lambda: half, 50)
    assert np.abs(new.actions).max() == 1 and len(np.unique(new.actions)) > 2
    np.testing.assert_allclose(np.array(env.actions), 2 * new.actions[:, 0])


def test_without_a_policy_actions_are_uniform():
    new, _ = collector(SerialEnvs([Corridor(length=999)])).collect(None, 900)
    assert new.actions.std() == pytest.approx(1 / 3**0.5, rel=0.05)
    assert abs(new.actions.mean()) < 0.1


def test_a_policy_lasts_an_episode_unless_refreshed():
    asked = []

    def new_policy():
        asked.append(len(asked))
        return half

    running = collector(SerialEnvs([Corridor(length=3)]))
    for _ in range(4):
        running.collect(new_policy, 2, refresh=False)
    assert len(asked) == 1 + 2  # at first, then as the episodes of 3 end within 8 steps
    for _ in range(4):
        running.collect(new_policy, 2)
    assert len(asked) == 3 + 4


def test_equal_parameters_are_the_same_robot():
    new, episodes = collector(SerialEnvs([Robots((1.0, 2.0, 1.0), length=2)])).collect(
        lambda: half, 7
    )
    np.testing.assert_array_equal(new.members[:, 0], [0, 0, 1, 1, 0, 0, 0])
    assert [e.physics["torso_mass"] for e in episodes] == [1.0, 2.0, 1.0]


def test_twins_share_robot_noise_and_time():
    envs = [ensemble_of(Corridor(length=length)) for length in (4, 3, 99, 99)]
    running = collector(SerialEnvs(envs, twins=True), [NormalNoise(0.3)])
    new, _ = running.collect(lambda: half, 6)
    # The second ends at 3 and cuts the first; both start again with the first's next robot.
    np.testing.assert_array_equal(new.obs0[:, 0, 0], [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(new.obs0[:, 0, 0], new.obs0[:, 1, 0])
    np.testing.assert_array_equal(new.terminals1[2], [False, True, False, False])
    np.testing.assert_array_equal(new.ends[2], [True, True, False, False])
    np.testing.assert_array_equal(new.members[:, 0], new.members[:, 1])
    assert new.members[0, 0] != new.members[3, 0] != new.members[3, 2]
    np.testing.assert_array_equal(new.actions[:, 0], new.actions[:, 1])
    assert not np.array_equal(new.actions[:, 0], new.actions[:, 2])
    uniform, _ = running.collect(None, 2)
    np.testing.assert_array_equal(uniform.actions[:, 0], uniform.actions[:, 1])


def twins_of(spec, num=4):
    return SerialEnvs([make_env(spec, training=True) for _ in range(num)], twins=True)


def test_twins_get_the_robot_that_was_drawn_not_the_one_read_back():
    """A slope that is read back and set again is another one in its last digit."""
    envs = twins_of(EnvSpec("hopper", "mujoco", ensemble="slope:5,3,-10,10"), num=2)
    running = collector(envs)
    for _ in range(40):
        new, _ = running.collect(None, 1)
        assert new.members[0, 0] == new.members[0, 1]
        running._reset(np.ones(2, bool))
    assert len(running._ids) == 41


def test_twins_draw_the_same_noise_and_begin_elsewhere():
    """Observations are x (1 + 0.1 z) and distractors; 40 steps in three episodes."""
    noise = {"observation_noise": 0.1, "action_noise": 0.1, "distractors": 3}
    envs = twins_of(EnvSpec("pendulum", "classic", ensemble="mass:1,0.2,0.5,1.5", **noise))
    clean, taken = [], []
    for robot in envs._robots:
        spy(robot, clean, taken)
    obs = [envs.reset(np.ones(4, bool), seed=3)[0].copy()]
    for t in range(40):
        obs.append(envs.step(np.full((4, 1), 0.5)).obs1.copy())
        if t % 15 == 14:
            obs.append(envs.reset(np.ones(4, bool))[0].copy())
    obs = np.array(obs)
    np.testing.assert_array_equal(obs[:, 0, 3:], obs[:, 1, 3:])
    assert (obs[:, 0, 3:] != obs[:, 2, 3:]).all()  # other pairs draw their own
    factors = obs[..., :3] / np.array(clean).reshape(-1, 4, 3)
    np.testing.assert_allclose(factors[:, 0], factors[:, 1], rtol=1e-5)
    assert np.abs(factors - 1).max() > 0.1
    torques = np.array(taken).reshape(-1, 4)
    np.testing.assert_array_equal(torques[:, 0], torques[:, 1])
    assert len(np.unique(torques)) == 80
    # What twins must not share: where they begin, and so all that they see.
    assert (obs[:, 0, :3] != obs[:, 1, :3]).any(-1).all()


@pytest.mark.parametrize(
    "envs, message",
    [
        (lambda: SerialEnvs([Robots(), Robots()], twins=True), "make it with envs.make_env"),
        (lambda: SerialEnvs([ensemble_of(Corridor())], twins=True), "come in twos"),
        (lambda: SerialEnvs([Corridor()] * 2), "twice"),
        (lambda: as_envs(vector_of([Corridor(), Corridor()]), twins=True), "cannot hold twins"),
        (lambda: as_envs([Corridor(), "Pendulum-v1"]), "not a str"),
        (lambda: as_envs([]), "not a list"),
    ],
)
def test_environments_that_cannot_be_stepped_so_are_refused(envs, message):
    with pytest.raises(ConfigError, match=message):
        envs()


@pytest.mark.parametrize("what", ["observation", "reward"])
def test_what_is_not_finite_is_named_with_its_step(what):
    class Broken(Corridor):
        def step(self, action):
            obs, reward, *rest = super().step(action)
            if self.time == 4:
                obs, reward = (obs * np.nan, reward) if what == "observation" else (obs, np.inf)
            return obs, reward, *rest

    running = collector(SerialEnvs([Broken(length=99)]))
    running.collect(lambda: half, 2)
    with pytest.raises(TrainingError, match=f"{what} is (nan|inf) at step 3"):
        running.collect(lambda: half, 10)


def test_an_episode_that_starts_with_nan_is_stopped_too():
    class Broken(Corridor):
        def reset(self, **kwargs):
            obs, info = super().reset(**kwargs)
            return (obs * np.nan if len(self.resets) > 1 else obs), info

    with pytest.raises(TrainingError, match="observation is nan at step 3"):
        collector(SerialEnvs([Broken(length=3)])).collect(lambda: half, 5)


def vector_of(envs):
    disabled = gym.vector.AutoresetMode.DISABLED
    return gym.vector.SyncVectorEnv([lambda env=e: env for e in envs], autoreset_mode=disabled)


def test_a_vector_environment_gives_the_same_rows_and_robots():
    def make():
        return [
            Robots((1.0, 2.0), length=3),
            Corridor(length=4),  # tells of no robot
            ensemble_of(Corridor(length=5, terminal=False)),
        ]

    ways = [collector(envs).collect(lambda: half, 19) for envs in
            (as_envs(vector_of(make())), as_envs(make()))]  # fmt: skip
    (a, episodes), (b, others) = ways
    for left, right in zip(a, b, strict=True):
        np.testing.assert_array_equal(left, right)
    assert episodes == others
    assert [e.physics for e in episodes[:2]] == [{"torso_mass": 1.0}, {}]
    assert len(np.unique(a.members[:, 0])) == 2 and len(np.unique(a.members[:, 2])) == 4


def test_what_is_no_gymnasium_environment_is_refused():
    with pytest.raises(ConfigError, match="must be a Gymnasium environment.* not a str"):
        as_envs("Pendulum-v1")
    with pytest.raises(ConfigError, match="FlattenObservation"):
        space = gym.spaces.Dict({"x": gym.spaces.Box(-1, 1, (2,))})
        env = Corridor()
        env.observation_space = space
        as_envs(env)


def test_a_vector_environment_that_resets_itself_is_refused():
    with pytest.raises(ConfigError, match="AutoresetMode.DISABLED"):
        as_envs(gym.vector.SyncVectorEnv([Corridor]))


@pytest.mark.parametrize(
    "space, message",
    [
        (gym.spaces.Discrete(3), "continuous action space"),
        (gym.spaces.Box(-np.inf, np.inf, (2,)), "unbounded"),
        (gym.spaces.Box(-1.0, 2.0, (2,)), "symmetric"),
        (gym.spaces.Box(0.0, 0.0, (2,)), "symmetric"),
    ],
)
def test_action_spaces_that_do_not_suit_are_refused(space, message):
    with pytest.raises(ConfigError, match=message):
        action_scale(space)
