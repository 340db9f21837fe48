"""What an evaluation over many robots makes of the machine's cores, against one process.

Half-cheetahs of `--steps` / 1000 masses, one episode of 1000 steps each, by the actor of
`ddpg_cheetah` as it is drawn. Starting the other processes is on the clock.
"""

import time
from functools import partial

from _timing import (
    RATE,
    Row,
    in_turns,
    load_experiment,
    print_header,
    print_medians,
    print_ratios,
    require,
    start_tensorflow,
)
from absl import app, flags

FLAGS = flags.FLAGS
EPISODE = 1000  # [steps]


def evaluation_rate(cores: int) -> Row:
    """Worker: steps per second of an evaluation."""
    start_tensorflow()
    import numpy as np

    from baselines_tf2.common.rollout import as_envs
    from baselines_tf2.common.workers import evaluate_on_cores
    from baselines_tf2.ddpg.learn import make_agent
    from envs import make_env

    _, settings = load_experiment("ddpg_cheetah", "default", ())
    agent = make_agent(as_envs(make_env(settings.env, training=False)), settings.agent, 0)
    masses = np.linspace(1.5, 13.5, FLAGS.steps // EPISODE)
    robots = [{"torso_mass": float(mass)} for mass in masses]
    policy, rng = agent.policy(), np.random.default_rng(0)
    evaluate_on_cores(policy, settings.env, rng, robots[: FLAGS.warmup // EPISODE], cores=1)
    began = time.perf_counter()
    episodes = evaluate_on_cores(policy, settings.env, rng, robots, cores=cores)
    seconds = time.perf_counter() - began
    return {RATE: sum(episode.length for episode in episodes) / seconds}


def main(_) -> None:
    require({})
    print_header(
        f"{FLAGS.steps // EPISODE} robots, one episode each", ["gymnasium", "mujoco", "numpy"]
    )
    alone, together = "one process", f"{FLAGS.cores} processes"
    workers = {alone: partial(evaluation_rate, 1), together: partial(evaluation_rate, FLAGS.cores)}
    results = in_turns(workers)
    print_medians(results)
    print_ratios(results, [(together, alone)])


if __name__ == "__main__":
    flags.FLAGS.set_default("cores", 2)
    flags.FLAGS.set_default("steps", 100_000)
    flags.FLAGS.set_default("rounds", 3)
    app.run(main)
