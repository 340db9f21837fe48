"""A small problem in 64 bits: one-hot actions, noise, and networks of any depth."""

import numpy as np
import tensorflow as tf

from omd_tf2.cartpole.config import CartPoleConfig
from omd_tf2.cartpole.update import Noise, State, num_batches, num_critic_draws
from omd_tf2.common.functional import adam_init
from omd_tf2.common.transition import Transition

O, A, B, K = 3, 2, 6, 3


def make_config(**options):
    """Settings under which everything moves visibly in a step."""
    defaults = {"gamma": 0.9, "tau": 0.1, "inner_lr": 0.03}
    if not options.get("hard"):
        defaults["alpha"] = 0.5
    if options.get("agent") != "qlearning":
        defaults["lr"] = 0.02
    return CartPoleConfig(**(defaults | {"batch_size": B, "inner_steps": K} | options))


def make_batch(draw, num=B):
    """Both actions equally often; one transition in three is a terminal."""
    actions = tf.constant(np.eye(A)[np.arange(num) % A])
    terminals1 = tf.constant(np.arange(num) % 3 == 1, tf.float64)
    return Transition(draw(num, O), actions, draw(num), draw(num, O), terminals1)


def make_state(draw, config, hidden=(4,), critic_hidden=(4,)):
    """The target critics are others than the critics, and of `hidden` layers."""
    outputs, heads = O * (1 + config.prob_model), range(2 - config.no_double)
    model = draw.layers(O + A, *hidden, outputs), draw.layers(O + A, *hidden, 1)
    critics = tuple(draw.layers(O, *critic_hidden, A) for _ in heads)
    return State(
        model=model,
        critics=critics,
        target=tuple(draw.layers(O, *hidden, A) for _ in heads),
        model_adam=adam_init(model),
        critic_adam=adam_init(critics),
        value_functions=tuple(draw.layers(O, 4, 1) for _ in range(2 * (config.agent == "vep"))),
    )


def make_batches(draw, config, state):
    """Batches, and a draw of the model's and the critics' noise, for one update."""
    batches = [make_batch(draw) for _ in range(num_batches(config))]
    noise = Noise(draw(len(batches), B, O), draw(num_critic_draws(state, config)))
    return tf.nest.map_structure(lambda *x: tf.stack(x), *batches), noise


def at(batches, k):
    """The k-th of stacked batches; a slice of them."""
    return tf.nest.map_structure(lambda x: x[k], batches)


def shifted(structure, direction, size):
    """structure + size * direction"""
    return tf.nest.map_structure(lambda x, d: x + size * d, structure, direction)


def like(draw, structure):
    """N(0, 1) draws shaped as the structure."""
    return tf.nest.map_structure(lambda x: draw(*x.shape), structure)


def slope(function, structure, direction, h=1e-6):
    """The central difference of a scalar function along a direction."""
    ends = [float(function(shifted(structure, direction, size))) for size in (h, -h)]
    return (ends[0] - ends[1]) / (2 * h)
