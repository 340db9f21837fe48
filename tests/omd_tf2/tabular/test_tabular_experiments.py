"""The analyses as experiments: the published figure, what a run writes, and mistaken settings."""

import csv
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.runs.checkpoint import Checkpoints
from baselines_tf2.runs.experiment import PRESETS, make_settings
from envs.errors import ConfigError
from omd_tf2.tabular import EXPERIMENTS, experiments
from omd_tf2.tabular.evaluate import evaluate
from omd_tf2.tabular.experiments import Settings, Training, make_problem
from omd_tf2.tabular.report import ANALYSES, COLUMNS, mean_table, write_results
from omd_tf2.tabular.update import Residuals

ANALYSIS = {analysis.name: analysis for analysis in ANALYSES}
NORM_BOUNDS = ANALYSIS["tabular_misspecification"].levels
QUICK = ("num_seeds=2", "train.num_timesteps=5")
# The paper's figure of J against the norm bound, read off by eye.
MEMBERS = [1, 2, 3, 4, 6, 9, 13, 16]
BOUNDS = [0.32, 0.63, 0.95, 1.26, 1.89, 2.84, 4.11, 5.05]
MLE = [-0.82, -0.72, -0.48, 0.19, 0.67, 0.92, 1.00, 1.01]
OMD = [-0.59, -0.33, 0.13, 0.59, 1.00, 1.02, 1.02, 1.03]


class Steps:
    def __init__(self, stop_at=None):
        self.seen, self._stop_at = [], stop_at

    def update(self, step, episode_return):
        assert episode_return is None
        self.seen.append(step)
        if step == self._stop_at:
            raise KeyboardInterrupt


@pytest.fixture(scope="module", autouse=True)
def three_rows():
    """Of the learning curve: 5 steps are logged after 2, 4 and 5."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiments, "NUM_CHUNKS", 3)
        yield


def run(name, folder, *overrides, seed=0, progress=None):
    folder.mkdir(exist_ok=True)
    settings = make_settings(EXPERIMENTS[name], "default", None, [*QUICK, *overrides])
    summary = EXPERIMENTS[name].prepare(settings, seed)(
        folder, progress or Steps(), Checkpoints(folder)
    )
    with open(folder / "results.csv", newline="") as file:
        return summary, list(csv.DictReader(file))


def test_the_leaf_projection_reproduces_the_published_figure():
    np.testing.assert_allclose(NORM_BOUNDS[MEMBERS], BOUNDS, atol=0.006)
    analysis = replace(ANALYSIS["tabular_misspecification"], levels=NORM_BOUNDS[MEMBERS])
    settings = Settings(projection="leaf")
    problem = make_problem(analysis, settings)
    *_, (step, evaluation, residuals) = Training(problem, 10_000, range(10))
    assert step == 10_000
    assert max(residuals.inner, evaluation.residual) <= 1e-13 and residuals.adjoint <= 1e-10
    means = evaluation.J.reshape(2, len(BOUNDS), 10).mean(2)
    np.testing.assert_allclose(means, [MLE, OMD], atol=0.03)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A short run of every analysis on seeds 7 and 8: {name: (folder, progress, summary, rows)}."""
    runs = {}
    tf.config.run_functions_eagerly(True)  # cheaper than to compile for 5 steps
    for name in EXPERIMENTS:
        folder, progress = tmp_path_factory.mktemp(name), Steps()
        runs[name] = folder, progress, *run(name, folder, seed=7, progress=progress)
    tf.config.run_functions_eagerly(False)
    return runs


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_run_writes_its_numbers_figure_and_table(name, finished):
    folder, progress, summary, rows = finished[name]
    levels = ANALYSIS[name].levels
    assert tuple(rows[0]) == COLUMNS and len(rows) == 2 * len(levels) * 2
    assert {row["seed"] for row in rows} == {"7", "8"}
    assert progress.seen == [2, 4, 5]
    assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert summary["figure"] == f"{name}.png"
    assert summary["numbers"].startswith("results.csv, ")
    assert len(summary["means"].splitlines()) == 2 + len(levels)
    assert all(np.isfinite([float(row["J"]), float(row["q_error"])]).all() for row in rows)
    header, *log = (folder / "metrics.csv").read_text().splitlines()
    assert len(log) == 3 and "solver/inner_residual" in header
    assert all(f"{variant}/J_mean" in header for variant in ANALYSIS[name].variants)


