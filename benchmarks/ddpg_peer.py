"""DDPG of one peer, in the peer's own environment: `ddpg_speed.py` starts it and reads its rate."""

import sys
import tempfile
import time

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.noise import NormalActionNoise


class Watch(BaseCallback):
    """Steps per second after the warm-up, noted once the training of a cycle is done."""

    def __init__(self, warmup: int):
        super().__init__()
        self._warmup = warmup
        self._first = self._last = (0, time.perf_counter())

    def _on_rollout_start(self):  # follows the last cycle's training
        self._last = (self.model.num_timesteps, time.perf_counter())
        if self.model.num_timesteps <= self._warmup:
            self._first = self._last

    _on_training_end = _on_rollout_start

    def _on_step(self):
        return True

    def rate(self) -> float:
        (step0, time0), (step1, time1) = self._first, self._last
        return (step1 - step0) / (time1 - time0)


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
    watch = Watch(warmup)
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
        model.learn(warmup + steps, callback=watch, log_interval=2)
    print(watch.rate())


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
