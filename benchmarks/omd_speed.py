"""Steps per second of OMD's whole loop on CartPole and HalfCheetah, by agent and solver.

The original settings: one update per environment step, on CartPole critics of 2x32 units, on
HalfCheetah networks of 2x256; tables and TensorBoard events are written, evaluation is off the
clock. The peer is Q-learning on the same replay (`qlearning_cartpole`), which learns no model; the
original (JAX) no longer installs. `--cycle_steps` calls the learner less often, for as many updates.
"""

import sys
from functools import partial

from _timing import compare, experiment_rate
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("cycle_steps", 1, "Steps between calls of the learner.", lower_bound=1)
flags.DEFINE_list("only", [], "Names from the table to be timed; all by default.")

USE = "agent.solver.on_failure=use"
SOLVERS = {
    "identity": [],
    "gauss_newton": ["agent.solver.ridge=0.1", "agent.solver.tol=1e-3"],
    "minres": ["agent.solver.ridge=1e-5", "agent.solver.max_steps=50", USE],
    "cg": ["agent.solver.ridge=1e-5", "agent.solver.max_steps=100", USE],
}
PEER = "qlearning_cartpole"


def workers() -> dict:
    """Name in the table -> worker."""
    from envs import unknown

    runs = {f"omd_cartpole/{name}": ("omd_cartpole", [f"agent.solver.name={name}", *options])
            for name, options in SOLVERS.items()}  # fmt: skip
    others = ("mle_cartpole", "vep_cartpole", "vaml_cartpole", PEER, "omd_cheetah", "mle_cheetah")
    runs |= {name: (name, []) for name in others}
    for name in FLAGS.only:
        if name not in runs:
            sys.exit(f"error: {unknown('name', name, runs)}")
    if FLAGS.only:
        runs = {name: run for name, run in runs.items() if name in FLAGS.only}
    cycle = f"agent.cycle_steps={FLAGS.cycle_steps}"
    return {
        name: partial(experiment_rate, experiment, "original", [*overrides, cycle])
        for name, (experiment, overrides) in runs.items()
    }


def main(_) -> None:
    timed = workers()
    names = [name for name in timed if "cartpole" in name]
    compare(
        "OMD, one update per step, original settings",
        ["tensorflow", "gymnasium", "mujoco", "numpy"],
        timed,
        [(name, PEER) for name in names if name != PEER] if PEER in names else (),
    )


if __name__ == "__main__":
    flags.FLAGS.set_default("warmup", 1_000)
    flags.FLAGS.set_default("steps", 3_000)
    flags.FLAGS.set_default("rounds", 3)
    app.run(main)
