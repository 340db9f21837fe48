"""The three tabular analyses as experiments: their settings, their runs and what they write."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tensorflow as tf

from baselines_tf2.common.compile import compiled
from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.state import Part, state_of
from baselines_tf2.runs.checkpoint import Checkpoints
from baselines_tf2.runs.experiment import Experiment, Progress, RunFunction
from baselines_tf2.runs.logger import Logger
from envs.errors import ConfigError, Count, Positive, check_fields
from omd_tf2.common.functional import adam_init
from omd_tf2.tabular.evaluate import Evaluation, evaluate
from omd_tf2.tabular.mdp import Model, paper_mdp, soft_values
from omd_tf2.tabular.report import mean_table, plot_analysis, write_results
from omd_tf2.tabular.solve import ADJOINT_TOL, INNER_TOL
from omd_tf2.tabular.update import (
    PROJECTIONS,
    OuterLoss,
    Problem,
    Residuals,
    State,
    bellman_loss,
    return_loss,
    train_steps,
)

NONE = "none"
NOISE_REACHES = ("all", "objective")
NUM_CHUNKS = 20  # rows of the learning curve


@dataclass(frozen=True)
class OuterConfig:
    """The outer optimisation."""

    num_timesteps: Count = 10_000  # Adam steps
    lr: Positive = 0.01  # of Adam

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class Settings:
    """All that defines a run, but for its first seed."""

    # Onto the norm ball; none where there is no ball.
    projection: Annotated[str, (*PROJECTIONS, NONE)] = "joint"
    # Derivatives taken at the noised solution: all, as of an inexact solver, or the objective's
    # alone; none where there is no noise.
    noise_reaches: Annotated[str, (*NOISE_REACHES, NONE)] = NONE
    num_seeds: Count = 10  # seed, seed + 1, ...
    train: OuterConfig = field(default_factory=OuterConfig)

    def __post_init__(self):
        check_fields(self)


@dataclass(frozen=True)
class Analysis:
    """One of the paper's analyses: two variants of a method, at each level of a quantity."""

    name: str
    variants: tuple[str, str]  # methods, or solvers of the adjoint
    level: str  # column of results.csv that the levels fill
    levels: np.ndarray
    outer_loss: OuterLoss

    @property
    def of_methods(self) -> bool:
        return self.level == "norm_bound"


NORM_BOUNDS = np.linspace(0, 6, 20)
METHODS, SOLVERS = ("mle", "omd"), ("exact", "identity")
ANALYSES = (
    Analysis("tabular_misspecification", METHODS, "norm_bound", NORM_BOUNDS, return_loss),
    Analysis("tabular_bounds", METHODS, "norm_bound", NORM_BOUNDS, bellman_loss),
    Analysis("tabular_ift", SOLVERS, "noise_std", np.logspace(-3, 0.5, 30), bellman_loss),
)


def make_problem(analysis: Analysis, settings: Settings) -> Problem:
    """The instances of an analysis, in the order (variant, level, seed), the seed innermost."""
    count = len(analysis.levels) * settings.num_seeds
    levels = tf.constant(np.tile(np.repeat(analysis.levels, settings.num_seeds), 2))
    of_methods = analysis.of_methods
    return Problem(
        truth=paper_mdp(),
        outer_loss=analysis.outer_loss,
        num_mle=count if of_methods else 0,
        norm_bound=levels if of_methods else tf.fill([2 * count], tf.cast(math.inf, tf.float64)),
        noise_std=tf.zeros([2 * count], tf.float64) if of_methods else levels,
        noise_in_adjoint=settings.noise_reaches == "all",
        exact=tf.constant(np.repeat([True, of_methods], count)),
        projection=settings.projection,
        lr=settings.train.lr,
    )


