"""The report's numbers against arithmetic by hand and against rliable itself."""

from pathlib import Path

import numpy as np
import pytest

from baselines_tf2.report import statistics
from baselines_tf2.report.runs import Group, Run


def run(evaluations=None, metrics=(), seed=0):
    """evaluations: step -> returns, or step -> [(return, mass)]."""
    config = {"exp": "x", "backend": "b", "seed": seed, "settings": {}}
    episodes = {}
    for step, returns in (evaluations or {}).items():
        pairs = [r if isinstance(r, tuple) else (r, 6.0) for r in returns]
        episodes[step] = [{"return": r, "physics/torso_mass": mass} for r, mass in pairs]
    return Run(Path("x"), config, list(metrics), episodes, False)


def group(*runs):
    return Group(0, "x", list(runs))


def test_the_interquartile_mean_leaves_out_a_quarter_at_either_end():
    # Of 8 sorted seeds 0 0 1 2 3 4 90 99 the middle half is 1 2 3 4.
    scores = np.array([[99.0], [0], [1], [90], [2], [0], [3], [4]])
    assert statistics.iqm(scores) == [2.5]


def test_of_fewer_than_four_seeds_it_is_the_mean():
    assert statistics.iqm(np.array([[1.0, 0.0], [2.0, 0.0], [9.0, 3.0]])).tolist() == [4.0, 1.0]


@pytest.mark.parametrize("seeds", [1, 2, 3, 4, 5, 7, 8, 10])
def test_it_is_rliables(seeds):
    metrics = pytest.importorskip("rliable.metrics")
    scores = np.random.default_rng(seeds).normal(size=(seeds, 6))
    theirs = [metrics.aggregate_iqm(column[:, None]) for column in scores.T]
    np.testing.assert_allclose(statistics.iqm(scores), theirs)


def test_the_interval_of_few_seeds_is_none():
    for seeds in (1, 4):
        assert statistics.interval(statistics.iqm, np.ones((seeds, 4)), resamples=10) is None


def test_the_interval_is_near_the_normal_one_for_many_seeds():
    # The IQM of n normal draws has a standard deviation of about 1.09 / sqrt(n).
    scores = np.random.default_rng(0).normal(size=(400, 1))
    low, high = statistics.interval(statistics.iqm, scores, resamples=1000)[:, 0]
    assert (high - low) / 2 == pytest.approx(1.96 * 1.09 / 20, rel=0.2)
    assert low < statistics.iqm(scores)[0] < high


def test_the_interval_is_rliables_of_one_sample_and_of_two():
    library = pytest.importorskip("rliable.library")
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(7, 1)), rng.normal(size=(6, 1))

    def difference(x, y, axis=0):
        return statistics.iqm(x, axis) - statistics.iqm(y, axis)

    for statistic, samples in ((statistics.iqm, (x,)), (difference, (x, y))):
        own = statistics.interval(statistic, *samples, resamples=20_000)
        given = samples if len(samples) > 1 else samples[0]
        _, theirs = library.get_interval_estimates({"": given}, statistic, reps=1000)
        np.testing.assert_allclose(own, theirs[""], atol=0.1)


def test_an_interval_is_the_same_whatever_else_is_compared_and_numpys_generator_left_alone():
    scores = np.random.default_rng(0).normal(size=(5, 3))
    samples = {i: (scores[:, i],) for i in range(3)}
    both = statistics.estimates(statistics.iqm, samples, resamples=50)
    np.random.seed(7)
    alone = statistics.estimates(statistics.iqm, {2: samples[2]}, resamples=50)
    after = np.random.random()
    np.random.seed(7)
    assert alone[2] == both[2] and np.random.random() == after


def test_the_final_return_is_the_mean_of_the_last_ten_evaluations():
    # Means 0, 1, ..., 12: the last ten are 3, ..., 12.
    long, short = run({i: [i - 1.0, i + 1.0] for i in range(13)}), run({10: [1.0], 20: [4.0]})
    assert statistics.final_returns(group(long, short))[0].tolist() == [7.5, 2.5]


def test_a_group_of_few_has_its_range_and_no_interval():
    scores, middle = statistics.final_returns(group(run({10: [1.0, 2.0]}), run({10: [4.5]})))
    assert scores.tolist() == [1.5, 4.5] and middle == (3.0, 1.5, 4.5, True)
    assert middle.interval is None and str(middle) == "3 (1.5 to 4.5)"
    scores, middle = statistics.final_returns(group(run({10: [1.0, 2.0]})))
    assert scores.tolist() == [1.5] and str(middle) == "1.5"