@pytest.mark.parametrize(
    "name, empty",
    [
        ("tabular_misspecification", {"noise_std", "solver", "bound"}),
        ("tabular_bounds", {"noise_std", "solver"}),
        ("tabular_ift", {"projection", "norm_bound", "bound"}),
    ],
)
def test_columns_that_do_not_apply_are_empty_and_others_full(name, empty, finished):
    *_, rows = finished[name]
    for column in COLUMNS:
        assert {bool(row[column]) for row in rows} == {column not in empty}, column


def test_bounds_bound_the_errors(finished):
    *_, rows = finished["tabular_bounds"]
    assert all(float(row["q_error"]) <= float(row["bound"]) for row in rows)
    at_zero = [float(row["bound"]) for row in rows if float(row["norm_bound"]) == 0]
    # R_hat = 0 and P_hat = 1/2: 10 * .5 + 45 * .98 / 2 for MLE; 10 * max |R| for OMD
    np.testing.assert_allclose(at_zero, [27.05, 27.05, 5, 5], rtol=1e-12)


def test_a_seed_is_the_same_in_whatever_company(finished, tmp_path, eagerly):
    *_, rows = finished["tabular_ift"]
    _, others = run("tabular_ift", tmp_path, seed=8)
    shared = [[row for row in table if row["seed"] == "8"] for table in (rows, others)]
    for row, other in zip(*shared, strict=True):
        assert float(row["J"]) == pytest.approx(float(other["J"]), rel=1e-6)
    by_seed = [[row["J"] for row in rows if row["seed"] == seed] for seed in ("7", "8")]
    assert by_seed[0] != by_seed[1]


def test_draws_are_uniform_per_seed_and_shared_by_all_settings():
    problem = make_problem(ANALYSIS["tabular_ift"], Settings(num_seeds=2))
    draws, again = (Training(problem, 1, range(3, 5)) for _ in range(2))
    for leaf, other in zip(draws.state.model, again.state.model, strict=True):
        np.testing.assert_array_equal(leaf, other)
        assert np.all((leaf >= 0) & (leaf < 1))
        np.testing.assert_array_equal(leaf[..., :2], leaf[..., 2:4])
        assert np.all(leaf[..., 0] != leaf[..., 1])
    noise = draws.noise(4).numpy()
    assert noise.shape == (4, 2, 2, 2) and len(np.unique(noise)) == noise.size
    np.testing.assert_array_equal(noise, np.concatenate([again.noise(1), again.noise(3)]))


@pytest.fixture
def yields(monkeypatch):
    """Replaces the training by one that yields the same evaluation twice, changed as told."""

    def replace_training(evaluation=None, residuals=None):
        class Fixed(Training):
            def __iter__(self):
                zero = np.zeros(())
                result = evaluate(self._problem, self.state.model, self.noise(1)[0])
                result = tf.nest.map_structure(lambda x: x.numpy(), result)
                self.evaluation = result._replace(**evaluation or {})
                for self.step in (10, 20):
                    changed = Residuals(zero, zero)._replace(**residuals or {})
                    yield self.step, self.evaluation, changed

        monkeypatch.setattr(experiments, "Training", Fixed)

    return replace_training


def test_a_run_can_be_interrupted_between_chunks(tmp_path, yields):
    yields()
    with pytest.raises(KeyboardInterrupt):
        run("tabular_bounds", tmp_path, progress=Steps(stop_at=10))
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 2
    assert not (tmp_path / "results.csv").exists()


