"""What a study's numbers say: statistics by hand and as rliable has them, tables, blocks."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from rliable import metrics

from baselines_tf2.report import figures
from baselines_tf2.report.statistics import Estimate, estimates, iqm
from baselines_tf2.sweeps.study import words
from baselines_tf2.sweeps.study_page import Picture, facts, fill, write_page
from baselines_tf2.sweeps.study_results import (
    FIGURES,
    comparison,
    improvement,
    outcomes,
    results,
    scores,
    summary,
    verdict,
)
from baselines_tf2.sweeps.study_store import KEY, Store
from envs.errors import ConfigError
from tests.baselines_tf2.sweeps.test_study import TEXT, study


@pytest.fixture(autouse=True, scope="module")
def quick():
    """Coarse pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "LOOK", [*figures.LOOK, {"savefig.dpi": 30}])
        yield


@pytest.fixture
def store(tmp_path):
    """Part first: 'slow' is 100 above 'plain' with noise a, as good with noise b."""
    store = Store(study(tmp_path, TEXT.replace('seeds = "0-1"', 'seeds = "0-4"')))
    part = store.study.parts["first"]
    for arm, level in part.cells():
        for seed in part.seeds:
            value = 1000 + seed + 100 * (arm == "slow" and "noise=a" in level)
            row = {"mean": str(value), "area": "1", "status": "finished", "seconds": "1800"}
            key = ("first", arm, level, seed)
            store.rows[key] = dict(zip(KEY, map(str, key), strict=True)) | row | {"commit": "abc"}
            points = np.array([1.0, 2.0])
            store.curves[key] = {"return": (points, points * value)}
    return store


def shown(table, part, store):
    return table(part, store, "mean", results(part, store, "mean"))


def test_the_probability_of_improvement_is_rliables():
    rng = np.random.default_rng(0)
    x, y = rng.integers(5, size=(7, 3)), rng.integers(5, size=(4, 3))
    one_by_one = [metrics.probability_of_improvement(x[:, [i]], y[:, [i]]) for i in range(3)]
    np.testing.assert_allclose(improvement(x, y), one_by_one)
    # 2 beats 1 and ties with 2; 3 beats both: (1 + 0.5 + 1 + 1) / 4.
    assert improvement(np.array([[2], [3]]), np.array([[1], [2]])) == [0.875]


def test_estimates_are_those_of_each_alone_with_intervals_around():
    rng = np.random.default_rng(0)
    samples = {i: (rng.normal(size=n),) for i, n in enumerate((8, 5, 8, 3, 1))}
    found = estimates(iqm, samples)
    for i, (x,) in samples.items():
        assert found[i].middle == pytest.approx(iqm(x))
        assert i > 2 or found[i].low < found[i].middle < found[i].high
        assert i < 3 or np.isnan(found[i].low)  # three are no 95%
    same = {"a": (rng.normal(size=5),), "b": samples[1], "c": samples[1]}
    assert len({estimates(iqm, same)[name] for name in "bc"}) == 1  # wherever they stand
    again = estimates(iqm, samples)
    assert [again[i] for i in range(3)] == [found[i] for i in range(3)]  # resampled the same way


def test_results_are_compared_with_the_baseline_at_the_same_level(store):
    part = store.study.parts["first"]
    found = {(arm, level): one for (level, arm), one in results(part, store, "mean").items()}
    assert [words(level) for level in part.levels] == [
        "noise=a, batch=32", "noise=a, batch=64", "noise=b, batch=32", "noise=b, batch=64"
    ]  # fmt: skip
    assert len(found) == 8  # the baseline has no batch, and is at both
    slow = found["slow", "noise=a, batch=64"]
    assert slow.difference.middle == 100 and slow.improvement.middle == 1
    assert verdict(slow.difference, 1) == "better" and verdict(slow.difference, -1) == "worse"
    equal = found["slow", "noise=b, batch=64"]
    assert equal.difference.middle == 0 and equal.improvement.middle == 0.5
    assert verdict(equal.difference, 1) == "none"
    assert found["plain", "noise=b, batch=64"].difference is None


