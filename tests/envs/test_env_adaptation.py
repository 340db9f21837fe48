import math
from dataclasses import astuple

import numpy as np
import pytest

from envs import (
    ConfigError,
    Ensemble,
    EnvSpec,
    adapt,
    default_ensemble,
    find_robot,
    make_env,
    recorded,
    simulator_log_likelihood,
)


def make(task, backend, **fields):
    return make_env(EnvSpec(task, backend, **fields), training=False)


def random_policy(env):
    env.action_space.seed(0)
    return lambda observation: env.action_space.sample()


def record_transitions(env, policy, steps, seed):
    """`steps` transitions of the target robot in `env` under `policy`, over falls."""
    with recorded(env) as transitions:
        observation, _ = env.reset(seed=seed)
        for _ in range(steps):
            observation, _, terminated, truncated, _ = env.step(policy(observation))
            if terminated or truncated:
                observation, _ = env.reset()
    return transitions


def test_adapt_finds_a_gaussian_posterior():
    # Prior N(0, 1), likelihood N(1; p, 1/2): precision 1 + 4 = 5, so mean 4/5, variance 1/5.
    ensemble = Ensemble.parse("slope:0,1,-20,20")

    def log_likelihood(values, transitions):
        return -0.5 * ((values["slope"] - 1) / 0.5) ** 2 - 1e4  # exp underflows: log weights only

    moved, effective = adapt(
        ensemble, ["any"], log_likelihood, 20_000, rng=np.random.default_rng(0)
    )
    assert moved["slope"].mean == pytest.approx(0.8, abs=0.02)
    assert moved["slope"].std == pytest.approx(math.sqrt(0.2), rel=0.03)
    assert (moved["slope"].low, moved["slope"].high) == (-20, 20)
    assert 2_000 < effective < 20_000


@pytest.mark.parametrize(
    "text",
    [
        "torso_mass:6,1.5,3,9",
        "torso_mass:3.2,1.5,3,9",  # one-sided: its draws' mean is 4.27
        "torso_mass:3,1.5,3,9",
        "torso_mass:0.5,9,0.1,9",  # almost uniform, and most of its normal is impossible
        "slope:0,1,-20,20;friction:1,0.1,0,2",
    ],
)
@pytest.mark.parametrize("num_samples", [5, 200])
def test_seven_rounds_of_a_flat_likelihood_leave_the_ensemble(text, num_samples):
    moved, rng = Ensemble.parse(text), np.random.default_rng(0)
    for _ in range(7):
        moved, _ = adapt(moved, ["any"], lambda *_: -1e4, num_samples, rng)
    for name, one in Ensemble.parse(text).items():
        assert astuple(moved[name]) == pytest.approx(astuple(one), rel=1e-9, abs=1e-9)


def test_a_one_sided_ensembles_normal_moves_as_without_its_range():
    # Prior N(0.2, 3/2), likelihood N(1; p, 1): precision 4/9 + 1 = 13/9, mean
    # (0.2 * 4/9 + 1) * 9/13 = 9.8/13. On [0, 6] the posterior is this normal, cut there.
    ensemble = Ensemble.parse("slope:0.2,1.5,0,6")

    def log_likelihood(values, transitions):
        return -0.5 * (values["slope"] - 1) ** 2

    moved, _ = adapt(ensemble, ["any"], log_likelihood, 2_000, np.random.default_rng(0))
    expected = (9.8 / 13, 3 / math.sqrt(13), 0, 6)
    assert astuple(moved["slope"]) == pytest.approx(expected, abs=0.003)


@pytest.mark.parametrize("target", [11.0, 25.0, 0.3])
def test_a_target_outside_the_range_is_followed_and_the_range_grows(target):
    ensemble, rng = Ensemble.parse("torso_mass:6,1.5,3,9"), np.random.default_rng(0)

    def needle(values, transitions):
        return -0.5 * ((values["torso_mass"] - target) / 0.01) ** 2

    for _ in range(7):
        ensemble, _ = adapt(ensemble, ["any"], needle, 40, rng)
    one = ensemble["torso_mass"]
    assert one.mean == pytest.approx(target, abs=0.01)
    assert one.std < 0.1
    assert 0 < one.low <= min(3, target - 2 * one.std)
    assert one.high >= max(9, target + 2 * one.std)


