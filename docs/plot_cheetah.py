"""Draws a Q critic against a difference critic from finished half-cheetahs on one ensemble.

`python docs/plot_cheetah.py --logdir=runs` draws docs/offset.png; docs/cheetah.png is drawn with
`--exps=ddpg_ensemble_cheetah,diffcritic_cheetah --out=docs/cheetah.png`.
"""

from collections import defaultdict
from pathlib import Path

import numpy as np
from absl import app, flags
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from baselines_tf2.common.files import read_table

FLAGS = flags.FLAGS
flags.DEFINE_string("logdir", "runs", "Where the runs are.")
flags.DEFINE_list(
    "exps",
    ["ddpg_offset_cheetah", "diffcritic_offset_cheetah"],
    "A Q critic's runs, and another's.",
)
flags.DEFINE_string("out", "docs/offset.png", "The picture.")

STYLES = (("Q critic", "tab:gray"), ("difference critic", "tab:blue"))
TRAINING_RANGE = (3, 9)  # [kg], the ensemble's


def by_key(rows: list[dict[str, str]], key: str) -> dict[float, float]:
    """Mean return for each value of a column."""
    groups = defaultdict(list)
    for row in rows:
        groups[round(float(row[key]), 3)].append(float(row["return"]))
    return {value: np.mean(returns) for value, returns in sorted(groups.items())}


def draw(axis, seeds: list[dict[float, float]], label: str, color: str, marker: str = "") -> None:
    """The mean over seeds, and their range shaded."""
    x = sorted(set.intersection(*(set(seed) for seed in seeds)))
    values = np.array([[seed[i] for i in x] for seed in seeds])
    label = f"{label}, {len(seeds)} seeds"
    axis.plot(x, values.mean(0), marker=marker, color=color, label=label)
    axis.fill_between(x, values.min(0), values.max(0), color=color, alpha=0.2, linewidth=0)


def main(_) -> None:
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    curves, masses = figure.subplots(1, 2)
    for name, (label, color) in zip(FLAGS.exps, STYLES, strict=True):
        tables = [
            read_table(path)
            for path in sorted(Path(FLAGS.logdir).glob(f"{name}/mujoco/seed_*/eval.csv"))
        ]
        draw(curves, [by_key(rows, "step") for rows in tables], label, color)
        last = [[row for row in rows if row["step"] == rows[-1]["step"]] for rows in tables]
        draw(masses, [by_key(rows, "physics/torso_mass") for rows in last], label, color, "o")
    curves.set(xlabel="environment steps", ylabel="mean return over nine masses")
    curves.set_title("Learning")
    curves.xaxis.set_major_formatter(EngFormatter(sep=""))
    masses.axvspan(*TRAINING_RANGE, color="tab:green", alpha=0.1, label="training range")
    masses.set(xlabel="torso mass [kg]", ylabel="mean return", title="After training, by robot")
    for axis in (curves, masses):
        axis.legend(fontsize="small")
        axis.grid(alpha=0.3)
    figure.savefig(FLAGS.out, dpi=130)


if __name__ == "__main__":
    app.run(main)
