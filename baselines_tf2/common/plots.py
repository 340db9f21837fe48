"""Pictures of one run, from nothing but the files in its folder."""

from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from baselines_tf2.common.files import read_table, write_atomically


def plot_run(folder: Path, training_range: tuple[float, float] | None = None) -> None:
    """Draws `curves.png`: the return while training, and by mass at the end if it was varied.

    training_range: lowest and highest mass [kg] of the robots that were trained on.
    """
    rollout = [row for row in read_table(folder / "metrics.csv") if row.get("rollout/return")]
    evaluations = read_table(folder / "eval.csv")
    masses = [name for name in (evaluations or [{}])[0] if name.endswith("mass")]
    figure = Figure(figsize=(5 + 4 * bool(masses), 3.6), layout="constrained")
    axes = figure.subplots(1, 1 + bool(masses), squeeze=False)[0]
    _plot_curve(axes[0], rollout, evaluations)
    if masses:
        _plot_masses(axes[1], evaluations, masses[0], training_range)
    write_atomically(folder / "curves.png", lambda file: figure.savefig(file, dpi=150))


def _plot_curve(axis, rollout, evaluations):
    steps = [int(row["step"]) for row in rollout]
    returns = [float(row["rollout/return"]) for row in rollout]
    axis.plot(steps, returns, color="tab:gray", alpha=0.6, linewidth=1, label="training episodes")
    by_step = defaultdict(list)
    for row in evaluations:
        by_step[int(row["step"])].append(float(row["return"]))
    if by_step:
        low, middle, high = np.transpose([np.percentile(x, (10, 50, 90)) for x in by_step.values()])
        axis.plot(list(by_step), middle, ".-", color="tab:blue", label="evaluation, median")
        axis.fill_between(list(by_step), low, high, color="tab:blue", alpha=0.2,
                          label="10th to 90th percentile")  # fmt: skip
    axis.set(xlabel="environment steps", ylabel="return per episode", title="Learning")
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.legend(fontsize="small")


def _plot_masses(axis, evaluations, column, training_range):
    last = [row for row in evaluations if row["step"] == evaluations[-1]["step"]]
    by_mass = defaultdict(list)
    for row in last:
        by_mass[round(float(row[column]), 3)].append(float(row["return"]))
    masses = sorted(by_mass)
    axis.plot(masses, [np.mean(by_mass[mass]) for mass in masses], "o-", color="tab:blue")
    if training_range:
        axis.axvspan(*training_range, color="tab:green", alpha=0.1, label="training range")
        axis.legend(fontsize="small")
    name = column.removeprefix("physics/").replace("_", " ")
    axis.set(xlabel=f"{name} [kg]", ylabel="mean return", title="Last evaluation, by robot")
