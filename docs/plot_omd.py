"""Draws docs/omd.png from finished runs: `python docs/plot_omd.py --logdir=runs`."""

from pathlib import Path

from absl import app, flags
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from plot_cheetah import by_key, draw

from baselines_tf2.common.plots import read_table

FLAGS = flags.FLAGS
flags.FLAGS.set_default("out", "docs/omd.png")

PANELS = {  # title -> agents, each with its colour
    "CartPole": {
        "omd_cartpole": "tab:red", "mle_cartpole": "tab:blue", "vep_cartpole": "tab:green",
        "vaml_cartpole": "tab:orange", "qlearning_cartpole": "tab:gray",
    },
    "HalfCheetah": {"omd_cheetah": "tab:red", "mle_cheetah": "tab:blue"},
}  # fmt: skip


def main(_) -> None:
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    for axis, (title, agents) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
        for name, color in agents.items():
            paths = sorted(Path(FLAGS.logdir).glob(f"{name}/*/seed_*/eval.csv"))
            seeds = [by_key(read_table(path), "step") for path in paths]
            if seeds:
                draw(axis, seeds, name.partition("_")[0], color)
        axis.set(xlabel="environment steps", ylabel="mean return of 10 episodes", title=title)
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.legend(fontsize="small")
        axis.grid(alpha=0.3)
    figure.savefig(FLAGS.out, dpi=130)


if __name__ == "__main__":
    app.run(main)
