"""What a tabular run leaves behind: results.csv, the paper's figure, and a table of means."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from baselines_tf2.common.files import table_text, write_atomically, write_text
from omd_tf2.tabular.mdp import OPTIMAL_RETURN

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
PANELS = {  # analysis -> the columns it draws and tabulates
    "tabular_misspecification": ("J",),
    "tabular_bounds": ("q_error", "bound"),
    "tabular_ift": ("J",),
}
TITLES = {
    "tabular_misspecification": "Misspecified model: return",
    "tabular_bounds": "Misspecified model: error of Q",
    "tabular_ift": "Adjoint under noise in the inner solution",
}


def write_results(path: Path, rows: Sequence[dict]) -> None:
    """Writes results.csv, one row per instance; what a row lacks stays empty."""
    write_text(path, table_text(COLUMNS, rows))


def mean_table(analysis: str, rows: Sequence[dict]) -> str:
    """Means over seeds with the half width of their 95% interval, one line per level."""
    level, curves = _curves(analysis, rows)
    lines = [[level, *(f"{variant} {column}" for variant, column in curves)]]
    for i, x in enumerate(next(iter(curves.values()))[0]):
        cells = [f"{mean[i]:.4f} +- {half[i]:.4f}" for _, mean, half in curves.values()]
        lines.append([f"{x:.4g}", *cells])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True))
        for line in lines
    )


def plot_analysis(path: Path, analysis: str, rows: Sequence[dict]) -> None:
    """Draws the analysis's figure: means over seeds, 95% intervals shaded."""
    level, curves = _curves(analysis, rows)
    columns = PANELS[analysis]
    figure = Figure(figsize=(1 + 4.5 * len(columns), 3.8), layout="constrained")
    for i, column in enumerate(columns, 1):
        axis = figure.add_subplot(1, len(columns), i)
        for (variant, name), (x, mean, half) in curves.items():
            if name == column:
                axis.plot(x, mean, ".-", color=COLORS[variant], label=LABELS[variant])
                axis.fill_between(x, mean - half, mean + half, color=COLORS[variant], alpha=0.2)
        if column == "J":
            axis.axhline(OPTIMAL_RETURN, c="black", ls="--", lw=1, label="optimal")
        axis.set(xlabel=LABELS[level], ylabel=LABELS[column], title=TITLES[analysis])
        axis.set_xscale("log" if level == "noise_std" else "linear")
        axis.legend(fontsize="small")
    write_atomically(path, lambda file: figure.savefig(file, dpi=150))


def _curves(analysis, rows):
    """The level's name and {(variant, column): (levels, means, half widths)}, in the rows' order."""
    level = "noise_std" if "noise_std" in rows[0] else "norm_bound"
    groups = defaultdict(lambda: defaultdict(list))
    for row in rows:
        variant = row.get("solver", row["method"])
        for column in PANELS[analysis]:
            groups[variant, column][row[level]].append(row[column])
    curves = {}
    for key, by_level in groups.items():
        values = np.array(list(by_level.values()))  # [levels, seeds]
        curves[key] = np.array(list(by_level)), values.mean(1), _half_width(values)
    return level, curves


def _half_width(values: np.ndarray) -> np.ndarray:
    """Half of the 95% interval of the mean, by Student's t; 0 for a single seed."""
    seeds = values.shape[1]
    if seeds == 1:
        return np.zeros(len(values))
    return stats.t.ppf(0.975, seeds - 1) * stats.sem(values, 1)