@pytest.mark.parametrize(
    "gain, sign, text",
    [
        (Estimate(1, 0, 2), 1, "none"), (Estimate(1, 0.5, 2), 1, "better"),
        (Estimate(-1, -2, -0.1), 1, "worse"), (Estimate(-1, -2, -0.1), -1, "better"),
        (Estimate(-1, -2, -0.1), 0, "lower"), (Estimate(9, np.nan, np.nan), 1, "too few runs"),
    ],
)  # fmt: skip
def test_a_difference_whose_interval_holds_0_is_none(gain, sign, text):
    assert verdict(gain, sign) == text


def test_a_run_that_failed_before_it_had_a_value_has_the_worst(store):
    part = store.study.parts["first"]
    key = ("first", "slow", "noise=a, batch=32", 2)
    store.rows[key] |= {"mean": "nan", "status": "failed: diverged"}
    found = scores(part, store, "mean")["noise=a, batch=32", "slow"]
    assert sorted(found) == [1000, 1100, 1101, 1103, 1104]
    assert "| 5 (1 failed) |" in shown(comparison, part, store)
    assert not scores(part, store, "model_loss")  # nobody has one: nothing is made up
    assert facts(store).startswith("Runs: 30 (1 failed) of 31; 15.0 hours")
    store.rows[key] |= {"status": "finished", "seconds": "nan"}
    assert len(scores(part, store, "mean")["noise=a, batch=32", "slow"]) == 4  # it has none
    assert "| noise=a, batch=32 | slow | 1,102 (4 of 5) | 1 |" in shown(outcomes, part, store)
    assert "| slow | 5, 4 counted | 1,102 (1,100 to 1,104) |" in shown(comparison, part, store)
    judged = "rrls2_corrected_worst"
    store.rows[key][judged], store.rows[("first", "slow", "noise=a, batch=32", 1)][judged] = (
        "nan",
        "7",
    )
    assert sorted(scores(part, store, judged)["noise=a, batch=32", "slow"]) == [7, 7]  # no others
    assert facts(store).startswith("Runs: 30 of 31; 14.5 hours")


def test_few_runs_have_a_range_and_no_verdict(store):
    part = store.study.parts["first"]
    for key in [key for key in store.rows if key[3] > 1]:
        del store.rows[key]
    table = shown(comparison, part, store)
    assert "| IQM [95% interval] or (lowest to highest) |" in table.splitlines()[0]
    assert "| slow | 2 | 1,100 (1,100 to 1,101) | – | – | too few runs |" in table
    assert Picture(store, part, "outcome", "mean").draw(store.study.path.parent)


def test_arms_without_a_baseline_are_not_compared(store):
    part = replace(store.study.parts["first"], baseline="")
    lines = shown(comparison, part, store).splitlines()
    assert lines[0] == "| level | arm | runs | IQM [95% interval] |"
    assert lines[2].count("|") == 5 and lines[2].startswith("| noise=a, batch=32 | slow | 5 | 1,1")


def test_a_figure_of_percentiles_needs_them(store):
    part = store.study.parts["first"]
    picture = Picture(store, part, "percentiles", "mean")
    assert not picture.draw(store.study.path.parent)
    masses = np.array([1.0, 2.0])
    for curves in store.curves.values():
        for name in ("", "_p10", "_p50", "_p90"):
            curves[f"torso_mass{name}"] = (masses, masses)
    assert picture.draw(store.study.path.parent)


def test_tables(store):
    part = store.study.parts["first"]
    lines = shown(comparison, part, store).splitlines()
    assert lines[0] == (
        "| level | arm | runs | IQM [95% interval] | minus plain | P(better) | difference |"
    )
    row = lines[2].split(" | ")
    assert row[:3] == ["| noise=a, batch=32", "slow", "5"] and row[3].startswith("1,102 [1,1")
    assert row[4].startswith("100 [") and row[5:] == ["1 [1, 1]", "better |"]
    assert shown(summary, part, store).splitlines()[0].count("noise=") == 4
    assert "| noise=b, batch=32 | slow | 1,002 | 1 |" in shown(outcomes, part, store)


