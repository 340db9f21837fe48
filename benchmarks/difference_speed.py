"""Steps per second of `diffcritic_cheetah` against `ddpg_ensemble_cheetah`.

A batch of 128 is 128 values or 64 differences; coupled rollouts are compared with a Q critic on two
environments; a cycle is 100 transitions, then 50 updates for all.
"""

from functools import partial
from itertools import product

from _timing import compare, loop_rate
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("batch_size", 128, "Transitions per update, for all.", lower_bound=2)

HEADS, PAIRINGS = ("concat", "antisymmetric", "additive"), ("independent", "same_member", "coupled")


def main(_) -> None:
    one, two = "Q critic", "Q critic, 2 environments"
    shared = [f"agent.batch_size={FLAGS.batch_size}", "env.ensemble_size=16"]
    twins = [*shared, "train.num_envs=2"]
    peer = "ddpg_ensemble_cheetah"
    workers = {one: partial(loop_rate, peer, shared), two: partial(loop_rate, peer, twins)}
    pairs = []
    for pairing, head in product(PAIRINGS, HEADS):
        name, coupled = f"{head}, {pairing}", pairing == "coupled"
        chosen = [f"agent.critic={head}", f"agent.pairing={pairing}"]
        chosen += twins if coupled else shared
        workers[name] = partial(loop_rate, "diffcritic_cheetah", chosen)
        pairs.append((name, two if coupled else one))
    work = f"cheetah on MuJoCo, mass ensemble, batches of {FLAGS.batch_size} transitions"
    compare(work, workers, pairs)


if __name__ == "__main__":
    app.run(main)