class Draws:
    """All that is random in a run: per seed one generator for the start and one for the noise."""

    def __init__(self, seeds: range, problem: Problem):
        pairs = [np.random.SeedSequence(seed).spawn(2) for seed in seeds]
        self.rngs = [np.random.default_rng(s) for kind in zip(*pairs, strict=True) for s in kind]
        self._start, self._noise = self.rngs[: len(seeds)], self.rngs[len(seeds) :]
        self._problem = problem
        self._shape = problem.truth.rewards.shape[:2]

    def state(self) -> State:
        """Initial Q, logits and rewards, uniform in [0, 1); one draw per seed for all settings."""
        problem, transitions = self._problem, self._problem.truth.transitions.shape[:3]
        q, logits, rewards = (
            np.stack([rng.random(shape) for rng in self._start], axis=-1)
            for shape in (self._shape, transitions, self._shape)
        )
        repeats = problem.noise_std.shape[0] // len(self._start)
        model = Model(*(tf.constant(np.tile(x, repeats)) for x in (logits, rewards)))
        values = np.tile(soft_values(tf.constant(q), problem.truth.temperature), repeats)
        return State(model, adam_init(model), tf.constant(values[:, problem.num_mle :]))

    def noise(self, steps: int) -> np.ndarray:
        """Standard normal, fresh for every step, `[steps, S, A, seeds]`."""
        size = (steps, *self._shape)
        return np.stack([rng.standard_normal(size) for rng in self._noise], axis=-1)


def prepare(analysis: Analysis, settings: Settings, seed: int) -> RunFunction:
    """Draws the instances; the returned function trains them all and fills the run folder.

    In `tabular_ift` the noise is drawn anew for every step and seed, and once more for what is
    reported in the end; all levels and both solvers share a draw, scaled by their own std.
    """
    for name, known, applies in (
        ("projection", PROJECTIONS, analysis.of_methods),
        ("noise_reaches", NOISE_REACHES, not analysis.of_methods),
    ):
        if applies == (getattr(settings, name) == NONE):
            which = " or ".join(known) if applies else NONE
            raise ConfigError(f"{name} of {analysis.name} must be {which}")
    seeds = range(seed, seed + settings.num_seeds)
    problem = make_problem(analysis, settings)
    draws = Draws(seeds, problem)

    def run(folder: Path, progress: Progress, checkpoints: Checkpoints) -> dict[str, str]:
        logger, training = Logger(folder), Training(problem, settings.train, draws)
        parts: dict[str, Part] = {"training": training, "logger": logger}
        try:
            if checkpoints.resume(parts):
                progress.resume(checkpoints.step)
            for step, evaluation, residuals in training:
                _check(step, evaluation, residuals)
                logger.log(step, _metrics(analysis, evaluation, residuals))
                progress.update(step, None)
                checkpoints.after_cycle(step, lambda: state_of(parts))
        finally:
            logger.close()
        rows = result_rows(analysis, settings, seeds, training.evaluation)
        write_results(folder / "results.csv", rows)
        plot_analysis(folder / f"{analysis.name}.png", analysis.name, rows)
        return {
            "means": "over seeds, with half the width of the 95% interval\n"
            + mean_table(analysis.name, rows),
            "figure": f"{analysis.name}.png",
            "numbers": "results.csv, metrics.csv",
        }

    return run


class Training:
    """Iterates over (step, Evaluation, Residuals) as NumPy about NUM_CHUNKS times; the last counts.

    Everything is drawn on the host; each chunk of steps is one compiled call.
    """

    def __init__(self, problem: Problem, config: OuterConfig, draws: Draws):
        self.step = 0
        self.evaluation: Evaluation  # of the latest chunk
        self._config, self._draws, self._state = config, draws, draws.state()
        self._train, self._evaluate = (
            compiled(partial(f, problem)) for f in (train_steps, evaluate)
        )

    def __iter__(self) -> Iterator[tuple[int, Evaluation, Residuals]]:
        total, draws = self._config.num_timesteps, self._draws
        chunk = math.ceil(total / NUM_CHUNKS)
        while self.step < total:
            steps, noise = min(chunk, total - self.step), tf.constant(draws.noise(chunk))
            self._state, residuals = self._train(self._state, noise, tf.constant(steps))
            evaluation = self._evaluate(self._state.model, tf.constant(draws.noise(1)[0]))
            self.step += steps
            evaluation, residuals = _numpy((evaluation, residuals))
            self.evaluation = evaluation
            yield self.step, evaluation, residuals

    def get_state(self) -> dict:
        """All that the coming chunks depend on."""
        return {
            "step": self.step,
            "state": tf.nest.flatten(_numpy(self._state)),
            "evaluation": tf.nest.flatten(self.evaluation),
            "rngs": [rng.bit_generator.state for rng in self._draws.rngs],
        }

    def set_state(self, state: dict) -> None:
        """Puts back what `get_state` gave."""
        self.step = state["step"]
        like = tf.nest.flatten(self._state)
        tensors = [tf.constant(x, y.dtype) for x, y in zip(state["state"], like, strict=True)]
        self._state = tf.nest.pack_sequence_as(self._state, tensors)
        self.evaluation = Evaluation(*state["evaluation"])
        for rng, own in zip(self._draws.rngs, state["rngs"], strict=True):
            rng.bit_generator.state = own


