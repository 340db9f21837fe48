"""DDPG of one peer, in the peer's own environment: `ddpg_speed.py` starts it and reads its rate."""

import sys
import tempfile
import time

import numpy as np
from stable_baselines3.common.logger import configure
from stable_baselines3.common.noise import NormalActionNoise


def main(peer: str, warmup: int, steps: int, torch_threads: int) -> None:
    """Prints steps per second of the peer, whose interface is that of Stable-Baselines3."""
    if peer == "sbx-rl":
        from flax.linen import tanh
        from sbx import DDPG
    else:
        import torch
        from stable_baselines3 import DDPG
        from torch.nn import Tanh as tanh

        torch.set_num_threads(torch_threads)
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
        model.learn(warmup, log_interval=2)
        start = time.perf_counter()
        model.learn(steps, log_interval=2, reset_num_timesteps=False)
        print(steps / (time.perf_counter() - start))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
