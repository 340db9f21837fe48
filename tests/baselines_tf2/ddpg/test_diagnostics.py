"""The diagnostics on numbers worked out by hand, in float64."""

import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common.networks import MLPConfig
from baselines_tf2.common.replay import Batch
from baselines_tf2.ddpg.config import DDPGConfig
from baselines_tf2.ddpg.diagnostics import flat_actor_gradient, signal_to_noise, target_diagnostics
from baselines_tf2.ddpg.heads import make_head
from baselines_tf2.ddpg.networks import Nets
from tests.baselines_tf2.ddpg.test_agent import make
from tests.baselines_tf2.ddpg.test_agent import rows as agent_rows

LINEAR = MLPConfig(num_layers=0)


@pytest.fixture
def agent():
    """Every network says 0, so a target is its reward and a residual the target."""
    config = DDPGConfig(actor_network=LINEAR, critic_network=LINEAR, normalize_observations=False)
    nets = Nets(config, 1, 1, 2, dtype="float64")
    for network in (nets.actor, nets.critic, nets.target_actor, nets.target_critic):
        for weight in network.weights:
            weight.assign(tf.zeros_like(weight))
    return nets, make_head(config)


def rows(rewards, obs=None):
    rewards = np.asarray(rewards, float)
    column = np.zeros((len(rewards), 1)) if obs is None else np.asarray(obs, float)[:, None]
    zeros = np.zeros(len(rewards))
    fields = (column, 0 * column, rewards, column, zeros, zeros + 0.9, zeros)
    return Batch(*(tf.constant(field, tf.float64) for field in fields))


def signal(nets, head):
    batches = rows([0], [1.0]), rows([0], [3.0])
    return float(signal_to_noise(tf.stack([flat_actor_gradient(nets, head, b) for b in batches])))


def test_a_level_per_robot_explains_everything(agent):
    out = target_diagnostics(*agent, rows([1, 1, 1, 5, 5, 5]), 2)
    assert float(out["target_variance"]) == pytest.approx(4.0)
    assert float(out["robot_share"]) == pytest.approx(1.0)
    # Mean square (1 + 25) / 2 = 13 over the variance 4
    assert float(out["residual_ratio"]) == pytest.approx(13 / 4)


def test_equal_robots_explain_nothing(agent):
    out = target_diagnostics(*agent, rows([0, 2, 0, 2]), 2)
    assert float(out["robot_share"]) == 0


def test_share_by_hand(agent):
    out = target_diagnostics(*agent, rows([0, 2, 6, 8]), 2)
    # Within: variance 2. Means 1 and 7: variance 18, less 2 / 2 of noise: 17 of 19.
    assert float(out["robot_share"]) == pytest.approx(17 / 19)


def test_noise_is_not_taken_for_robots(agent):
    rng = np.random.default_rng(0)
    out = target_diagnostics(*agent, rows(rng.normal(size=4000)), 200)
    assert float(out["robot_share"]) < 0.01


def test_signal_to_noise_by_hand(agent):
    nets, head = agent
    nets.critic.layers[-1].kernel.assign([[0.0], [1.0]])  # Q = a, mu = tanh(w s + b) at w = b = 0
    # Gradients of -mean(Q) by (w, b) are (-s, -1): for s = 1 and 3, mean (-2, -1), variance (2, 0).
    # Signal 4 + 1 - 2 / 2 over noise 2
    assert signal(nets, head) == pytest.approx(2.0)


def test_pure_noise_has_no_signal(agent):
    nets, head = agent
    nets.critic.layers[-1].kernel.assign([[0.0], [1.0]])
    nets.actor.layers[-1].bias.assign([50.0])  # saturated: no gradient at all
    assert signal(nets, head) == 0


def test_compiled_diagnostics_equal_eager_ones():
    agent, out = make(critic="additive"), []
    agent.store(agent_rows())
    state = agent.get_state()
    for eager in (False, True):
        agent.set_state(state)  # the same draws
        tf.config.run_functions_eagerly(eager)
        out.append(agent.diagnostics())
    tf.config.run_functions_eagerly(False)
    assert out[0] == pytest.approx(out[1], rel=1e-3)
    assert out[0]["diagnostics/actor_gradient_snr"] > 0