def test_a_group_of_five_has_an_interval():
    # Of five the middle three count: 1, 5, 9, and of resampled ones all 1 or all 9 more often than
    # one time in forty, since two of the five are 1 and two are 9.
    five = group(*(run({10: [x]}) for x in (1.0, 1.0, 5.0, 9.0, 9.0)))
    _, middle = statistics.final_returns(five)
    assert middle == (5.0, 1.0, 9.0, False) and str(middle) == "5 [1, 9]"


def test_a_curve_is_the_interquartile_mean_at_each_point():
    # Of five seeds the middle three count: (1 + 2 + 6) / 3 and (0 + 3 + 9) / 3.
    seeds = np.array([[0.0, -50.0], [1.0, 0.0], [2.0, 3.0], [6.0, 9.0], [100.0, 9.5]])
    curve = statistics.iqm_curve(np.array([10.0, 20.0]), seeds)
    np.testing.assert_allclose(curve.middle, [3, 4], rtol=1e-15)
    assert (curve.ends[0] <= curve.middle).all() and (curve.middle <= curve.ends[1]).all()
    assert statistics.iqm_curve(np.array([10.0, 20.0]), seeds[:4]).ends is None


def test_curves_are_drawn_where_all_seeds_were_evaluated():
    whole = run({10: [0.0], 20: [1.0], 25: [7.0], 30: [2.0]})
    short = run({10: [4.0], 20: [5.0]})
    unevaluated = run(metrics=[{"step": 5}])
    curve = statistics.learning_curve(group(whole, short, unevaluated))
    assert curve.x.tolist() == [10, 20]
    assert curve.middle.tolist() == [2.0, 3.0] and curve.ends is None
    curve = statistics.learning_curve(group(whole, whole, whole, short, short, short))
    assert curve.middle.tolist() == [2.0, 3.0]
    assert curve.ends.tolist() == [[0.0, 1.0], [4.0, 5.0]]


def test_seeds_without_a_common_step_have_no_curve():
    curve = statistics.learning_curve(group(run({10: [0.0]}), run({11: [4.0]})))
    assert curve.x.size == curve.middle.size == 0 and curve.ends is None
    curve = statistics.percentile_curve(group(run({10: [0.0]}), run({11: [4.0]})))
    assert curve.x.size == curve.middle.size == 0 and curve.ends.shape == (2, 0)


def test_percentiles_are_of_all_seeds_episodes():
    # Of 0, 1, ..., 10 the 10th, 50th and 90th percentile are 1, 5 and 9.
    seeds = run({10: range(6), 20: range(6)}), run({10: range(6, 11), 20: range(6, 11)})
    assert statistics.last_percentiles(group(*seeds)).tolist() == [1, 5, 9]
    curve = statistics.percentile_curve(group(*seeds))
    assert curve.x.tolist() == [10, 20] and curve.middle.tolist() == [5, 5]
    assert curve.ends.tolist() == [[1, 1], [9, 9]]


def test_the_return_by_mass_is_the_last_evaluations():
    first = run({10: [(9.0, 3.0)], 20: [(1.0, 3.0), (3.0, 3.0), (5.0, 6.0)]})
    second = run({20: [(4.0, 3.0), (7.0, 6.0), (8.0, 9.0)]})
    both = group(first, second)
    assert statistics.robot_columns(both) == ["physics/torso_mass"]
    curve = statistics.robot_curve(both, "physics/torso_mass")
    assert curve.x.tolist() == [3.0, 6.0]  # 9 kg was the second one's alone
    assert curve.middle.tolist() == [3.0, 6.0]  # (2 + 4) / 2 and (5 + 7) / 2


def test_a_mass_that_does_not_vary_is_no_column():
    assert statistics.robot_columns(group(run({10: [(9.0, 3.0), (8.0, 3.0)]}))) == []


def test_metrics_have_the_median_and_the_ends_of_the_seeds():
    seeds = [run(metrics=[{"step": 1, "a": x}, {"step": 2}]) for x in (1.0, 2.0, 9.0)]
    curve = statistics.metric_curve(group(*seeds), "a")
    assert [part.tolist() for part in curve] == [[1], [2.0], [[1.0], [9.0]]]
    assert statistics.metric_curve(group(*seeds), "b").x.size == 0


def test_the_speed_is_that_of_rows_in_which_something_was_trained():
    name = "time/steps_per_second"
    random = [{"step": i, name: 9000.0} for i in range(5)]
    trained = [{"step": 5 + i, name: x, "train/loss": 1.0} for i, x in enumerate((10, 30, 20))]
    assert statistics.median_speed(group(run(metrics=random + trained))) == 20
    assert statistics.median_speed(group(run(metrics=random))) is None
    assert statistics.median_speed(group(run(metrics=[{"step": 1}]))) is None
