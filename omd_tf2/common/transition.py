"""A batch of transitions, real or predicted."""

from typing import NamedTuple

import tensorflow as tf

from baselines_tf2.common.replay import Batch


class Transition(NamedTuple):
    """What critics and models learn from."""

    obs0: tf.Tensor  # [B, O]
    actions: tf.Tensor  # [B, A]: in [-1, 1], or one-hot
    rewards: tf.Tensor  # [B]
    obs1: tf.Tensor  # [B, O]
    terminals1: tf.Tensor  # [B], 1 at a true terminal


def from_replay(batch: Batch) -> Transition:
    """A replayed batch's part of it."""
    return Transition(*(getattr(batch, name) for name in Transition._fields))
