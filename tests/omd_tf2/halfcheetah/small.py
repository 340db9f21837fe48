"""A small problem in 64 bits: one batch, the policy's noise, and networks of any depth."""

import numpy as np
import tensorflow as tf

from omd_tf2.common.functional import adam_init
from omd_tf2.common.transition import Transition
from omd_tf2.halfcheetah.config import HalfCheetahConfig
from omd_tf2.halfcheetah.update import Noise, State

O, A, B, K = 3, 2, 4, 2


def make_batch(draw, num=B):
    """One transition in three is a terminal."""
    terminals1 = tf.constant(np.arange(num) % 3 == 1, tf.float64)
    return Transition(draw(num, O), tf.tanh(draw(num, A)), draw(num), draw(num, O), terminals1)


def make_noise(draw, num=B):
    return Noise(draw(K + 1, num, A), draw(K, num, A))


def make_state(draw, critic_hidden=(4,), hidden=(4,)):
    """The target critics are others than the critics."""
    model = draw.layers(O + A, *hidden, O + 1)
    critics, target = (
        tuple(draw.layers(O + A, *widths, 1) for _ in range(2)) for widths in (critic_hidden,) * 2
    )
    actor, log_temperature = draw.layers(O, *hidden, 2 * A), tf.constant(-0.5, tf.float64)
    adams = (adam_init(x) for x in (model, critics, actor, log_temperature))
    return State(model, critics, target, actor, log_temperature, *adams)


def make_config(**options):
    return HalfCheetahConfig(**({"inner_steps": K, "tau": 0.1, "gamma": 0.9} | options))
