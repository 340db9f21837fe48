"""Steps per second of DDPG on HalfCheetah-v5: this project, Stable-Baselines3 and SBX (JAX).

All do the same work but for what README.md lists; ours is `ddpg_cheetah --preset=original`.
"""

import subprocess
import sys
from functools import partial
from importlib import metadata
from pathlib import Path

from _timing import RATE, Row, compare, is_asked, loop_rate
from absl import app, flags

FLAGS = flags.FLAGS
HERE = Path(__file__).parent
flags.DEFINE_string("peers", str(HERE.parent / "build" / "peers"), "Where their environments are.")
flags.DEFINE_integer("torch_threads", 1, "PyTorch's; its own choice is all cores.", lower_bound=1)

PEERS = ("stable-baselines3", "sbx-rl")
NAMED = (*PEERS, "torch", "jax", "gymnasium", "mujoco", "numpy")


def versions(peer: str) -> str:
    """What its environment holds; ends the process if there is none."""
    sites = map(str, Path(FLAGS.peers, peer).glob("lib/python*/site-packages"))
    installed = metadata.distributions(path=list(sites))
    found = {one.name.lower().replace("_", "-"): one.version for one in installed}
    if peer not in found:
        sys.exit(f"error: {peer} is not in {FLAGS.peers}: benchmarks/README.md says how to install")
    return ", ".join(f"{name} {found[name]}" for name in NAMED if name in found)


def peer_rate(peer: str) -> Row:
    """Worker: a peer's DDPG, in its own environment; the process it starts is pinned as this one."""
    python, script = Path(FLAGS.peers, peer, "bin", "python"), HERE / "ddpg_peer.py"
    numbers = map(str, (FLAGS.warmup, FLAGS.steps, FLAGS.torch_threads))
    command = [python, "-I", script, peer, *numbers]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return {RATE: float(done.stdout.split()[-1])}


def main(_) -> None:
    ours = f"ours, {'overlapped' if FLAGS.cores > 1 else 'sequential'}"
    compare(
        "HalfCheetah-v5, nets 2x64 tanh, batch 64, 100 steps then 50 updates",
        {ours: partial(loop_rate, "ddpg_cheetah", [], "original")}
        | {peer: partial(peer_rate, peer) for peer in PEERS},
        [(ours, peer) for peer in PEERS],
        notes=[versions(peer) for peer in PEERS if is_asked(peer)],
    )


if __name__ == "__main__":
    app.run(main)
