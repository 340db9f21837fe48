import numpy as np
import pytest

from baselines_tf2.common.noise import (
    NormalNoise,
    OrnsteinUhlenbeckNoise,
    action_distance,
    adapted_stddev,
    parse_noise,
    perturb,
)
from envs import ConfigError


def test_normal_noise_has_its_stddev():
    draws = np.stack(
        [NormalNoise(0.3).sample(np.random.default_rng(i), (2, 3)) for i in range(900)]
    )
    assert draws.shape == (900, 2, 3)
    assert draws.std() == pytest.approx(0.3, rel=0.05)


def test_ornstein_uhlenbeck_is_its_recursion():
    noise, rng, twin = OrnsteinUhlenbeckNoise(0.2), *map(np.random.default_rng, (5, 5))
    x = np.zeros((1, 2))
    for _ in range(3):
        x = x - 0.15 * x * 1e-2 + 0.2 * 0.1 * twin.normal(size=(1, 2))
        np.testing.assert_allclose(noise.sample(rng, (1, 2)), x, rtol=1e-12)


def test_ornstein_uhlenbeck_starts_again_where_an_episode_ended():
    noise, rng = OrnsteinUhlenbeckNoise(0.2), np.random.default_rng(0)
    noise.reset(np.array([True, True]))  # before any draw there is nothing to forget
    for _ in range(500):
        running = noise.sample(rng, (2, 1))
    noise.reset(np.array([True, False]))
    after = noise.sample(rng, (2, 1))
    assert abs(after[0, 0]) < 0.2 * 0.1 * 5  # a single step from 0
    assert abs(after[1, 0] - running[1, 0]) < 0.2 * 0.1 * 5


def test_parameter_noise_adapts_by_1_01():
    assert adapted_stddev(0.5, 0.3, desired=0.2) == pytest.approx(0.5 / 1.01)
    assert adapted_stddev(0.5, 0.1, desired=0.2) == pytest.approx(0.5 * 1.01)
    assert adapted_stddev(0.5, 0.2, desired=0.2) == pytest.approx(0.5 * 1.01)  # not too far


def test_only_what_may_be_perturbed_is():
    weights = [np.zeros((50, 50), np.float32), np.ones(50, np.float32)]
    moved, kept = perturb(np.random.default_rng(0), 0.5, weights, [True, False])
    assert moved.std() == pytest.approx(0.5, rel=0.05) and moved.dtype == np.float32
    np.testing.assert_array_equal(kept, weights[1])
    np.testing.assert_array_equal(weights[0], 0)


def test_distance_is_the_root_mean_square():
    assert action_distance(np.array([[0.0, 0.0]]), np.array([[3.0, 1.0]])) == pytest.approx(5**0.5)


def test_a_comma_list_gives_all_its_noises():
    actions, param_stddev = parse_noise("adaptive-param_0.2, normal_0.1,ou_0.3")
    assert [(type(n), n.stddev) for n in actions] == [
        (NormalNoise, 0.1),
        (OrnsteinUhlenbeckNoise, 0.3),
    ]
    assert param_stddev == 0.2
    assert parse_noise("none") == ([], None)


@pytest.mark.parametrize(
    "text, message",
    [
        ("normall_0.1", "did you mean 'normal'"),
        ("normal", "needs a standard deviation"),
        ("ou_x", "needs a standard deviation"),
        ("normal_-1", "needs a standard deviation"),
        ("normal_nan", "needs a standard deviation"),
        ("normal_inf", "needs a standard deviation"),
        ("adaptive-param_0", "above 0"),
        ("adaptive-param_0.1,adaptive-param_0.2", "write one"),
        ("", "unknown noise type"),
    ],
)
def test_wrong_noise_is_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        parse_noise(text)
