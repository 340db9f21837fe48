"""What logging and checkpoints cost a run at the defaults, and how long a checkpoint stops it.

Their share of the loop's time is clocked inside the run, whose other work is the peer.
`--rows` transitions are also saved at once into the replay's files, as at a first checkpoint late
in a run, and a second time with a thousand more, as at the next.
"""

import tempfile
import time
from functools import partial
from pathlib import Path

from _timing import Clock, compare, load_experiment, run, start_tensorflow
from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_list("exp", ["ddpg_cheetah", "diffcritic_cheetah", "omd_cartpole"], "What to run.")
flags.DEFINE_integer("rows", 1_000_000, "Transitions of HalfCheetah to save at once.", 1)
MORE = 1_000


class Calls(list):
    """(start, seconds) of each call of a function."""

    def around(self, function):
        """`function`, clocked."""

        def clocked(*args, **kwargs):
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.append((start, time.perf_counter() - start))

        return clocked

    def seconds(self, start: float = 0.0) -> list[float]:
        """Of those that began after the start."""
        return [seconds for began, seconds in self if began > start]


def shares(name: str) -> dict[str, float]:
    """Worker: thousandths of the loop's time, and the longest stop in milliseconds."""
    start_tensorflow()
    from baselines_tf2.runs import checkpoint, training

    experiment, settings = load_experiment(name, "default", [])
    rows, saves, clock = Calls(), Calls(), Clock()
    training.EpochRows.epoch = rows.around(training.EpochRows.epoch)
    checkpoint.Checkpoints.save = saves.around(checkpoint.Checkpoints.save)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = checkpoint.Checkpoints(Path(folder))
        experiment.prepare(settings, 0)(Path(folder), clock, checkpoints)
    (_, start), (_, end) = clock.first, clock.last
    *logged, last = rows.seconds(start)  # the last row's holds the evaluation at the end
    saved, seconds = saves.seconds(start), end - start - last
    return {
        "logging per mille": 1000 * sum(logged) / seconds,
        "checkpoints per mille": 1000 * sum(saved) / seconds,
        "longest checkpoint ms": 1000 * max(saved, default=0.0),
    }


def saving() -> dict[str, float]:
    """Worker: milliseconds that saving a large replay takes, all of it and a little more."""
    start_tensorflow()
    import numpy as np

    from baselines_tf2.common.replay import Replay, Rollout
    from baselines_tf2.runs.checkpoint import Checkpoints

    replay = Replay(17, 6, capacity=FLAGS.rows + MORE, gamma=0.99)
    saves = Calls()

    def transitions(count):
        rng = np.random.default_rng(0)
        flags = np.zeros((count, 1), bool)
        obs, actions = rng.random((count, 1, 17), np.float32), rng.random((count, 1, 6), np.float32)
        return Rollout(obs, actions, actions[..., 0], obs, flags, flags, flags.astype(int))

    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder))
        for step, count in enumerate((FLAGS.rows, MORE)):
            replay.add(transitions(count))
            saves.around(checkpoints.save)(step, replay.get_state(), replay)
    first, second = saves.seconds()
    return {"all at once ms": 1000 * first, "the next ms": 1000 * second}


def main(_) -> None:
    runs = {name: partial(shares, name) for name in FLAGS.exp}
    compare("logging and checkpoints, default settings", runs)
    compare("a large replay saved", {f"{FLAGS.rows:,} transitions": saving})


if __name__ == "__main__":
    run(main, rounds=3)
