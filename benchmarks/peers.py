"""Installs the peers of the benchmarks, each into an environment of its own.

`python benchmarks/peers.py`, once. With this project's packages in the same one SBX fails: its
`tfp-nightly` and our `tensorflow-probability` are one folder.
"""

import os
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

from absl import app, flags

FLAGS = flags.FLAGS
ROOT = Path(__file__).parents[1]
flags.DEFINE_string("peers", str(ROOT / "build" / "peers"), "The folder of their environments.")

PEERS = {"stable-baselines3": "stable-baselines3>=2.4", "sbx-rl": "sbx-rl>=0.20"}
SHARED = ("gymnasium[mujoco]>=1.2", "tensorboard>=2.20")
NAMED = (*PEERS, "torch", "jax", "gymnasium", "mujoco", "numpy")


def python_of(peer: str) -> Path:
    """The interpreter of a peer's environment, which may not be there yet."""
    return Path(FLAGS.peers, peer, "bin", "python")


def versions(peer: str) -> str:
    """What its environment holds; ends the process, saying the cure, if there is none."""
    sites = map(str, Path(FLAGS.peers, peer).glob("lib/python*/site-packages"))
    installed = metadata.distributions(path=list(sites))
    found = {one.name.lower().replace("_", "-"): one.version for one in installed}
    if peer not in found:
        sys.exit(f"error: {peer} is not in {FLAGS.peers}: python benchmarks/peers.py installs it")
    return ", ".join(f"{name} {found[name]}" for name in NAMED if name in found)


def main(_) -> None:
    for peer, requirement in PEERS.items():
        venv.create(Path(FLAGS.peers, peer), clear=True, with_pip=True)
        command = [python_of(peer), "-m", "pip", "install", requirement, *SHARED]
        without = {name: x for name, x in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run(command, check=True, env=without)
        print(f"{peer}: {versions(peer)}")


if __name__ == "__main__":
    app.run(main)
