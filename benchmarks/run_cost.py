"""What logging and checkpoints cost a run at the defaults, and how long a checkpoint stops it.

Their share of the loop's time is clocked inside the run, whose other work is the peer.
`--rows` transitions are also saved at once into the replay's files, as at a first checkpoint late
in a run, and a second time with a thousand more, as at the next.
"""

import tempfile
import time
from functools import partial
from pathlib import Path

from _timing import compare, load_experiment, start_tensorflow
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("exp", ["ddpg_cheetah", "diffcritic_cheetah", "omd_cartpole"], "What to run.")
flags.DEFINE_integer("rows", 1_000_000, "Transitions of HalfCheetah to save at once.", 1)
MORE = 1_000


class Stopwatch:
    """Seconds of each call since `reset`."""

    def __init__(self):
        self.calls = []

    def reset(self) -> None:
        self.calls.clear()

    def around(self, function):
        """`function`, clocked."""

        def clocked(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.calls.append(time.perf_counter() - start)

        return clocked


class Span:
    """The run's progress: when the warm-up ended, where the watches start, and the run."""

    def __init__(self, *watches: Stopwatch):
        self.start = self.end = None
        self._watches = watches

    def update(self, step: int, _=None) -> None:
        self.end = time.perf_counter()
        if step <= FLAGS.warmup:
            self.start = self.end
            for watch in self._watches:
                watch.reset()


def shares(name: str) -> dict[str, float]:
    """Worker: thousandths of the loop's time, and the longest stop in milliseconds."""
    start_tensorflow()
    from baselines_tf2.runs import checkpoint, training

    experiment, settings = load_experiment(name, "default", [])
    rows, saves = Stopwatch(), Stopwatch()
    span = Span(rows, saves)
    training.EpochRows.epoch = rows.around(training.EpochRows.epoch)
    checkpoint.Checkpoints.save = saves.around(checkpoint.Checkpoints.save)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = checkpoint.Checkpoints(Path(folder))
        experiment.prepare(settings, 0)(Path(folder), span, checkpoints)
    *logged, last = rows.calls  # the last row's holds the evaluation at the end
    seconds = span.end - span.start - last
    return {
        "logging per mille": 1000 * sum(logged) / seconds,
        "checkpoints per mille": 1000 * sum(saves.calls) / seconds,
        "longest checkpoint ms": 1000 * max(saves.calls, default=0.0),
    }


def saving() -> dict[str, float]:
    """Worker: milliseconds that saving a large replay takes, all of it and a little more."""
    start_tensorflow()
    import numpy as np

    from baselines_tf2.common.replay import Replay, Rollout
    from baselines_tf2.runs.checkpoint import Checkpoints

    replay = Replay(17, 6, capacity=FLAGS.rows + MORE, gamma=0.99)
    watch = Stopwatch()

    def transitions(count):
        rng = np.random.default_rng(0)
        flags = np.zeros((count, 1), bool)
        obs, actions = rng.random((count, 1, 17), np.float32), rng.random((count, 1, 6), np.float32)
        return Rollout(obs, actions, actions[..., 0], obs, flags, flags, flags.astype(int))

    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        for step, count in enumerate((FLAGS.rows, MORE)):
            replay.add(transitions(count))
            watch.around(checkpoints.save)(step, replay.get_state(), replay)
    return {"all at once ms": 1000 * watch.calls[0], "the next ms": 1000 * watch.calls[1]}


def main(_) -> None:
    libraries = ["tensorflow", "gymnasium", "mujoco", "numpy"]
    runs = {name: partial(shares, name) for name in FLAGS.exp}
    compare("logging and checkpoints, default settings", libraries, runs)
    compare("a large replay saved", libraries, {f"{FLAGS.rows:,} transitions": saving})


if __name__ == "__main__":
    flags.FLAGS.set_default("rounds", 3)
    app.run(main)
