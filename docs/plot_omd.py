"""Draws docs/omd.png from finished runs: `python docs/plot_omd.py --logdir=runs`."""

from pathlib import Path

from absl import app, flags
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from plot_cheetah import by_key, draw

from baselines_tf2.common.files import read_table

FLAGS = flags.FLAGS
flags.FLAGS.set_default("out", "docs/omd.png")

PANELS = {  # title -> agents, each with its colour
    "CartPole": {
        "omd_cartpole": "tab:red", "mle_cartpole": "tab:blue", "vep_cartpole": "tab:green",
        "vaml_cartpole": "tab:orange", "qlearning_cartpole": "tab:gray",
    },
    "HalfCheetah": {"omd_cheetah": "tab:red", "mle_cheetah": "tab:blue"},
}  # fmt: skip


def curves(agents: dict[str, str]) -> dict[str, list[dict[float, float]]]:
    """Per agent with runs, each seed's mean return by step."""
    found = {}
    for name in agents:
        paths = sorted(Path(FLAGS.logdir).glob(f"{name}/*/seed_*/eval.csv"))
        if paths:
            found[name] = [by_key(read_table(path), "step") for path in paths]
    return found


def main(_) -> None:
    panels = {title: found for title, agents in PANELS.items() if (found := curves(agents))}
    figure = Figure(figsize=(6 * len(panels), 4.2), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, (title, found) in zip(axes, panels.items(), strict=True):
        for name, seeds in found.items():
            draw(axis, seeds, name.partition("_")[0], PANELS[title][name])
        axis.set(xlabel="environment steps", ylabel="mean return of 10 episodes", title=title)
        axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        axis.legend(fontsize="small")
        axis.grid(alpha=0.3)
    figure.savefig(FLAGS.out, dpi=130)


if __name__ == "__main__":
    app.run(main)