def test_the_answer_is_possible_whatever_the_likelihood():
    def either_end(values, transitions):
        return 2.0 if values["friction"] > 3 else -50.0 * (values["friction"] > 0.05)

    ensemble = Ensemble.parse("friction:0.1,1,0,4")
    moved, _ = adapt(ensemble, ["any"], either_end, 1_000, np.random.default_rng(0))
    assert 0 < moved["friction"].mean < moved["friction"].high
    assert moved["friction"].low == 0


def test_robots_whose_simulation_failed_have_no_weight():
    ensemble = Ensemble.parse("slope:0,1,-20,20")

    def fails_downhill(values, transitions):
        return math.nan if values["slope"] < 0 else 0.0

    moved, _ = adapt(ensemble, ["any"], fails_downhill, 2_000, np.random.default_rng(0))
    # Half a normal: mean sqrt(2 / pi), variance 1 - 2 / pi.
    assert moved["slope"].mean == pytest.approx(math.sqrt(2 / math.pi), abs=0.01)
    assert moved["slope"].std == pytest.approx(math.sqrt(1 - 2 / math.pi), abs=0.01)


def test_one_round_narrows_at_most_fourfold():
    ensemble = Ensemble.parse("slope:0,1,-20,20")

    def needle(values, transitions):
        return -1e9 * values["slope"] ** 2

    moved, effective = adapt(ensemble, ["any"], needle, 50, rng=np.random.default_rng(0))
    assert moved["slope"].std == 0.25
    assert effective == pytest.approx(1)


def test_adapt_rejects():
    rng = np.random.default_rng(0)
    for ensemble, transitions, likelihood in [
        ("", ["any"], 0.0),
        ("slope:0,1,-2,2", [], 0.0),
        ("slope:0,1,-2,2", ["any"], -math.inf),
        ("slope:-2,2", ["any"], 0.0),
    ]:
        with pytest.raises(ConfigError):
            adapt(Ensemble.parse(ensemble), transitions, lambda *_, x=likelihood: x, 10, rng)


@pytest.mark.parametrize(
    ("task", "backend", "mass", "error"),
    [
        ("pendulum", "classic", 1.3, 0.03),
        ("cartpole", "classic", 0.13, 0.003),  # one step hardly feels so light a pole
        ("cheetah", "mujoco", 7.7, 0.03),
        ("cheetah", "mujoco", 11.0, 0.03),  # outside [3, 9] kg
        ("hopper", "pybullet", 4.5, 0.03),
        ("hopper", "pybullet", 7.0, 0.03),  # outside [1.8, 5.5] kg
    ],
)
def test_rounds_of_adaptation_recover_the_targets_mass(task, backend, mass, error):
    ensemble = Ensemble.parse(default_ensemble(task, backend))
    (name,) = ensemble
    target = make(task, backend, physics=f"{name}={mass}")
    simulator = make(task, backend)
    rng, before, policy = np.random.default_rng(0), ensemble[name].std, random_policy(target)
    log_likelihood = simulator_log_likelihood(simulator, error)
    for seed in range(3):
        transitions = record_transitions(target, policy, steps=12, seed=seed)
        ensemble, effective = adapt(ensemble, transitions, log_likelihood, 40, rng)
        assert 1 <= effective <= 40
    assert ensemble[name].mean == pytest.approx(mass, rel=0.03)
    assert ensemble[name].std < before / 3
    target.close()
    simulator.close()


