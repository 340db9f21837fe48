import math

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
    mass_parameter,
    record_transitions,
    simulator_log_likelihood,
)


def make(task, backend, **fields):
    return make_env(EnvSpec(task, backend, **fields), training=False)


def random_policy(env):
    env.action_space.seed(0)
    return lambda observation: env.action_space.sample()


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


def test_flat_likelihood_leaves_the_prior():
    ensemble = Ensemble.parse("slope:0,1,-20,20;friction:1,0.1,0,2")
    moved, _ = adapt(ensemble, ["any"], lambda *_: 0.0, 20_000, rng=np.random.default_rng(0))
    for name, one in ensemble.items():
        assert moved[name].mean == pytest.approx(one.mean, abs=0.03 * one.std)
        assert moved[name].std == pytest.approx(one.std, rel=0.03)


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
    ]:
        with pytest.raises(ConfigError):
            adapt(Ensemble.parse(ensemble), transitions, lambda *_, x=likelihood: x, 10, rng)


@pytest.mark.parametrize(
    ("task", "backend", "mass", "error"),
    [
        ("pendulum", "classic", 1.3, 0.03),
        ("cartpole", "classic", 0.13, 0.003),  # one step hardly feels so light a pole
        ("cheetah", "mujoco", 7.7, 0.03),
        ("hopper", "pybullet", 4.5, 0.03),
    ],
)
def test_rounds_of_adaptation_recover_the_targets_mass(task, backend, mass, error):
    name = mass_parameter(task)
    target = make(task, backend, physics=f"{name}={mass}")
    simulator = make(task, backend)
    ensemble = Ensemble.parse(default_ensemble(task, backend))
    rng, before, policy = np.random.default_rng(0), ensemble[name].std, random_policy(target)
    log_likelihood = simulator_log_likelihood(simulator, error)
    for seed in range(3):
        transitions = record_transitions(target, policy, steps=25, seed=seed)
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
