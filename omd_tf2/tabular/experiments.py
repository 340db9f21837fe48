"""The three tabular analyses as experiments: their settings, and their runs."""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

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
from omd_tf2.tabular.report import ANALYSES, Analysis, mean_table, plot_analysis, write_results
from omd_tf2.tabular.solve import ADJOINT_TOL, INNER_TOL
from omd_tf2.tabular.update import PROJECTIONS, Problem, Residuals, State, train_steps

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
    training = Training(make_problem(analysis, settings), settings.train.num_timesteps, seeds)

    def run(folder: Path, progress: Progress, checkpoints: Checkpoints) -> dict[str, str]:
        with closing(Logger(folder)) as logger:
            parts: dict[str, Part] = {"training": training, "logger": logger}
            if checkpoints.resume(parts):
                progress.resume(checkpoints.step)
            for step, evaluation, residuals in training:
                logger.log(step, _metrics(analysis, step, evaluation, residuals))
                progress.update(step, None)
                checkpoints.after_cycle(step, lambda: state_of(parts))
        evaluation, figure = training.evaluation, f"{analysis.name}.png"
        write_results(folder / "results.csv", analysis, settings.projection, seeds, evaluation)
        plot_analysis(folder / figure, analysis, evaluation)
        return {
            "means": "over seeds, with half the width of the 95% interval\n"
            + mean_table(analysis, evaluation),
            "figure": figure,
            "numbers": "results.csv, metrics.csv",
        }

    return run


class Training:
    """Iterates over (step, Evaluation, Residuals) as NumPy about NUM_CHUNKS times; the last counts.

    Everything is drawn on the host, by one generator per seed for the start and one for the noise;
    each chunk of steps is one compiled call.
    """

    def __init__(self, problem: Problem, num_steps: int, seeds: range):
        self.step, self._num_steps, self._problem = 0, num_steps, problem
        self.evaluation: Evaluation  # of the latest chunk
        pairs = [map(np.random.default_rng, np.random.SeedSequence(s).spawn(2)) for s in seeds]
        self._start, self._noise = zip(*pairs, strict=True)
        self.state = self._first_state()
        self._train = compiled(partial(train_steps, problem))
        self._evaluate = compiled(partial(evaluate, problem))

    def _first_state(self) -> State:
        """Initial Q, logits and rewards, uniform in [0, 1); one draw per seed for all settings."""
        problem, truth = self._problem, self._problem.truth
        shapes = [x.shape[:-1] for x in (truth.rewards, truth.transitions, truth.rewards)]
        q, logits, rewards = (
            np.stack([rng.random(shape) for rng in self._start], axis=-1) for shape in shapes
        )
        repeats = problem.noise_std.shape[0] // len(self._start)
        model = Model(*(tf.constant(np.tile(x, repeats)) for x in (logits, rewards)))
        values = np.tile(soft_values(tf.constant(q), truth.temperature), repeats)
        return State(model, adam_init(model), tf.constant(values[:, problem.num_mle :]))

    def noise(self, steps: int) -> tf.Tensor:
        """Standard normal, fresh for every step, `[steps, S, A, seeds]`."""
        size = (steps, *self._problem.truth.rewards.shape[:2])
        return tf.constant(np.stack([rng.standard_normal(size) for rng in self._noise], axis=-1))

    def __iter__(self) -> Iterator[tuple[int, Evaluation, Residuals]]:
        chunk = math.ceil(self._num_steps / NUM_CHUNKS)
        while self.step < self._num_steps:
            steps, noise = min(chunk, self._num_steps - self.step), self.noise(chunk)
            self.state, residuals = self._train(self.state, noise, tf.constant(steps))
            evaluation = self._evaluate(self.state.model, self.noise(1)[0])
            self.step += steps
            self.evaluation, residuals = _numpy((evaluation, residuals))
            yield self.step, self.evaluation, residuals

    def get_state(self) -> dict:
        """All that the coming chunks depend on."""
        return {
            "step": self.step,
            "state": tf.nest.flatten(_numpy(self.state)),
            "evaluation": tf.nest.flatten(self.evaluation),
            "rngs": [rng.bit_generator.state for rng in (*self._start, *self._noise)],
        }

    def set_state(self, state: dict) -> None:
        """Puts back what `get_state` gave."""
        self.step = state["step"]
        like = tf.nest.flatten(self.state)
        tensors = [tf.constant(x, y.dtype) for x, y in zip(state["state"], like, strict=True)]
        self.state = tf.nest.pack_sequence_as(self.state, tensors)
        self.evaluation = Evaluation(*state["evaluation"])
        for rng, own in zip((*self._start, *self._noise), state["rngs"], strict=True):
            rng.bit_generator.state = own


def _numpy(structure):
    return tf.nest.map_structure(lambda x: x.numpy(), structure)


def _metrics(
    analysis: Analysis, step: int, evaluation: Evaluation, residuals: Residuals
) -> dict[str, float]:
    """Means over levels and seeds, and the largest residuals since the last row.

    Raises TrainingError for a loss that is not finite, or what was not solved.
    """
    if not np.isfinite(evaluation.loss).all():
        raise TrainingError(f"loss of an instance is not finite at step {step}: lower train.lr")
    inner, adjoint = (
        float(np.maximum(residuals.inner, evaluation.residual)),
        float(residuals.adjoint),
    )
    tolerated = ("inner problem", inner, INNER_TOL), ("adjoint", adjoint, ADJOINT_TOL)
    for name, residual, tol in tolerated:
        if not residual <= tol:
            raise TrainingError(f"{name} not solved at step {step}: residual {residual:.3g}")
    metrics = {"solver/inner_residual": inner, "solver/adjoint_residual": adjoint}
    for name in ("J", "q_error", "loss"):
        means = getattr(evaluation, name).reshape(2, -1).mean(1)
        for variant, mean in zip(analysis.variants, means, strict=True):
            metrics[f"{variant}/{name}_mean"] = float(mean)
    return metrics


def _settings(analysis: Analysis, preset: str, backend: str) -> Settings:
    original = preset == "original"
    if analysis.of_methods:
        return Settings(projection="leaf" if original else "joint")
    return Settings(projection=NONE, noise_reaches="objective" if original else "all")


EXPERIMENTS = {
    analysis.name: Experiment(
        name=analysis.name,
        description=analysis.description,
        source="OMD, arXiv 2106.03273",
        backends=("tabular",),
        settings=partial(_settings, analysis),
        prepare=partial(prepare, analysis),
    )
    for analysis in ANALYSES
}
