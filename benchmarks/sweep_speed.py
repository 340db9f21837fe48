"""What a sweep of several runs makes of the machine's cores, against one run alone.

`run_experiments.py --seeds=...` with one seed and with `--runs` seeds take turns. A run's speed is
the median of `time/steps_per_second` over the rows of its table from `--warmup` steps on; a
sweep's is the sum of its runs'. Starting Ray and the workers is not in it.
"""

import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from _timing import RATE, compare, run
from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_string("exp", "omd_cartpole", "What to run.")
flags.DEFINE_multi_string("set", [], "A setting of the experiment, as in train.overlap=true.")
flags.DEFINE_integer("runs", 2, "Runs at a time, a core each.", 2)
DRIVER = Path(__file__).parents[1] / "run_experiments.py"


def sweep_rate(runs: int) -> dict[str, float]:
    """Worker: steps per second of a sweep over so many seeds."""
    from baselines_tf2.common.files import read_table

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(DRIVER), f"--exp={FLAGS.exp}", f"--logdir={folder}"]
        command += [f"--seeds=0-{runs - 1}", f"--num_timesteps={FLAGS.warmup + FLAGS.steps}"]
        command += ["--set=train.eval_interval=1000000000", "--set=train.eval_episodes=1"]
        subprocess.run([*command, *(f"--set={text}" for text in FLAGS.set)], check=True)
        tables = [read_table(path) for path in sorted(Path(folder).rglob("metrics.csv"))]
    return {RATE: sum(_rate(rows) for rows in tables)}


def _rate(rows):
    timed = [row for row in rows if int(row["step"]) > FLAGS.warmup]
    return median(float(row["time/steps_per_second"]) for row in timed)


def main(_) -> None:
    changes = "".join(f", {text}" for text in FLAGS.set)
    alone, together = "one run", f"{FLAGS.runs} runs"
    compare(
        f"{FLAGS.exp}{changes}",
        {alone: partial(sweep_rate, 1), together: partial(sweep_rate, FLAGS.runs)},
        [(together, alone)],
    )


if __name__ == "__main__":
    run(main, cores=2, warmup=3_000, steps=10_000, rounds=3)
