"""Whether speed falls, and how far memory grows, as the replay fills to 1M transitions.

Both replays are full from the start and stay so: one holds 10,000 transitions, one a million. The
loop is `train` without log files; sampling is timed apart from it. The peak is the whole process's,
evaluation diagnostics included.
"""

import resource
import time
from functools import partial

from _timing import RATE, Clock, Row, compare, load_experiment, start_tensorflow
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("exp", "ddpg_cheetah", "The experiment.")
flags.DEFINE_enum("preset", "original", ["default", "original"], "Settings to start from.")
flags.DEFINE_multi_string("set", [], "Override a setting, as in --set=agent.n_step=5.")
flags.DEFINE_integer("episode_steps", 1000, "Length of the episodes that the replay holds.", 1)

FILLS = (10_000, 1_000_000)
SAMPLED, ROWS = "batches sampled/s", 1000


def fill_rates(fill: int) -> Row:
    """Worker: sampling and the loop with a replay that holds `fill` transitions."""
    start_tensorflow()
    import numpy as np

    from baselines_tf2.common.rollout import SerialEnvs
    from baselines_tf2.ddpg.learn import make_agent, make_loop, spawn_seeds
    from envs import make_env

    overrides = [*FLAGS.set, f"agent.replay_size={fill}"]
    _, settings = load_experiment(FLAGS.exp, FLAGS.preset, overrides)
    config, seeds, clock = settings.agent, spawn_seeds(0), Clock()
    train = settings.train
    made = [make_env(settings.env, training=True) for _ in range(train.num_envs)]
    envs = SerialEnvs(made, twins=config.pairing == "coupled")
    agent = make_agent(envs, config, seeds.agent)
    rng = np.random.default_rng(0)
    for chunk in range(fill // (ROWS * train.num_envs)):
        agent.store(_transitions(rng, envs, chunk * ROWS))
    length = train.num_timesteps, train.random_steps
    loop = make_loop(agent, envs, train, *length, seeds=seeds)
    loop.run(lambda epoch: None, clock.update)
    agent.diagnostics()
    sampled = _sampling_rate(rng, agent)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {RATE: clock.rate(), SAMPLED: sampled, "peak MiB": peak}


def _transitions(rng, envs, start):
    """Random ones in episodes of --episode_steps, each with a robot of its own."""
    import numpy as np

    from baselines_tf2.common.replay import Rollout

    shape = (ROWS, envs.num_envs)
    obs_dim, action_dim = envs.observation_space.shape[0], envs.action_space.shape[0]
    episodes, steps = np.divmod(start + np.arange(ROWS), FLAGS.episode_steps)
    return Rollout(
        obs0=rng.standard_normal((*shape, obs_dim), np.float32),
        actions=rng.uniform(-1, 1, (*shape, action_dim)).astype(np.float32),
        rewards=rng.standard_normal(shape, np.float32),
        obs1=rng.standard_normal((*shape, obs_dim), np.float32),
        terminals1=np.zeros(shape, bool),
        ends=np.repeat(steps == FLAGS.episode_steps - 1, envs.num_envs).reshape(shape),
        members=np.repeat(episodes, envs.num_envs).reshape(shape),
    )


def _sampling_rate(rng, agent, seconds=2.0):
    """Batches per second, a cycle's at a time as in training."""
    config, drawn, start = agent.config, 0, time.perf_counter()
    count, size = config.nb_train_steps, config.batch_size
    while time.perf_counter() - start < seconds:
        agent.replay.sample_many(rng, count, size, paired=config.paired)
        drawn += count
    return drawn / (time.perf_counter() - start)


def main(_) -> None:
    changes = "".join(f", {text}" for text in FLAGS.set)
    low, high = (f"{fill:,} held" for fill in FILLS)
    compare(
        f"{FLAGS.exp}, preset {FLAGS.preset}{changes}, episodes of {FLAGS.episode_steps} steps",
        {f"{fill:,} held": partial(fill_rates, fill) for fill in FILLS},
        [(high, low)],
        (RATE, SAMPLED),
    )


if __name__ == "__main__":
    app.run(main)
