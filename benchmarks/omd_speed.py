"""Steps per second of OMD's whole loop on CartPole and HalfCheetah, by agent and solver.

The original settings: one update per environment step, on CartPole critics of 2x32 units, on
HalfCheetah networks of 2x256; tables and TensorBoard events are written, evaluation is off the
clock. The peer is Q-learning on the same replay (`qlearning_cartpole`), which learns no model; the
original (JAX) no longer installs. `--cycle_steps` calls the learner less often, for as many updates.
"""

from _timing import compare, loop, run
from absl import flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("cycle_steps", 1, "Steps between calls of the learner.", lower_bound=1)

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
    runs = {f"omd_cartpole/{name}": [f"agent.solver.name={name}", *options]
            for name, options in SOLVERS.items()} | {name: [] for name in OTHERS}  # fmt: skip
    cycle = f"agent.cycle_steps={FLAGS.cycle_steps}"
    compare(
        "OMD, one update per step, original settings",
        {k: loop(k.partition("/")[0], [*texts, cycle], "original") for k, texts in runs.items()},
        [(name, PEER) for name in runs if "cartpole" in name and name != PEER],
    )


if __name__ == "__main__":
    run(main, warmup=1_000, steps=3_000, rounds=3)
