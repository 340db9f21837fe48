"""Steps per second of OMD's whole loop on CartPole and HalfCheetah, by agent and solver.

The peer is Q-learning on the same replay, which learns no model; the original (JAX) no longer
installs. `--cycle_steps` calls the learner less often, for as many updates.
"""

from functools import partial

from _timing import compare, loop_rate, set_defaults
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("cycle_steps", 1, "Steps between calls of the learner.", lower_bound=1)
set_defaults(warmup=1_000, steps=3_000, rounds=3)

USE = "agent.solver.on_failure=use"
SOLVERS = {
    "identity": [],
    "gauss_newton": ["agent.solver.ridge=0.1", "agent.solver.tol=1e-3"],
    "minres": ["agent.solver.ridge=1e-5", "agent.solver.max_steps=50", USE],
    "cg": ["agent.solver.ridge=1e-5", "agent.solver.max_steps=100", USE],
}
PEER = "qlearning_cartpole"
OTHERS = ("mle_cartpole", "vep_cartpole", "vaml_cartpole", PEER, "omd_cheetah", "mle_cheetah")


def main(_) -> None:
    cycle, workers = f"agent.cycle_steps={FLAGS.cycle_steps}", {}
    for solver, options in SOLVERS.items():
        chosen = [f"agent.solver.name={solver}", *options, cycle]
        workers[f"omd_cartpole/{solver}"] = partial(loop_rate, "omd_cartpole", chosen, "original")
    workers |= {name: partial(loop_rate, name, [cycle], "original") for name in OTHERS}
    pairs = [(name, PEER) for name in workers if "cartpole" in name and name != PEER]
    compare("OMD, one update per step, original settings", workers, pairs)


if __name__ == "__main__":
    app.run(main)
