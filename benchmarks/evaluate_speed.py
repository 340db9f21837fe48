"""What an evaluation over many robots makes of the machine's cores, against one process.

Half-cheetahs of `--steps` / 1000 masses, one episode of 1000 steps each, by the actor of
`ddpg_cheetah` as it is drawn. As in the driver the other processes load while the agent is built.
"""

import time
from contextlib import closing
from functools import partial

from _timing import RATE, Row, compare, load_experiment, set_defaults
from absl import app, flags

FLAGS = flags.FLAGS
set_defaults(cores=2, steps=100_000, rounds=3)
EPISODE = 1000  # [steps]


def evaluation_rate(cores: int) -> Row:
    """Worker: steps per second of an evaluation."""
    import numpy as np

    from baselines_tf2.common.rollout import as_envs
    from baselines_tf2.ddpg.learn import make_agent
    from baselines_tf2.runs.judging import evaluate
    from baselines_tf2.runs.workers import Workers
    from envs import make_env

    masses = np.linspace(1.5, 13.5, FLAGS.steps // EPISODE)
    robots = [{"torso_mass": float(mass)} for mass in masses]
    with closing(Workers(cores)) as workers:
        _, settings = load_experiment("ddpg_cheetah", "default", ())
        env = make_env(settings.env, training=False)
        policy, rng = make_agent(as_envs(env), settings.agent, 0).policy(), np.random.default_rng(0)
        evaluate(policy, env, rng, robots[: FLAGS.warmup // EPISODE])
        began = time.perf_counter()
        episodes = workers.evaluate(policy, settings.env, rng, robots)
        seconds = time.perf_counter() - began
    return {RATE: sum(episode.length for episode in episodes) / seconds}


def main(_) -> None:
    alone, together = "one process", f"{FLAGS.cores} processes"
    compare(
        f"{FLAGS.steps // EPISODE} robots, one episode each",
        {alone: partial(evaluation_rate, 1), together: partial(evaluation_rate, FLAGS.cores)},
        [(together, alone)],
    )


if __name__ == "__main__":
    app.run(main)
