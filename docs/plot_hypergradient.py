"""Draws docs/hypergradient.png and prints the tables of docs/measurements.md from the benchmark.

`python docs/plot_hypergradient.py` after `python benchmarks/hypergradient.py`.
"""

from math import isnan
from pathlib import Path
from statistics import mean

from absl import app, flags
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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


def draw(axis, rows: list[dict[str, str]]) -> None:
    """Both cosines of one snapshot against the time."""
    for row in rows:
        color, marker = STYLES[row["solver"].rstrip("0.15 ")]
        x, resolved, unsolved = (float(row[name]) for name in ("ms", RESOLVED, UNSOLVED))
        axis.plot(x, resolved, marker, color=color, ms=8, alpha=0.85, mec="white", mew=0.5)
        axis.plot(x, unsolved, marker, color=color, ms=5, mfc="none", alpha=0.7)
        if "corrected" in row["solver"]:
            text = row["solver"].split()[-1]
            axis.annotate(text, (x, resolved), (-7, 0), textcoords="offset points", fontsize=6,
                          ha="right", va="center", color=color)  # fmt: skip
    axis.set(xscale="log", ylim=(-1.05, 1.05))
    axis.axhline(0, color="black", lw=0.8)
    axis.grid(alpha=0.3, which="both")


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
    axes = figure.subplots(len(settings), 3, sharey=True, sharex="row").flatten()
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
            mean(float(r[name]["ms"] or "nan") for key, r in groups.items() if key[0] == s) for s in settings
        ]
        cells = [
            f"{float(r[name][RESOLVED]):.2f} / {float(r[name][UNSOLVED]):.2f}"
            for r in groups.values()
        ]
        lines.append([name, *("" if isnan(x) else f"{x:.1f}" for x in ms), *cells])
    table(lines)
    shown = list(next(iter(first.values())))[2:12]
    lines = [["", *heads]]
    for name in shown:
        lines.append(
            [name, *(f"{float(next(iter(r.values()))[name]):.3g}" for r in groups.values())]
        )
    lines.append(["slope", *(f"{float(r['after 100']['slope_100']):.2f}" for r in groups.values())])
    table(lines)


if __name__ == "__main__":
    app.run(main)