@pytest.mark.parametrize(
    "evaluation, residuals, message",
    [
        ({"loss": np.array([1.0, np.nan])}, {}, "loss of an instance is not finite at step 10"),
        ({"residual": 1e-3}, {}, "inner problem not solved at step 10: residual 0.001"),
        ({}, {"inner": np.nan}, "inner problem not solved at step 10: residual nan"),
        ({}, {"adjoint": 0.5}, "adjoint not solved at step 10: residual 0.5"),
    ],
)
def test_what_is_not_finite_or_not_solved_stops(evaluation, residuals, message, tmp_path, yields):
    yields(evaluation, residuals)
    with pytest.raises(TrainingError, match=message):
        run("tabular_ift", tmp_path)


def test_presets_and_overrides():
    for experiment in EXPERIMENTS.values():
        bounded = experiment.name != "tabular_ift"
        default, original = ("joint", "leaf") if bounded else ("none", "none")
        assert make_settings(experiment, "default", None, []).projection == default
        assert make_settings(experiment, "original", None, []).projection == original
        reaches = [make_settings(experiment, p, None, []).noise_reaches for p in PRESETS]
        assert reaches == (["none"] * 2 if bounded else ["all", "objective"])
        settings = make_settings(experiment, "default", "tabular", ["train.num_timesteps=1e3"])
        assert settings.train.num_timesteps == 1000


@pytest.mark.parametrize(
    "name, override, message",
    [
        ("tabular_ift", "projection=leaf", "projection of tabular_ift must be none"),
        ("tabular_ift", "noise_reaches=none", "noise_reaches of tabular_ift must be all or obj"),
        ("tabular_bounds", "projection=none", "projection of tabular_bounds must be joint or leaf"),
        ("tabular_bounds", "noise_reaches=all", "noise_reaches of tabular_bounds must be none"),
    ],
)
def test_what_does_not_apply_to_an_analysis_is_refused(name, override, message):
    settings = make_settings(EXPERIMENTS[name], "default", None, [override])
    with pytest.raises(ConfigError, match=message):
        EXPERIMENTS[name].prepare(settings, 0)


@pytest.mark.parametrize(
    "override, message",
    [
        ("projection=leave", "unknown projection 'leave'; did you mean 'leaf'"),
        ("num_seeds=0", "num_seeds must be at least 1, not 0"),
        ("train.num_timesteps=0", "num_timesteps must be at least 1, not 0"),
        ("train.lr=0", "lr must be positive and finite, not 0.0"),
        ("train.lr=nan", "lr must be positive and finite, not nan"),
        ("train.lr=inf", "lr must be positive and finite, not inf"),
    ],
)
def test_mistaken_settings_are_named(override, message):
    with pytest.raises(ConfigError, match=message):
        make_settings(EXPERIMENTS["tabular_bounds"], "default", None, [override])


def test_the_table_of_means_by_hand():
    analysis = replace(ANALYSIS["tabular_misspecification"], levels=np.array([0.5]))
    evaluation = SimpleNamespace(J=np.array([1.0, 3.0, 2.0, 2.0]))  # mle's two seeds, omd's
    # mean 2, standard error 1; Student's t for one degree of freedom is 12.7062
    header, line = mean_table(analysis, evaluation).splitlines()
    assert header.split() == ["norm_bound", "mle", "J", "omd", "J"]
    assert line.split() == ["0.5", "2.0000", "+-", "12.7062", "2.0000", "+-", "0.0000"]


def test_rows_follow_the_order_of_the_instances(tmp_path):
    analysis, settings = ANALYSIS["tabular_ift"], Settings(num_seeds=3)
    problem = make_problem(analysis, settings)
    count = len(problem.noise_std)

    numbers = SimpleNamespace(J=np.arange(count), q_error=np.arange(count))
    write_results(tmp_path / "results.csv", analysis, "none", range(5, 8), numbers)
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["J"]) for row in rows] == list(range(count))
    np.testing.assert_array_equal([float(row["noise_std"]) for row in rows], problem.noise_std)
    exact = [row["solver"] == "exact" for row in rows]
    np.testing.assert_array_equal(exact, problem.exact)
    assert [row["seed"] for row in rows[:4]] == ["5", "6", "7", "5"]
