"""Steps per second of DDPG on HalfCheetah-v5: this project, Stable-Baselines3 and SBX (JAX).

All do the same work: nets 2x64 tanh, batch 64, cycles of 100 steps then 50 updates, no evaluation,
a table and TensorBoard events written. Ours is the whole loop of `ddpg_cheetah --preset=original`,
so it also normalises observations, adapts its parameter noise and penalises the critic's weights,
which the peers do not; they add Gaussian noise to their actions.
"""

import subprocess
from functools import partial
from pathlib import Path

from _timing import RATE, Row, compare, loop
from absl import app, flags
from peers import PEERS, python_of, versions

FLAGS = flags.FLAGS
flags.DEFINE_integer("torch_threads", 1, "PyTorch's; its own choice is all cores.", lower_bound=1)


def peer_rate(peer: str) -> Row:
    """Worker: a peer's DDPG, in its own environment; the process it starts is pinned as this one."""
    script = Path(__file__).with_name("ddpg_peer.py")
    numbers = map(str, (FLAGS.warmup, FLAGS.steps, FLAGS.torch_threads))
    command = [python_of(peer), "-I", script, peer, *numbers]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {RATE: float(done.stdout.split()[-1])}


def main(_) -> None:
    ours = f"ours, {'overlapped' if FLAGS.cores > 1 else 'sequential'}"
    compare(
        "HalfCheetah-v5, nets 2x64 tanh, batch 64, 100 steps then 50 updates",
        {ours: loop("ddpg_cheetah", [], "original")}
        | {peer: partial(peer_rate, peer) for peer in PEERS},
        [(ours, peer) for peer in PEERS],
        notes=[versions(peer) for peer in PEERS],
    )


if __name__ == "__main__":
    app.run(main)
