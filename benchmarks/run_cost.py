"""What logging and checkpoints cost a run at the defaults, and what a full replay costs.

The share of logging and checkpoints in the loop's time is clocked inside the run, whose other work
is the peer. Replays of 10,000 transitions of HalfCheetah and of `--rows`, each an episode of its
own, are sampled from, 50 batches of 256 a turn; and saved at once, as at a first checkpoint late in
a run, and a second time with a thousand more, as at the next.
"""

import resource
import tempfile
import time
from functools import partial
from pathlib import Path

from _timing import Row, compare, is_asked, set_defaults, timed_run
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("exp", ["ddpg_cheetah", "diffcritic_cheetah", "omd_cartpole"], "What to run.")
flags.DEFINE_integer("rows", 1_000_000, "Transitions of the large replay.", 1)
set_defaults(rounds=3)
FEW, MORE, BATCHES, SAMPLED = 10_000, 1_000, 50, "batches sampled/s"


def clocked(function, calls: list[tuple[float, float]]):
    """`function`, each call's start and seconds added to `calls`."""

    def call(*args, **kwargs):
        start = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            calls.append((start, time.perf_counter() - start))

    return call


def shares(name: str) -> Row:
    """Worker: thousandths of the loop's time, and the longest stop in milliseconds."""
    from baselines_tf2.runs import checkpoint, training

    rows, saves = [], []
    training.EpochRows.epoch = clocked(training.EpochRows.epoch, rows)
    checkpoint.Checkpoints.save = clocked(checkpoint.Checkpoints.save, saves)
    clock = timed_run(name, [])
    (_, start), (_, end) = clock.first, clock.last
    logged, saved = ([x for began, x in calls if began > start] for calls in (rows, saves))
    *logged, last = logged  # the last row's holds the evaluation at the end
    per_mille = 1000 / (end - start - last)
    return {
        "logging per mille": per_mille * sum(logged),
        "checkpoints per mille": per_mille * sum(saved),
        "longest checkpoint ms": 1000 * max(saved, default=0.0),
    }


def replay_costs(rows: int) -> Row:
    """Worker: of a replay that holds so many transitions."""
    import numpy as np

    from baselines_tf2.common.replay import Replay, Rollout
    from baselines_tf2.runs.checkpoint import Checkpoints

    replay = Replay(17, 6, capacity=rows + MORE, gamma=0.99)
    rng, saves = np.random.default_rng(0), []
    with tempfile.TemporaryDirectory() as folder:
        save = clocked(Checkpoints(Path(folder)).save, saves)
        for step, count in enumerate((rows, MORE)):
            flags = np.ones((count, 1), bool)
            obs = rng.random((2, count, 1, 17), np.float32)
            actions = rng.random((count, 1, 6), np.float32)
            replay.add(
                Rollout(obs[0], actions, actions[..., 0], obs[1], ~flags, flags, flags.astype(int))
            )
            save(step, replay.get_state(), replay)
    turns, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < 2:
        replay.sample_many(rng, BATCHES, 256)
        turns += 1
    return {
        SAMPLED: BATCHES * turns / seconds,
        "all at once ms": 1000 * saves[0][1],
        "the next ms": 1000 * saves[1][1],
        "peak MiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main(_) -> None:
    runs = {name: partial(shares, name) for name in FLAGS.exp}
    if any(map(is_asked, runs)):
        compare("logging and checkpoints, default settings", runs)
    few, many = (f"{rows:,} held" for rows in (FEW, FLAGS.rows))
    workers = {few: partial(replay_costs, FEW), many: partial(replay_costs, FLAGS.rows)}
    if any(map(is_asked, workers)) or not any(map(is_asked, runs)):
        compare("a replay sampled from and saved", workers, [(many, few)], (SAMPLED,))


if __name__ == "__main__":
    app.run(main)
