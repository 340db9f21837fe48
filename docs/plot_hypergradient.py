"""Draws docs/hypergradient.png and prints the tables of docs/measurements.md from the benchmark.

`python docs/plot_hypergradient.py` after `python benchmarks/hypergradient.py`.
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from baselines_tf2.common.files import write_atomically
from baselines_tf2.report.statistics import number
from baselines_tf2.sweeps.study_results import markdown

DOCS = Path(__file__).parent
STYLES = {  # solver without its numbers -> colour, marker
    "identity": ("black", "o"),
    "gauss_newton": ("tab:blue", "s"),
    "gauss_newton corrected": ("tab:red", "D"),
    "cg": ("tab:orange", "^"),
    "minres": ("tab:green", "v"),
    "neumann": ("tab:purple", "P"),
    "vaml": ("tab:gray", "X"),
}
SHARED = {  # column, the same for all solvers -> its name in the table
    "smallest": "smallest eigenvalue",
    "largest": "largest eigenvalue",
    "negative": "share below -1e-5",
    "zero": "share within 1e-5 of 0",
    "f_norm": "inner residual, norm of f",
    "g_norm": "norm of g",
    "inner_loss": "inner loss",
    "inner_loss_after": "inner loss, 100 steps on",
    "outer_loss": "outer loss",
    "outer_loss_after": "outer loss, 100 steps on",
}
TICKS = (1, 2, 5, 10, 20)  # [ms]


def draw(axis, rows: pd.DataFrame) -> None:
    """Both cosines of one snapshot against the time; a ridge of 0.1 is drawn larger."""
    timed = rows[["solver", "ms", "cos_100", "cos_exact"]].dropna()
    for solver, x, resolved, exact in timed.itertuples(index=False):
        color, marker = STYLES[solver.rstrip("0.15 ")]
        size = 10 if solver.endswith(" 0.1") else 6
        axis.plot(x, resolved, marker, color=color, ms=size, alpha=0.8, mec="white", mew=0.5)
        axis.plot(x, exact, marker, color=color, ms=size - 1, mfc="none", alpha=0.7)
    axis.set(xscale="log", xlim=(0.8, 25), ylim=(-1.05, 1.05))
    axis.set_xticks(TICKS, map(str, TICKS))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.axhline(0, color="black", lw=0.8)
    axis.grid(alpha=0.3)


def main() -> None:
    table = pd.read_csv(DOCS / "studies" / "hypergradient.csv")
    snapshots = table.groupby(["setting", "step"], sort=False)
    settings = table.setting.unique()
    figure = Figure(figsize=(12, 7.4), layout="constrained")
    axes = figure.subplots(len(settings), 3, sharey=True).flatten()
    for axis, ((setting, step), rows) in zip(axes, snapshots, strict=True):
        draw(axis, rows)
        axis.set(title=f"{setting}, {step:,} steps", xlabel="CPU time of the hypergradient [ms]")
    for axis in axes[::3]:
        axis.set_ylabel("cosine")
    handles = [
        Line2D([], [], color=c, marker=m, ls="", label=name) for name, (c, m) in STYLES.items()
    ]
    for fill, text in (("full", "with the re-solved"), ("none", "with the exact, unsolved")):
        handles.append(Line2D([], [], color="black", marker="o", ls="", fillstyle=fill, label=text))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize="small")
    write_atomically(DOCS / "hypergradient.png", lambda file: figure.savefig(file, dpi=110))

    shared = snapshots.first()
    heads = [f"{setting} {step // 1000}k" for setting, step in shared.index]
    solvers = table[~table.solver.str.startswith("after")].groupby("solver", sort=False)
    lines, errors = [], []
    for solver, rows in solvers:
        times = rows.groupby("setting", sort=False).ms.mean().map("{:.1f}".format, "ignore")
        cosines = (f"{row.cos_100:.2f} / {row.cos_exact:.2f}" for row in rows.itertuples())
        lines.append([solver, *times.fillna(""), *cosines])
        both = (f"{number(x.error_100)} / {number(x.error_exact)}" for x in rows.itertuples())
        errors.append([solver, *both])
    print(markdown(["solver", *(f"{name} [ms]" for name in settings), *heads], *lines), end="\n\n")
    print(markdown(["solver", *heads], *errors), end="\n\n")
    lines = [[label, *shared[name].map("{:.3g}".format)] for name, label in SHARED.items()]
    slopes = table[table.solver == "after 100"].slope_100.map("{:.2f}".format)
    print(markdown(["", *heads], *lines, ["difference / gradient", *slopes]))


if __name__ == "__main__":
    main()
