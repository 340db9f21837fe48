"""What the benchmarks share: fresh processes that take turns on pinned cores, medians, tables.

A worker is a function of a module's top level that returns {what: number}. It imports what it
measures inside itself, so that a process loads no more than it needs.
"""

import multiprocessing
import os
import platform
import re
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from importlib import metadata
from pathlib import Path
from statistics import median

from absl import flags

from baselines_tf2.common.threads import set_threads

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 5, "How often each takes its turn.", lower_bound=1)
flags.DEFINE_integer("cores", 1, "Cores for each process; from 2 on ours overlaps.", lower_bound=1)
flags.DEFINE_integer("warmup", 10_000, "Steps before the clock, compilation in them.", 1)
flags.DEFINE_integer("steps", 40_000, "Steps on the clock.", 1)
flags.DEFINE_list("only", [""], "Those whose names hold one of these texts; default: all.")

RATE = "steps/s"
LIBRARIES = ("tensorflow", "gymnasium", "mujoco", "numpy")

Row = dict[str, float]  # what a worker measured


class Clock:
    """Steps per second after the warm-up; the `Progress` of the project's runs."""

    def __init__(self):
        self.first = self.last = (0, time.perf_counter())

    def update(self, step: int, _=None) -> None:
        """Notes the time once `step` steps and the training that goes with them are done."""
        self.last = (step, time.perf_counter())
        if step <= FLAGS.warmup:
            self.first = self.last

    def rate(self) -> float:
        (step0, time0), (step1, time1) = self.first, self.last
        return (step1 - step0) / (time1 - time0)


def set_defaults(**values: int) -> None:
    """Gives a benchmark its own defaults, where it is imported: its processes have them, too."""
    for name, value in values.items():
        FLAGS.set_default(name, value)


def _in_turns(workers: Mapping[str, Callable[[], Row]]) -> dict[str, list[Row]]:
    """Runs A B C A B C ..., each in a fresh process; a row for each round."""
    results = {name: [] for name in workers}
    for turn in range(FLAGS.rounds):
        for name, worker in workers.items():
            row = _run_fresh(worker)
            results[name].append(row)
            text = ", ".join(f"{value:,.0f} {what}" for what, value in row.items())
            print(f"round {turn + 1}: {name}: {text}", file=sys.stderr, flush=True)
    return results


def _run_fresh(worker):
    context = multiprocessing.get_context("spawn")
    # What the libraries say as they start is of interest only if the worker fails.
    with tempfile.NamedTemporaryFile("r", errors="replace") as log:
        try:
            with ProcessPoolExecutor(1, context, initializer=_start, initargs=(log.name,)) as one:
                return one.submit(worker).result()
        except Exception:
            sys.stderr.write(log.read())
            raise


def _start(log):
    """Pins the process before libraries are imported, which size their thread pools by it."""
    os.dup2(os.open(log, os.O_WRONLY | os.O_APPEND), sys.stderr.fileno())
    FLAGS(sys.argv)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: FLAGS.cores])
    set_threads()  # as the driver
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # it is cores that are compared


def timed_run(name: str, overrides: Sequence[str], preset: str = "default") -> Clock:
    """An experiment's whole loop, files written: no evaluation, training from the first cycle."""
    from baselines_tf2.ddpg.experiments import EXPERIMENTS as DDPG
    from baselines_tf2.runs.checkpoint import Checkpoints
    from baselines_tf2.runs.experiment import find_experiment, make_settings
    from omd_tf2.cartpole.experiments import EXPERIMENTS as CARTPOLE
    from omd_tf2.halfcheetah.experiments import EXPERIMENTS as HALFCHEETAH

    experiment = find_experiment(DDPG | CARTPOLE | HALFCHEETAH, name)
    timed = [
        "train.random_steps=0",
        f"train.num_timesteps={FLAGS.warmup + FLAGS.steps}",
        "train.eval_interval=1e9",  # but for the one at a run's end, off the clock
        "train.eval_episodes=1",
    ]
    if name in DDPG:  # the others train in turns alone
        timed.append(f"train.overlap={FLAGS.cores > 1}")
    settings = make_settings(experiment, preset, None, [*timed, *overrides])
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        experiment.prepare(settings, 0)(Path(folder), clock, Checkpoints(Path(folder)))
    return clock


def loop_rate(name: str, overrides: Sequence[str], preset: str = "default") -> Row:
    """Worker: steps per second of `timed_run`."""
    return {RATE: timed_run(name, overrides, preset).rate()}


def is_asked(name: str) -> bool:
    """Whether --only leaves it in."""
    return any(text in name for text in FLAGS.only)


def compare(
    work: str,
    workers: Mapping[str, Callable[[], Row]],
    pairs: Sequence[tuple[str, str]] = (),
    columns: Sequence[str] = (RATE,),
    notes: Sequence[str] = (),
) -> None:
    """Prints what is measured, on what and with which versions; then the medians and their ratios.

    notes: more lines on the versions. Stops with one line where the processes cannot be pinned.
    """
    workers = {name: worker for name, worker in workers.items() if is_asked(name)}
    if not workers:
        sys.exit(f"error: --only={','.join(FLAGS.only)} leaves nothing to time")
    if not hasattr(os, "sched_setaffinity"):
        sys.exit("error: the benchmarks pin processes to cores, which only Linux lets them")
    if FLAGS.cores > len(os.sched_getaffinity(0)):
        sys.exit(f"error: --cores={FLAGS.cores}, and there are {len(os.sched_getaffinity(0))}")
    versions = [f"{x} {metadata.version(x)}" for x in LIBRARIES]
    cpus = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    print(f"work      {work}")
    print(f"timed     {FLAGS.steps:,} steps after {FLAGS.warmup:,}, {FLAGS.rounds} turns each")
    print(f"cores     {FLAGS.cores} for each, of {os.cpu_count()} of {(cpus or ['unknown'])[0]}")
    print(f"load      {os.getloadavg()[0]:.1f} before the start; should be near 0")
    print(f"versions  python {platform.python_version()}, {', '.join(versions)}")
    print(*(f"          {note}" for note in notes), "", sep="\n", flush=True)
    results = _in_turns(workers)
    measured = list(next(iter(results.values()))[0])
    lines = [["median (range)", *measured]]
    for name, rows in results.items():
        values = ([row[column] for row in rows] for column in measured)
        lines.append([name, *(f"{median(x):,.0f} ({min(x):,.0f}-{max(x):,.0f})" for x in values)])
    _print_aligned(lines)
    if pairs := [pair for pair in pairs if set(pair) <= set(workers)]:
        lines = [["ratio (range)", *columns]]
        for a, b in pairs:
            lines.append([f"{a} / {b}", *(_ratio(results[a], results[b], x) for x in columns)])
        _print_aligned(lines)


def _ratio(a: Sequence[Row], b: Sequence[Row], column: str) -> str:
    """That of the medians, and the range of the rounds' ratios."""
    x, y = ([row[column] for row in rows] for rows in (a, b))
    each = [one / other for one, other in zip(x, y, strict=True)]
    return f"{median(x) / median(y):.2f} ({min(each):.2f}-{max(each):.2f})"


def _print_aligned(lines):
    first, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
    for name, *cells in lines:
        print(name.ljust(first), *map(str.rjust, cells, others), sep="  ")
    print()
