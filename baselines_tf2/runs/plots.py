"""Pictures of one run, from nothing but the files in its folder."""

from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from baselines_tf2.common.files import read_table, write_atomically
from baselines_tf2.common.returns import PHYSICS, percentiles, sweep_of
from envs.grid import Ranges


def plot_run(folder: Path, training_ranges: Ranges) -> None:
    """Draws `curves.png`: the return while training, and at the end by each varied parameter."""
    rollout = [row for row in read_table(folder / "metrics.csv") if row.get("rollout/return")]
    evaluations = read_table(folder / "eval.csv")
    panels = 1 + len(training_ranges) * bool(evaluations)
    figure = Figure(figsize=(1 + 4 * panels, 3.6), layout="constrained")
    curve, *others = figure.subplots(1, panels, squeeze=False)[0]
    _plot_curve(curve, rollout, evaluations)
    last = [row for row in evaluations if row["step"] == evaluations[-1]["step"]]
    for axis, (name, trained) in zip(others, training_ranges.items(), strict=False):
        _plot_parameter(axis, sweep_of(last, PHYSICS + name), name, trained)
    write_atomically(folder / "curves.png", lambda file: figure.savefig(file, dpi=150))


def _plot_curve(axis, rollout, evaluations):
    steps = [int(row["step"]) for row in rollout]
    returns = [float(row["rollout/return"]) for row in rollout]
    axis.plot(steps, returns, color="tab:gray", alpha=0.6, linewidth=1, label="training episodes")
    by_step = defaultdict(list)
    for row in evaluations:
        by_step[int(row["step"])].append(float(row["return"]))
    if by_step:
        low, middle, high = np.transpose([percentiles(x) for x in by_step.values()])
        axis.plot(list(by_step), middle, ".-", color="tab:blue", label="evaluation, median")
        axis.fill_between(list(by_step), low, high, color="tab:blue", alpha=0.2,
                          label="10th to 90th percentile")  # fmt: skip
    axis.set(xlabel="environment steps", ylabel="return per episode", title="Learning")
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    axis.legend(fontsize="small")


def _plot_parameter(axis, returns, name, trained):
    axis.plot(list(returns), [np.mean(x) for x in returns.values()], "o-", color="tab:blue")
    axis.axvspan(*trained, color="tab:green", alpha=0.1, label="training range")
    axis.legend(fontsize="small")
    axis.set(xlabel=axis_label(name), ylabel="mean return", title="Last evaluation, by robot")


def axis_label(name: str) -> str:
    """A physical parameter's, with its unit where the name tells it."""
    return name.replace("_", " ") + (" [kg]" if "mass" in name else "")
