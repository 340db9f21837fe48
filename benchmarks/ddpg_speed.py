"""Steps per second of DDPG on HalfCheetah-v5: this project, Stable-Baselines3 and SBX (JAX).

All do the same work: nets 2x64 tanh, batch 64, cycles of 100 steps then 50 updates, no evaluation,
a table and TensorBoard events written. Ours is the whole loop of `ddpg_cheetah --preset=original`,
so it also normalises observations, adapts its parameter noise and penalises the critic's weights,
which the peers do not; they add Gaussian noise to their actions.
"""

import tempfile
from functools import partial

from _timing import (
    RATE,
    Clock,
    Row,
    experiment_rate,
    in_turns,
    print_header,
    print_medians,
    print_ratios,
    require,
)
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("torch_threads", 1, "PyTorch's; its own choice is all cores.", lower_bound=1)

PEERS = {"stable_baselines3": "stable-baselines3", "sbx": "sbx-rl"}


def peer_rate(module: str) -> Row:
    """Worker: DDPG of Stable-Baselines3 or SBX, whose interface is the same."""
    import numpy as np
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.logger import configure
    from stable_baselines3.common.noise import NormalActionNoise

    if module == "sbx":
        from flax.linen import tanh
        from sbx import DDPG
    else:
        import torch
        from stable_baselines3 import DDPG
        from torch.nn import Tanh as tanh

        torch.set_num_threads(FLAGS.torch_threads)

    class Watch(BaseCallback):
        def _on_rollout_start(self):  # follows the last cycle's training
            clock.update(self.model.num_timesteps)

        _on_training_end = _on_rollout_start

        def _on_step(self):
            return True

    clock = Clock()
    model = DDPG(
        "MlpPolicy",
        "HalfCheetah-v5",
        policy_kwargs={"net_arch": [64, 64], "activation_fn": tanh},
        batch_size=64,
        train_freq=100,
        gradient_steps=50,
        tau=0.01,
        action_noise=NormalActionNoise(np.zeros(6), np.full(6, 0.2)),
        seed=0,
        device="cpu",
    )
    with tempfile.TemporaryDirectory() as folder:
        model.set_logger(configure(folder, ["csv", "tensorboard"]))
        # Episodes have 1,000 steps: a row every 2,000, as ours.
        model.learn(FLAGS.warmup + FLAGS.steps, callback=Watch(), log_interval=2)
    return {RATE: clock.rate()}


def main(_) -> None:
    require(PEERS)
    print_header(
        "HalfCheetah-v5, nets 2x64 tanh, batch 64, 100 steps then 50 updates",
        ["tensorflow", "torch", "jax", *PEERS.values(), "gymnasium", "mujoco", "numpy"],
    )
    ours = f"ours, {'overlapped' if FLAGS.cores > 1 else 'sequential'}"
    results = in_turns(
        {ours: partial(experiment_rate, "ddpg_cheetah", "original")}
        | {name: partial(peer_rate, module) for module, name in PEERS.items()}
    )
    print_medians(results)
    print_ratios(results, [(ours, name) for name in PEERS.values()])


if __name__ == "__main__":
    app.run(main)
