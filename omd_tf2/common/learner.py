"""What trains: the state in variables, the replay, and compiled updates."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from baselines_tf2.common.compile import compile_updates
from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.files import read_arrays, write_arrays
from baselines_tf2.common.replay import Replay
from envs.errors import ConfigError
from omd_tf2.implicit import SolveError

Update = Callable[[tuple, tf.Tensor, tf.Tensor], tuple[tuple, tuple]]


class Learner:
    """Applies a pure update, (state, packed rows, noise) -> (state, metrics), to replayed batches.

    state: nested structure of tensors. acting(state): the part of it that the policy needs, read
    back once per call of `train`. rows: transitions per update; noise_shape: N(0, 1) draws of one
    update. Both come from a NumPy generator, since compiled and eager draws would differ.
    """

    def __init__(
        self,
        state: tuple,
        update: Update,
        acting: Callable[[tuple], tuple],
        metric_names: Sequence[str],
        replay: Replay,
        *,
        rows: int,
        noise_shape: tuple[int, ...],
        seed: int,
        dtype: str,
    ):
        self.replay, self._update, self._acting = replay, update, acting
        self._names, self._rows, self._dtype = tuple(metric_names), rows, dtype
        self._noise_shape, self._rng = noise_shape, np.random.default_rng(seed)
        self._variables = tf.nest.map_structure(tf.Variable, state)
        self._run = compile_updates(self._step, len(self._names), dtype, result=self._flat_acting)
        self._like = tf.nest.map_structure(lambda x: x.numpy(), acting(state))
        self.acting = self._like  # as NumPy arrays, of the latest state

    @property
    def state(self) -> tuple:
        """The state as tensors."""
        return tf.nest.map_structure(tf.convert_to_tensor, self._variables)

    def train(self, updates: int) -> dict[str, float]:
        """Runs `updates` updates in one call; returns the metrics' means, finite or not.

        An update with a metric that is not finite changes nothing; `check_finite` has the error.
        Eagerly a failed solve that is to stop the run raises TrainingError here already.
        """
        rows = self.replay.sample_many(self._rng, updates, self._rows)
        noise = self._rng.standard_normal((updates, np.prod(self._noise_shape, dtype=int)))
        packed = np.concatenate([rows.reshape(updates, -1), noise], 1, dtype=self._dtype)
        try:
            out = self._run(packed).numpy()
        except SolveError as error:  # raised eagerly alone; compiled, it shows as NaN
            raise TrainingError(str(error)) from None
        means, flat = np.split(out, [len(self._names)])
        self.acting = _unflatten(flat, self._like)
        return {name: float(value) for name, value in zip(self._names, means, strict=True)}

    def _step(self, packed):
        width = self.replay.layout.width
        rows = tf.reshape(packed[: self._rows * width], [self._rows, width])
        noise = tf.reshape(packed[self._rows * width :], self._noise_shape)
        state, metrics = self._update(self.state, rows, noise)
        finite = tf.reduce_all(tf.math.is_finite(tf.stack(metrics)))
        tf.nest.map_structure(
            lambda variable, x: variable.assign(tf.where(finite, x, variable)),
            self._variables,
            state,
        )
        return metrics

    def _flat_acting(self):
        leaves = tf.nest.flatten(self._acting(self.state))
        return tf.concat([tf.reshape(x, [-1]) for x in leaves], 0)

    def save(self, path) -> None:
        """Writes the whole state, optimisers included, to one .npz."""
        leaves = tf.nest.flatten(self._variables)
        write_arrays(path, {f"{i:03d}": x.numpy() for i, x in enumerate(leaves)})

    def load(self, path) -> None:
        """Restores what `save` wrote; ConfigError if it is damaged or does not fit."""
        arrays, leaves = read_arrays(path), tf.nest.flatten(self._variables)
        shapes = [tuple(x.shape) for x in leaves]
        if [arrays[name].shape for name in sorted(arrays)] != shapes:
            raise ConfigError(f"{path} was saved by an agent with other settings")
        for name, variable in zip(sorted(arrays), leaves, strict=True):
            variable.assign(arrays[name])
        self.acting = tf.nest.map_structure(lambda x: x.numpy(), self._acting(self.state))


def check_finite(metrics: Mapping[str, float]) -> None:
    """Raises TrainingError, naming the first metric that is not finite."""
    for name, value in metrics.items():
        if not np.isfinite(value):
            raise TrainingError(f"{name} is {value}")


def _unflatten(flat: np.ndarray, like: tuple) -> tuple:
    leaves = tf.nest.flatten(like)
    parts = np.split(flat, np.cumsum([x.size for x in leaves])[:-1])
    shaped = [part.reshape(x.shape) for part, x in zip(parts, leaves, strict=True)]
    return tf.nest.pack_sequence_as(like, shaped)
