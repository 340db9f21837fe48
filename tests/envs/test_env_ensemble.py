import math

import numpy as np
import pytest
from scipy import stats

from envs import ConfigError, Ensemble, TruncatedNormal, Uniform, worst_episodes

EPOPT = TruncatedNormal(6, 1.5, 3, 9)


@pytest.mark.parametrize("one", [EPOPT, TruncatedNormal(0, 3, -9, 9), TruncatedNormal(1, 5, 1, 2)])
def test_draws_follow_scipys_truncated_normal(one):
    ends = (one.low - one.mean) / one.std, (one.high - one.mean) / one.std
    reference = stats.truncnorm(*ends, loc=one.mean, scale=one.std)
    rng = np.random.default_rng(0)
    values = np.array([one.quantile(rng.random()) for _ in range(20_000)])
    assert values.min() >= one.low and values.max() <= one.high
    # Four standard errors of a mean over 20,000 draws.
    assert values.mean() == pytest.approx(reference.mean(), abs=4 * reference.std() / 20_000**0.5)
    assert values.std() == pytest.approx(reference.std(), rel=0.02)
    assert stats.kstest(values, reference.cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    "numbers", [(6, 0, 3, 9), (6, -1, 3, 9), (6, 1, 9, 3), (2, 1, 3, 9), (math.nan, 1, 3, 9)]
)
def test_truncated_normal_is_validated(numbers):
    with pytest.raises(ConfigError):
        TruncatedNormal(*numbers)


@pytest.mark.parametrize("ends", [(1, 1), (2, 1), (0, math.inf), (math.nan, 1)])
def test_uniform_is_validated(ends):
    with pytest.raises(ConfigError, match="low < high"):
        Uniform(*ends)


def test_uniform_draws():
    one = Uniform(0.1, 4.1)
    assert [one.quantile(share) for share in (0.0, 0.25, 1.0)] == pytest.approx([0.1, 1.1, 4.1])
    ensemble = Ensemble.parse("friction:0.1,4.1;torso_mass:6,1.5,3,9")
    share = np.random.default_rng(3).random()
    assert ensemble.draw(np.random.default_rng(3))["friction"] == pytest.approx(0.1 + 4 * share)
    assert ensemble.ends() == (
        {"friction": 0.1, "torso_mass": 3},
        {"friction": 4.1, "torso_mass": 9},
    )


def test_parse_and_print_round_trip():
    text = "torso_mass:6,1.5,3,9;friction:1,0.2,0.5,1.5;slope:-0.1,5"
    ensemble = Ensemble.parse(text)
    assert str(ensemble) == text
    assert ensemble["slope"] == Uniform(-0.1, 5)
    assert ensemble["friction"] == TruncatedNormal(1, 0.2, 0.5, 1.5)
    third = Ensemble({"slope": TruncatedNormal(1 / 3, 1e-7, 0, 1)})
    assert dict(Ensemble.parse(str(third))) == dict(third)
    assert len(Ensemble.parse("")) == 0 and str(Ensemble.parse("")) == ""


def test_draw_is_one_uniform_number_for_each_parameter():
    ensemble = Ensemble.parse("torso_mass:6,1.5,3,9;friction:1,0.2,0.5,1.5")
    robot = ensemble.draw(np.random.default_rng(3))
    first, second = np.random.default_rng(3).random(2)
    reference = stats.truncnorm(-2, 2, loc=6, scale=1.5).ppf(first)
    assert robot["torso_mass"] == pytest.approx(reference)
    reference = stats.truncnorm(-2.5, 2.5, loc=1, scale=0.2).ppf(second)
    assert robot["friction"] == pytest.approx(reference)
    assert ensemble.ends() == (
        {"torso_mass": 3, "friction": 0.5},
        {"torso_mass": 9, "friction": 1.5},
    )


def test_worst_episodes():
    returns = np.array([5.0, -1.0, 3.0, 3.0, 9.0])
    # 0.4 of 5 episodes is two: the returns -1 and the first 3.
    assert worst_episodes(returns, 0.4).tolist() == [1, 2]
    assert worst_episodes(returns, 0.01).tolist() == [1]
    assert worst_episodes(returns, 1.0).tolist() == [1, 2, 3, 0, 4]
    assert len(worst_episodes(np.arange(100.0), 0.29)) == 29
    assert len(worst_episodes(np.arange(19.0), 0.1)) == 1


@pytest.mark.parametrize(
    ("returns", "epsilon"), [([], 0.1), ([1.0], 0), ([1.0], 1.1), ([math.nan], 0.1), ([[1.0]], 1)]
)
def test_worst_episodes_rejects(returns, epsilon):
    with pytest.raises(ConfigError):
        worst_episodes(np.array(returns), epsilon)