def test_blocks_are_filled_and_say_what_they_cannot_be(store):
    def filled(words, inside="\nold\n"):
        text = f"Before <!-- study:try {words} -->{inside}<!-- end --> after"
        return fill(text, {"try": store}, "studies/")

    part = store.study.parts["first"]
    text, pictures = filled("part=first table=summary")
    table = shown(summary, part, store)
    assert text == (
        f"Before <!-- study:try part=first table=summary -->\n{table}\n<!-- end --> after"
    )
    assert fill(text, {"try": store}, "studies/")[0] == text and not pictures
    text, _ = filled('part=first arm=slow level="noise=a, batch=64"', "")
    assert "-->1,102 [1,1" in text
    text, (picture,) = filled("part=first figure=outcome outcome=area")
    assert "\n![First](studies/try_first_outcome_area.png)\n" in text
    assert picture == Picture(store, part, "outcome", "area")
    text, _ = filled("part=first table=comparison baseline=slow")
    assert "| minus slow |" in text and "] | -100 [" in text
    text, _ = filled('part=first arm=slow level="noise=a, batch=64" baseline=plain', "")
    assert "-->100 [" in text and "], better<" in text
    key = ("first", "slow", "noise=a, batch=64", 3)
    del store.rows[key]
    note = "*First: not finished: 4 to 5 of 5 seeds.*\n"
    assert f"-->\n{note}\n| level |" in filled("part=first table=comparison")[0]
    assert f"-->\n{note}\n![First]" in filled("part=first figure=outcome")[0]
    left = "-->1,102 (1,100 to 1,104) (not finished: 4 of 5 seeds)<"
    assert left in filled('part=first arm=slow level="noise=a, batch=64"', "")[0]
    text, pictures = filled("part=second figure=outcome")
    assert "-->\n*Second: not run yet.*\n<" in text and not pictures
    assert "-->not run yet<" in filled("part=second arm=slow", "")[0]
    for words_, message in {
        "part=frist table=summary": "did you mean 'first'", "part=first table=sum": "unknown table",
        "part=first arm=slow": "unknown arm and level",
        "part=first table=comparison baseline=slo": "unknown baseline 'slo'",
        "part=first table=summary baseline=slow": "leave it out", "part=first tabel=summary": "unknown key",
    }.items():  # fmt: skip
        with pytest.raises(ConfigError, match=f"study:try.*{message}"):
            filled(words_)


def test_a_picture_keeps_the_digest_of_its_numbers(store, tmp_path):
    picture = Picture(store, store.study.parts["first"], "curves", "mean")
    assert picture.draw(tmp_path)
    assert Image.open(tmp_path / picture.name).text["Description"] == picture.digest
    old = picture.digest
    store.rows["first", "plain", "noise=a", 0]["mean"] = "7"
    assert picture.digest != old
    assert not Picture(store, store.study.parts["first"], "masses", "mean").draw(tmp_path)


def test_curves_of_five_seeds_have_bands(store):
    figure = FIGURES["curves"](store.study.parts["first"], store, "mean")
    for axis in figure.axes:
        assert len(axis.collections) == len(axis.lines) == 2  # an arm each
        assert all(len(band.get_paths()[0].vertices) > 4 for band in axis.collections)


@pytest.mark.parametrize("kind", ["outcome", "curves"])
def test_a_legend_names_the_arms_that_were_run(store, kind):
    for key in [key for key in store.rows if key[1] == "slow"]:
        del store.rows[key]
    (legend,) = FIGURES[kind](store.study.parts["first"], store, "mean").legends
    assert [text.get_text() for text in legend.get_texts()] == ["plain"]


def test_an_arms_line_does_not_cross_a_level_that_was_not_run(store):
    for key in [key for key in store.rows if key[1] == "slow" and "noise=a" in key[2]]:
        del store.rows[key]
    figure = FIGURES["outcome"](store.study.parts["first"], store, "mean")
    for axis in figure.axes:
        lines = [line for line in axis.get_lines() if line.get_marker() == "D"]
        gaps = sorted(tuple(np.isnan(line.get_ydata())) for line in lines)
        assert gaps == [(False, False), (True, False)]


def test_the_page_has_every_part_that_was_run(store, tmp_path):
    store.rows["first", "gone", "", 0] = {"status": "finished"}
    told = write_page(store, tmp_path / "page")
    page = (tmp_path / "page" / "study.md").read_text()
    assert "Runs: 30 of 31; 15.0 hours of runs, a core each; commits: abc" in page
    assert "Runs: 30" in told
    assert "and 1 rows of runs that the study no longer has" in told
    assert "## First" in page and "## Second" not in page
    assert (tmp_path / "page" / "try_first_outcome_mean.png").exists()
