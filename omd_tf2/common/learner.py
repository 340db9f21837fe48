"""What trains: the state in one variable, the replay, and compiled updates."""

import json
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from baselines_tf2.common.compile import called_directly, compiled
from baselines_tf2.common.errors import DIVERGED, TrainingError
from baselines_tf2.common.files import read_arrays, write_arrays
from baselines_tf2.common.replay import Replay
from envs.errors import ConfigError
from omd_tf2.implicit.structures import Structure, ravel

Update = Callable[[Structure, tf.Tensor, tf.Tensor], tuple[Structure, tuple]]


class Learner:
    """Applies a pure update, (state, packed rows, noise) -> (state, metrics), to replayed batches.

    state: nested structure of tensors. acting(state): the part of it that the policy needs, read
    back once per call of `train`. rows_shape: of the transitions of one update, [..., batch];
    noise_shape: of its N(0, 1) draws. Both come from a NumPy generator, since compiled and eager
    draws would differ. distinct: no transition comes twice in a batch. fits: what, beside its size,
    gives the state its meaning; saved with it.
    """

    def __init__(
        self,
        state: Structure,
        update: Update,
        acting: Callable[[Structure], tuple],
        metric_names: Sequence[str],
        replay: Replay,
        *,
        rows_shape: tuple[int, ...],
        noise_shape: tuple[int, ...],
        fits: Mapping[str, object],
        seed: int,
        dtype: str,
        distinct: bool = False,
    ):
        self.replay, self._update, self._acting = replay, update, acting
        self._names, self._dtype, self._distinct = tuple(metric_names), dtype, distinct
        self._rows_shape = (*rows_shape, replay.layout.width)
        self._noise_shape, self._rng = noise_shape, np.random.default_rng(seed)
        self._fits = json.dumps(dict(fits), sort_keys=True)
        # One variable, not one per weight: each would cost every call some microseconds.
        flat, self._unravel = ravel(state)
        self._flat = tf.Variable(flat)
        self._run = called_directly(compiled(self._run_updates))
        self.acting = self._read_acting()  # as NumPy arrays, of the latest state

    @property
    def state(self) -> Structure:
        """The state as tensors."""
        return self._unravel(tf.convert_to_tensor(self._flat))

    def train(self, updates: int) -> dict[str, float]:
        """Runs `updates` updates in one call; returns the metrics' means, finite or not.

        An update whose state or metrics are not finite changes nothing; `check_finite` names a
        metric that is not. Raises TrainingError where the state alone is not.
        """
        *per_update, size, _ = self._rows_shape
        batches = updates * int(np.prod(per_update))
        rows = self.replay.sample_many(self._rng, batches, size, distinct=self._distinct)
        noise = self._rng.standard_normal((updates, np.prod(self._noise_shape, dtype=int)))
        packed = np.concatenate([rows.reshape(updates, -1), noise], 1, dtype=self._dtype)
        out = self._run(tf.constant(packed)).numpy()
        sound, means, acting = np.split(out, [1, 1 + len(self._names)])
        if sound < 1 and np.isfinite(means).all():
            raise TrainingError(f"{DIVERGED}: a weight is not finite after an update")
        self.acting = _unflatten(acting, self.acting)
        return {name: float(value) for name, value in zip(self._names, means, strict=True)}

    def _run_updates(self, packed):
        """The share of sound updates, the metrics' means and the weights to act with, as a vector.

        packed: [K, rows and noise], flattened.
        """
        packed = tf.convert_to_tensor(packed)  # eagerly nothing else does

        def update(k, flat, total):
            flat, report = self._sound_update(flat, packed[k])
            return k + 1, flat, total + report

        start = (0, tf.convert_to_tensor(self._flat), tf.zeros([1 + len(self._names)], self._dtype))
        count = tf.shape(packed)[0]
        _, flat, total = tf.while_loop(lambda k, *_: k < count, update, start)
        self._flat.assign(flat)
        acting, _ = ravel(self._acting(self._unravel(flat)))
        return tf.concat([total / tf.cast(count, self._dtype), acting], 0)

    def _sound_update(self, flat, packed):
        size = np.prod(self._rows_shape)
        rows = tf.reshape(packed[:size], self._rows_shape)
        noise = tf.reshape(packed[size:], self._noise_shape)
        state, metrics = self._update(self._unravel(flat), rows, noise)
        new, _ = ravel(state)
        report = tf.stack(metrics)
        sound = tf.reduce_all(tf.math.is_finite(new)) & tf.reduce_all(tf.math.is_finite(report))
        report = tf.concat([tf.cast(sound, self._dtype)[None], report], 0)
        return tf.where(sound, new, flat), report

    def _read_acting(self):
        return tf.nest.map_structure(lambda x: x.numpy(), self._acting(self.state))

    def get_state(self) -> dict:
        """All that coming updates depend on, but for the replay."""
        return {"flat": self._flat.numpy(), "rng": self._rng.bit_generator.state}

    def set_state(self, state: dict) -> None:
        """Puts back what `get_state` gave."""
        self._flat.assign(state["flat"])
        self._rng.bit_generator.state = state["rng"]
        self.acting = self._read_acting()

    def save(self, path) -> None:
        """Writes the whole state, optimisers included, to one .npz, with what it fits."""
        write_arrays(path, {"state": self._flat.numpy(), "fits": np.array(self._fits)})

    def load(self, path) -> None:
        """Restores what `save` wrote; ConfigError if it is damaged or does not fit."""
        arrays = read_arrays(path)
        shape = arrays["state"].shape if "state" in arrays else None
        if shape != tuple(self._flat.shape) or str(arrays.get("fits")) != self._fits:
            raise ConfigError(f"{path} was saved by an agent with other settings")
        self._flat.assign(arrays["state"])
        self.acting = self._read_acting()


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
