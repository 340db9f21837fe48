"""Draws docs/hypergradient.png and prints the tables of docs/measurements.md from the benchmark.

`python docs/plot_hypergradient.py` after `python benchmarks/hypergradient.py`.
"""

from math import isnan
from pathlib import Path
from statistics import mean

from absl import app, flags
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from baselines_tf2.common.files import read_table, write_atomically

FLAGS = flags.FLAGS
flags.DEFINE_string("table", "docs/studies/hypergradient.csv", "What the benchmark wrote.")
flags.DEFINE_string("out", "docs/hypergradient.png", "The picture.")

STYLES = {  # solver without its numbers -> colour, marker
    "identity": ("black", "o"),
    "gauss_newton": ("tab:blue", "s"),
    "gauss_newton corrected": ("tab:red", "D"),
    "cg": ("tab:orange", "^"),
    "minres": ("tab:green", "v"),
    "neumann": ("tab:purple", "P"),
    "vaml": ("tab:gray", "X"),
}
RESOLVED, UNSOLVED = "cos_100", "cos_exact"
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


def draw(axis, rows: list[dict[str, str]]) -> None:
    """Both cosines of one snapshot against the time; a ridge of 0.1 is drawn larger."""
    for row in rows:
        color, marker = STYLES[row["solver"].rstrip("0.15 ")]
        x, resolved, unsolved = (float(row[name]) for name in ("ms", RESOLVED, UNSOLVED))
        size = 10 if row["solver"].endswith(" 0.1") else 6
        axis.plot(x, resolved, marker, color=color, ms=size, alpha=0.8, mec="white", mew=0.5)
        axis.plot(x, unsolved, marker, color=color, ms=size - 1, mfc="none", alpha=0.7)
    axis.set(xscale="log", xlim=(0.8, 25), ylim=(-1.05, 1.05))
    axis.set_xticks(TICKS, map(str, TICKS))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.axhline(0, color="black", lw=0.8)
    axis.grid(alpha=0.3)


def table(lines: list[list[str]]) -> None:
    for i, line in enumerate(lines):
        print("|", " | ".join(line), "|")
        if not i:
            print("|" + "---|" * len(line))
    print()


def main(_) -> None:
    groups = {}
    for row in read_table(Path(FLAGS.table)):
        groups.setdefault((row["setting"], int(row["step"])), {})[row["solver"]] = row
    settings = list(dict.fromkeys(setting for setting, _ in groups))
    figure = Figure(figsize=(12, 7.4), layout="constrained")
    axes = figure.subplots(len(settings), 3, sharey=True).flatten()
    for axis, (key, rows) in zip(axes, groups.items(), strict=True):
        timed = [row for row in rows.values() if row["ms"]]
        draw(axis, timed)
        axis.set(title=f"{key[0]}, {key[1]:,} steps", xlabel="CPU time of the hypergradient [ms]")
    for axis in axes[::3]:
        axis.set_ylabel("cosine")
    handles = [
        Line2D([], [], color=c, marker=m, ls="", label=name) for name, (c, m) in STYLES.items()
    ]
    for fill, text in (("full", "with the re-solved"), ("none", "with the exact, unsolved")):
        handles.append(Line2D([], [], color="black", marker="o", ls="", fillstyle=fill, label=text))
    figure.legend(handles=handles, loc="outside lower center", ncols=5, fontsize="small")
    write_atomically(FLAGS.out, lambda file: figure.savefig(file, format="png", dpi=110))

    first = next(iter(groups.values()))
    heads = [f"{setting} {step // 1000}k" for setting, step in groups]
    lines = [["solver", *(f"{setting} [ms]" for setting in settings), *heads]]
    for name in first:
        if name.startswith("after"):
            continue
        ms = [
            mean(float(r[name]["ms"] or "nan") for key, r in groups.items() if key[0] == s)
            for s in settings
        ]
        cells = [
            f"{float(r[name][RESOLVED]):.2f} / {float(r[name][UNSOLVED]):.2f}"
            for r in groups.values()
        ]
        lines.append([name, *("" if isnan(x) else f"{x:.1f}" for x in ms), *cells])
    table(lines)
    lines = [["", *heads]]
    for name, label in SHARED.items():
        same = [next(iter(rows.values()))[name] for rows in groups.values()]
        lines.append([label, *(f"{float(x):.3g}" for x in same)])
    lines.append(
        [
            "difference / gradient",
            *(f"{float(r['after 100']['slope_100']):.2f}" for r in groups.values()),
        ]
    )
    table(lines)


if __name__ == "__main__":
    app.run(main)