@pytest.mark.parametrize(
    ("task", "backend"),
    [
        ("pendulum", "classic"),
        ("cartpole", "classic"),
        ("ant", "mujoco"),
        ("cheetah", "pybullet"),
        ("ant", "pybullet"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*already returned terminated")  # cartpole, after its fall
def test_likelihood_of_the_true_robot_is_exact(task, backend):
    """A state carried into another simulator gives the next step to the bit, reward included."""
    target, simulator = make(task, backend), find_robot(make(task, backend))
    simulator.reset(seed=9)
    robot, policy = find_robot(target), random_policy(target)
    robot.reset(seed=1)
    for _ in range(40):
        state, action = robot.physics.get_state(), policy(None)
        expected = robot.step(action)
        simulator.physics.set_state(state)
        got = simulator.step(action)
        np.testing.assert_array_equal(got[0], expected[0])
        assert got[1] == expected[1]
        assert got[2] == expected[2]
    target.close()
    simulator.close()


def test_record_transitions_goes_on_after_a_fall():
    env = make("hopper", "mujoco", distractors=2)
    transitions = record_transitions(env, random_policy(env), steps=120, seed=0)
    assert len(transitions) == 120
    assert transitions[0].obs1.shape == (11,)  # the robot's own, without distractors


@pytest.mark.parametrize("backend", ["mujoco", "pybullet"])
def test_what_is_recorded_below_noise_is_what_the_robot_did(backend):
    """Through noise and distractors: states and actions that give the robot's obs1 to the bit."""
    noisy = {"observation_noise": 0.1, "action_noise": 0.5, "distractors": 2}
    env, seen = make("cheetah", backend, **noisy), []
    random = random_policy(env)
    policy = lambda observation: (seen.append(observation.shape), random(observation))[1]
    transitions = record_transitions(env, policy, steps=20, seed=0)
    simulator = find_robot(make("cheetah", backend))
    simulator.reset(seed=1)
    assert set(seen) == {env.observation_space.shape}  # what the policy sees has distractors
    for one in transitions:
        simulator.physics.set_state(one.state0)
        np.testing.assert_array_equal(simulator.step(one.action)[0], one.obs1)
    count = len(transitions)
    env.step(env.action_space.sample())
    assert len(transitions) == count  # it is over


def test_what_a_sample_does_not_name_stays_as_it_is_in_the_simulator():
    target = make("pendulum", "classic", physics="length=1.5,mass=1.2")
    transitions = record_transitions(target, random_policy(target), steps=10, seed=0)
    likelihood = [
        simulator_log_likelihood(make("pendulum", "classic", physics=physics), 0.1)
        for physics in ("length=1.5", "")
    ]
    assert likelihood[0]({"mass": 1.2}, transitions) > likelihood[1]({"mass": 1.2}, transitions) + 1


def test_tempering_leaves_some_samples_a_say():
    """A needle at 3 of N(0, 1): one of 64 samples without; with, 8 of which the best are near it."""
    ensemble = Ensemble.parse("slope:0,1,-20,20;friction:1,0.1,0,2")
    needle = lambda values, _: -1e6 * (values["slope"] - 3) ** 2
    moved = []
    for least in (1, 8, 1000):
        rng = np.random.default_rng(0)
        answer, effective = adapt(ensemble, ["any"], needle, 64, rng, least)
        moved.append((effective, answer["slope"].mean, answer["friction"].std))
    assert moved[0][0] == pytest.approx(1, abs=0.2) and 8 <= moved[1][0] < 10
    assert moved[1][1] > 1.5
    assert moved[0][2] < 0.05 < moved[1][2]  # of friction nothing was said
    assert 8 < moved[2][0] < 64  # never more than half of those that carry the prior


def test_reward_offset_is_nothing_that_observations_can_tell():
    env = make("pendulum", "classic")
    transitions = record_transitions(env, random_policy(env), steps=3, seed=0)
    log_likelihood = simulator_log_likelihood(env, error=0.1)
    robot = {"mass": 1.2}
    assert log_likelihood(robot | {"reward_offset": 5.0}, transitions) == log_likelihood(
        robot, transitions
    )


def test_log_likelihood_by_hand():
    """One step of the true robot explains itself: only the Gaussians' normalisers remain."""
    env = make("pendulum", "classic")
    transitions = record_transitions(env, random_policy(env), steps=4, seed=0)
    scale = 0.1 * np.std([one.obs1 for one in transitions], axis=0)
    expected = -4 * np.sum(np.log(scale * math.sqrt(2 * math.pi)))
    assert simulator_log_likelihood(env, error=0.1)({}, transitions) == pytest.approx(expected)


def test_likelihood_needs_an_error():
    with pytest.raises(ConfigError, match="error must be positive"):
        simulator_log_likelihood(make("pendulum", "classic"), error=0.0)
