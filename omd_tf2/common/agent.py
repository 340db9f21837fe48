"""What the agents of both settings have in common: all but how they act and what they learn."""

import json
import math
from abc import abstractmethod
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow as tf

from baselines_tf2.common.compile import called_directly, compiled
from baselines_tf2.common.errors import DIVERGED, TrainingError, check_finite
from baselines_tf2.common.files import read_arrays, write_arrays
from baselines_tf2.common.replay import Replay, Rollout
from baselines_tf2.common.train_loop import Agent
from envs.errors import ConfigError
from omd_tf2.common.transition import from_replay
from omd_tf2.implicit.structures import Structure, ravel


class LearnerAgent(Agent):
    """Applies a pure update of its state, a structure of tensors, to replayed batches.

    Subclasses set what is declared here, and act. All randomness is spawned from the seed. Batches
    and the updates' N(0, 1) noise are drawn by NumPy, since compiled and eager draws would differ.
    """

    FITS: ClassVar[tuple[str, ...]]  # settings that, beside its size, give the state its meaning
    ACTS: ClassVar[str]  # field of the state that the policy needs, read back once per cycle
    DISTINCT: ClassVar[bool] = False  # no transition comes twice in a batch
    STEPS: Any  # the setting's module with init_state, metric_names, update and Noise
    refresh_each_cycle = True

    def __init__(
        self, config: Any, obs_dim: int, action_dim: int, *, seed: int, dtype: str = "float32"
    ):
        self.config, self._dtype = config, dtype
        self.replay = Replay(
            obs_dim, action_dim, capacity=config.replay_size, gamma=config.gamma, dtype=dtype
        )
        explore, init, learn = np.random.SeedSequence(seed).generate_state(3)
        self._rng, self._learner_rng = np.random.default_rng(explore), np.random.default_rng(learn)
        state = self.STEPS.init_state(config, obs_dim, action_dim, seed=int(init), dtype=dtype)
        self._updates, batches, *noise = self._sizes(state)
        self._shapes = [(*batches, self.replay.layout.width), *noise]  # rows, then noise
        self._parts = [math.prod(shape) for shape in self._shapes]  # of an update's flat row
        self._names = self.STEPS.metric_names(config)
        fits = {name: getattr(config, name) for name in self.FITS}
        self._fits = json.dumps(fits, sort_keys=True)
        # One variable, not one per weight: each would cost every call some microseconds.
        flat, self._unravel = ravel(state)
        self._flat = tf.Variable(flat)
        self._run = called_directly(compiled(self._run_updates))
        self._acting = self._read_acting()  # as NumPy arrays, of the latest state

    @abstractmethod
    def _sizes(self, state: Structure) -> tuple[Any, ...]:
        """Updates per cycle; the shapes of an update's transitions, [..., batch], and each noise's."""

    @property
    def state(self) -> Structure:
        """The state as tensors."""
        return self._unravel(tf.convert_to_tensor(self._flat))

    def store(self, new: Rollout) -> None:
        """Adds transitions to the replay."""
        self.replay.add(new)

    def can_train(self) -> bool:
        """Whether there is anything to sample."""
        return len(self.replay) > 0

    def train(self) -> dict[str, float]:
        """Runs one cycle's updates in one call; returns the metrics' means.

        An update whose state or metrics are not finite changes nothing, and raises TrainingError in
        the end, as does a failed solve that is to stop the run.
        """
        *per_update, size, _ = self._shapes[0]
        count, rng = self._updates, self._learner_rng
        batches = count * math.prod(per_update)
        rows = self.replay.sample_many(rng, batches, size, distinct=self.DISTINCT)
        noise = rng.standard_normal((count, sum(self._parts[1:])))
        packed = np.concatenate([rows.reshape(count, -1), noise], 1, dtype=self._dtype)
        out = self._run(tf.constant(packed)).numpy()
        sound, means, acting = out[0], out[1 : 1 + len(self._names)], out[1 + len(self._names) :]
        if sound < 1 and np.isfinite(means).all():
            raise TrainingError(f"{DIVERGED}: a weight is not finite after an update")
        self._acting = _unflatten(acting, self._acting)
        metrics = {name: float(value) for name, value in zip(self._names, means, strict=True)}
        self.config.solver.check(metrics)
        check_finite(metrics)
        return metrics

    def _run_updates(self, packed):
        """The share of sound updates, the metrics' means and the weights to act with, as a vector.

        packed: [K, rows and noise], flattened.
        """
        packed = tf.convert_to_tensor(packed)  # eagerly nothing else does
        cast = partial(tf.cast, dtype=self._dtype)

        def update(k, flat, total):
            parts = zip(tf.split(packed[k], self._parts), self._shapes, strict=True)
            rows, *noise = (tf.reshape(part, shape) for part, shape in parts)
            real = from_replay(self.replay.layout.unpack(rows))
            noise = self.STEPS.Noise(*noise)
            state, metrics = self.STEPS.update(self._unravel(flat), real, noise, self.config)
            new, report = ravel(state)[0], tf.stack(metrics)
            sound = tf.reduce_all(tf.math.is_finite(new)) & tf.reduce_all(tf.math.is_finite(report))
            total += tf.concat([cast(sound)[None], report], 0)
            return k + 1, tf.where(sound, new, flat), total

        start = (0, tf.convert_to_tensor(self._flat), tf.zeros([1 + len(self._names)], self._dtype))
        count = tf.shape(packed)[0]
        _, flat, total = tf.while_loop(lambda k, *_: k < count, update, start)
        self._flat.assign(flat)
        acting, _ = ravel(getattr(self._unravel(flat), self.ACTS))
        return tf.concat([total / cast(count), acting], 0)

    def _read_acting(self):
        return tf.nest.map_structure(lambda x: x.numpy(), getattr(self.state, self.ACTS))

    def get_state(self) -> dict:
        """All that coming cycles depend on, but for the replay."""
        learner = {"flat": self._flat.numpy(), "rng": self._learner_rng.bit_generator.state}
        return {"learner": learner, "rng": self._rng.bit_generator.state}

    def set_state(self, state: dict) -> None:
        """Puts back what `get_state` gave."""
        self._flat.assign(state["learner"]["flat"])
        self._learner_rng.bit_generator.state = state["learner"]["rng"]
        self._rng.bit_generator.state = state["rng"]
        self._acting = self._read_acting()

    def save(self, path: str | Path) -> None:
        """Writes the whole state, optimisers included, to one .npz, with what it fits."""
        write_arrays(path, {"state": self._flat.numpy(), "fits": np.array(self._fits)})

    def load(self, path: str | Path) -> None:
        """Restores what `save` wrote; ConfigError if it is damaged or does not fit."""
        arrays = read_arrays(path)
        shape = arrays["state"].shape if "state" in arrays else None
        if shape != tuple(self._flat.shape) or str(arrays.get("fits")) != self._fits:
            raise ConfigError(f"{path} was saved by an agent with other settings")
        self._flat.assign(arrays["state"])
        self._acting = self._read_acting()


def _unflatten(flat: np.ndarray, like: tuple) -> tuple:
    """Cuts a vector into arrays shaped as those of nested tuples; ten times as fast as tf.nest."""
    taken = 0

    def rebuild(like):
        nonlocal taken
        if isinstance(like, tuple):
            return tuple(rebuild(part) for part in like)
        start, taken = taken, taken + like.size
        return flat[start:taken].reshape(like.shape)

    return rebuild(like)