def _numpy(structure):
    return tf.nest.map_structure(lambda x: x.numpy(), structure)


def _check(step: int, evaluation: Evaluation, residuals: Residuals) -> None:
    if not np.isfinite(evaluation.loss).all():
        raise TrainingError(f"loss of an instance is not finite at step {step}: lower train.lr")
    inner = max(residuals.inner, evaluation.residual)
    if not inner <= INNER_TOL:
        raise TrainingError(f"inner problem not solved at step {step}: residual {inner:.3g}")
    if not residuals.adjoint <= ADJOINT_TOL:
        raise TrainingError(f"adjoint not solved at step {step}: residual {residuals.adjoint:.3g}")


def _metrics(analysis: Analysis, evaluation: Evaluation, residuals: Residuals) -> dict[str, float]:
    """Means over levels and seeds, and the largest residuals since the last row."""
    metrics = {
        "solver/inner_residual": float(max(residuals.inner, evaluation.residual)),
        "solver/adjoint_residual": float(residuals.adjoint),
    }
    for name in ("J", "q_error", "loss"):
        means = getattr(evaluation, name).reshape(2, -1).mean(1)
        for variant, mean in zip(analysis.variants, means, strict=True):
            metrics[f"{variant}/{name}_mean"] = float(mean)
    return metrics


def result_rows(
    analysis: Analysis, settings: Settings, seeds: range, evaluation: Evaluation
) -> list[dict]:
    """The rows of results.csv, one per instance; what does not apply is left out."""
    keys = [(v, x, seed) for v in analysis.variants for x in analysis.levels for seed in seeds]
    rows = []
    for i, (variant, level, seed) in enumerate(keys):
        row: dict[str, Any] = {analysis.level: float(level), "seed": seed}
        if analysis.of_methods:
            row |= {"method": variant, "projection": settings.projection}
        else:
            row |= {"method": "omd", "solver": variant}
        row |= {"J": float(evaluation.J[i]), "q_error": float(evaluation.q_error[i])}
        if analysis.name == "tabular_bounds":
            row["bound"] = float(evaluation.bound[i])
        rows.append(row)
    return rows


def _settings(analysis: Analysis, preset: str, backend: str) -> Settings:
    if not analysis.of_methods:
        reaches = "objective" if preset == "original" else "all"
        return Settings(projection=NONE, noise_reaches=reaches)
    return Settings(projection="leaf" if preset == "original" else "joint")


DESCRIPTIONS = {
    "tabular_misspecification": "two states: return of MLE and OMD models of bounded norm",
    "tabular_bounds": "two states: error of Q and its bounds, MLE and OMD",
    "tabular_ift": "two states: exact and identity adjoint under noise in the inner solution",
}
EXPERIMENTS = {
    analysis.name: Experiment(
        name=analysis.name,
        description=DESCRIPTIONS[analysis.name],
        source="OMD, arXiv 2106.03273",
        backends=("tabular",),
        settings=partial(_settings, analysis),
        prepare=partial(prepare, analysis),
        num_timesteps=lambda settings: settings.train.num_timesteps,
    )
    for analysis in ANALYSES
}
