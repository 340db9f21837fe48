"""Steps per second of `diffcritic_cheetah` against `ddpg_ensemble_cheetah`.

Every head and pairing sees as many transitions per update as the Q critic: a batch of 128 is 128
values or 64 differences. Coupled rollouts step two environments together, so they are compared
with a Q critic on two environments; a cycle is 100 transitions then 50 updates for all.
"""

from functools import partial

from _timing import compare, experiment_rate
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("batch_size", 128, "Transitions per update, for all.", lower_bound=2)
flags.DEFINE_enum("preset", "default", ["default", "original"], "Settings to start from.")
flags.DEFINE_list("heads", ["concat", "antisymmetric", "additive"], "Forms of the difference.")
flags.DEFINE_list("pairings", ["independent", "same_member", "coupled"], "What pairs share.")

ROBOTS = "env.ensemble_size=16"
TWO_ENVS = ["train.num_envs=2"]


def main(_) -> None:
    one, two = "Q critic", "Q critic, 2 environments"
    runs = {one: ("ddpg_ensemble_cheetah", [ROBOTS])}
    runs[two] = ("ddpg_ensemble_cheetah", [ROBOTS, *TWO_ENVS])
    pairs = []
    for pairing in FLAGS.pairings:
        coupled = pairing == "coupled"
        for head in FLAGS.heads:
            critic = [f"agent.critic={head}", f"agent.pairing={pairing}", ROBOTS]
            name = f"{head}, {pairing}"
            runs[name] = ("diffcritic_cheetah", critic + TWO_ENVS * coupled)
            pairs.append((name, two if coupled else one))
    batch = [f"agent.batch_size={FLAGS.batch_size}"]
    workers = {
        name: partial(experiment_rate, experiment, FLAGS.preset, batch + overrides)
        for name, (experiment, overrides) in runs.items()
    }
    compare(
        f"cheetah on MuJoCo, mass ensemble, batches of {FLAGS.batch_size} transitions",
        ["tensorflow", "gymnasium", "mujoco", "numpy"],
        workers,
        pairs,
    )


if __name__ == "__main__":
    app.run(main)
