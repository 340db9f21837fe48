"""The analyses, and what a run of one leaves behind: results.csv, its figure, a table of means."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.special import stdtrit

from baselines_tf2.common.files import table_text, write_atomically, write_text
from omd_tf2.tabular.evaluate import Evaluation
from omd_tf2.tabular.mdp import OPTIMAL_RETURN
from omd_tf2.tabular.update import OuterLoss, bellman_loss, return_loss

COLUMNS = (
    "method", "projection", "norm_bound", "noise_std", "solver", "seed", "J", "q_error", "bound",
)  # fmt: skip
COLORS = {"mle": "tab:blue", "omd": "tab:red", "exact": "tab:blue", "identity": "tab:orange"}
LABELS = {
    "mle": "MLE", "omd": "OMD", "exact": "exact inverse", "identity": "identity",
    "J": "expected return J", "q_error": "max |Q* - Q|", "bound": "bound on the error",
    "norm_bound": "bound on the model's parameter norm",
    "noise_std": "standard deviation of the noise in Q",
}  # fmt: skip


@dataclass(frozen=True)
class Analysis:
    """One of the paper's analyses: two variants of a method, at each level of a quantity."""

    name: str
    description: str
    variants: tuple[str, str]  # methods, or solvers of the adjoint
    level: str  # column of results.csv that the levels fill
    levels: np.ndarray
    outer_loss: OuterLoss
    drawn: tuple[str, ...] = ("J",)  # columns of the figure and the table

    @property
    def of_methods(self) -> bool:
        return self.level == "norm_bound"


OF_METHODS = ("mle", "omd"), "norm_bound", np.linspace(0, 6, 20)
OF_SOLVERS = ("exact", "identity"), "noise_std", np.logspace(-3, 0.5, 30)
ANALYSES = (
    Analysis(
        "tabular_misspecification",
        "two states: return of MLE and OMD models of bounded norm",
        *OF_METHODS,
        return_loss,
    ),
    Analysis(
        "tabular_bounds",
        "two states: error of Q and its bounds, MLE and OMD",
        *OF_METHODS,
        bellman_loss,
        drawn=("q_error", "bound"),
    ),
    Analysis(
        "tabular_ift",
        "two states: exact and identity adjoint under noise in the inner solution",
        *OF_SOLVERS,
        bellman_loss,
    ),
)


def write_results(
    path: Path, analysis: Analysis, projection: str, seeds: range, evaluation: Evaluation
) -> None:
    """Writes results.csv, one row per instance; what does not apply stays empty."""
    columns, rows = {"J", "q_error", *analysis.drawn}, []
    keys = product(analysis.variants, analysis.levels, seeds)
    for i, (variant, level, seed) in enumerate(keys):
        row = {name: float(getattr(evaluation, name)[i]) for name in columns}
        if analysis.of_methods:
            chosen = {"method": variant, "projection": projection}
        else:
            chosen = {"method": "omd", "solver": variant}
        rows.append(row | chosen | {analysis.level: float(level), "seed": seed})
    write_text(path, table_text(COLUMNS, rows))


def mean_table(analysis: Analysis, evaluation: Evaluation) -> str:
    """Means over seeds with the half width of their 95% interval, one line per level."""
    curves = _curves(analysis, evaluation)
    lines = [[analysis.level, *(f"{variant} {column}" for variant, column in curves)]]
    for i, x in enumerate(analysis.levels):
        cells = [f"{mean[i]:.4f} +- {half[i]:.4f}" for mean, half in curves.values()]
        lines.append([f"{x:.4g}", *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def plot_analysis(path: Path, analysis: Analysis, evaluation: Evaluation) -> None:
    """Draws the analysis's figure: means over seeds, 95% intervals shaded."""
    x, curves, count = analysis.levels, _curves(analysis, evaluation), len(analysis.drawn)
    figure = Figure(figsize=(1 + 4.5 * count, 3.8), layout="constrained")
    for axis, column in zip(
        figure.subplots(1, count, squeeze=False)[0], analysis.drawn, strict=True
    ):
        for variant in analysis.variants:
            mean, half = curves[variant, column]
            axis.plot(x, mean, ".-", color=COLORS[variant], label=LABELS[variant])
            axis.fill_between(x, mean - half, mean + half, color=COLORS[variant], alpha=0.2)
        if column == "J":
            axis.axhline(OPTIMAL_RETURN, c="black", ls="--", lw=1, label="optimal")
        axis.set(xlabel=LABELS[analysis.level], ylabel=LABELS[column], title=analysis.description)
        axis.set_xscale("linear" if analysis.of_methods else "log")
        axis.legend(fontsize="small")
    write_atomically(path, lambda file: figure.savefig(file, dpi=150))


def _curves(analysis, evaluation):
    """{(variant, column): (means, half widths of their 95% intervals)}, [levels] each.

    By Student's t over the seeds; 0 for a single one.
    """
    curves = {}
    for i, variant in enumerate(analysis.variants):
        for column in analysis.drawn:
            numbers = getattr(evaluation, column).reshape(2, len(analysis.levels), -1)[i]
            half, seeds = np.zeros(len(numbers)), numbers.shape[1]
            if seeds > 1:
                errors = numbers.std(1, ddof=1) / np.sqrt(seeds)
                half = stdtrit(seeds - 1, 0.975) * errors
            curves[variant, column] = numbers.mean(1), half
    return curves
