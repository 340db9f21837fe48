"""The update by hand, its stopped gradients, and eager against compiled for every option."""

import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common.networks import MLPConfig
from baselines_tf2.ddpg.agent import DDPGAgent
from baselines_tf2.ddpg.config import DDPGConfig
from baselines_tf2.ddpg.robots import NOTHING, make_sight
from baselines_tf2.ddpg.update import (
    actor_gradient,
    critic_gradient,
    ddpg_update,
    hidden_l2,
    soft_update,
)
from envs import Ensemble

LINEAR = MLPConfig(num_layers=0)


def linear_agent(**options):
    options = {
        "normalize_observations": False,
        "critic_l2_reg": 0.0,
        "noise_type": "none",
    } | options
    config = DDPGConfig(actor_network=LINEAR, critic_network=LINEAR, batch_size=1, **options)
    agent = DDPGAgent(config, 1, 1, seed=0, dtype="float64")
    # Q(s, a) = s + 2 a, Q' = 3 s + 1, mu(s) = tanh(0.5 s), mu' = 0
    agent.nets.critic.set_weights([np.array([[1.0], [2.0]]), np.zeros(1)])
    agent.nets.target_critic.set_weights([np.array([[3.0], [0.0]]), np.ones(1)])
    agent.nets.actor.set_weights([np.array([[0.5]]), np.zeros(1)])
    agent.nets.target_actor.set_weights([np.zeros((1, 1)), np.zeros(1)])
    return agent


def one_row(agent, obs0=1.0, action=0.25, reward=2.0, obs1=2.0):
    layout = agent._layout
    row = np.zeros((1, layout.width))
    row[:, layout.obs0], row[:, layout.actions], row[:, layout.obs1] = obs0, action, obs1
    row[:, layout.rewards], row[:, layout.discounts] = reward, 0.5
    return layout.unpack(tf.constant(row))


def flat(network):
    return np.concatenate([np.ravel(w) for w in network.get_weights()])


def test_update_by_hand():
    agent = linear_agent(gamma=0.5, tau=0.1, critic_lr=0.01, actor_lr=0.001)
    nets = agent.nets
    metrics = ddpg_update(nets, agent.head, one_row(agent), agent.config)
    # y = 2 + 0.5 (3 * 2 + 1) = 5.5, Q = 1 + 2 * 0.25 = 1.5: loss 16
    assert float(metrics.target_mean) == pytest.approx(5.5)
    assert float(metrics.critic_loss) == pytest.approx(16.0)
    # The actor's loss is taken with the critic from BEFORE its step: -(1 + 2 tanh(0.5))
    assert float(metrics.actor_loss) == pytest.approx(-(1 + 2 * np.tanh(0.5)), abs=1e-12)
    # Adam's first step is lr * sign(gradient): d loss / d kernel = 2 (1.5 - 5.5) (1, 0.25) < 0
    kernel, bias = nets.critic.get_weights()
    np.testing.assert_allclose(kernel[:, 0], [1.01, 2.01], atol=1e-7)
    np.testing.assert_allclose(bias, [0.01], atol=1e-7)
    # Actor: dQ/da > 0 and da/dw = (1 - tanh^2) s > 0, so both weights rise.
    np.testing.assert_allclose(flat(nets.actor), [0.501, 0.001], atol=1e-7)
    # Targets move a tenth of the way to the NEW networks.
    kernel, bias = nets.target_critic.get_weights()
    np.testing.assert_allclose(kernel[:, 0], [0.9 * 3 + 0.101, 0.201], atol=1e-7)
    np.testing.assert_allclose(bias, [0.9 + 0.001], atol=1e-7)
    np.testing.assert_allclose(flat(nets.target_actor), [0.0501, 1e-4], atol=1e-7)


def test_sgd_critic_by_hand():
    agent = linear_agent(gamma=0.5, critic_lr=0.01, critic_optimizer="sgd")
    ddpg_update(agent.nets, agent.head, one_row(agent), agent.config)
    # gradient 2 (1.5 - 5.5) (1, 0.25) = (-8, -2)
    kernel = agent.nets.critic.get_weights()[0]
    np.testing.assert_allclose(kernel[:, 0], [1.08, 2.02], atol=1e-7)


def test_clipping_scales_the_whole_gradient():
    agent = linear_agent(gamma=0.5, critic_lr=1.0, critic_optimizer="sgd", clip_norm=0.5)
    before = flat(agent.nets.critic)
    ddpg_update(agent.nets, agent.head, one_row(agent), agent.config)
    step = flat(agent.nets.critic) - before
    assert np.linalg.norm(step) == pytest.approx(0.5)
    np.testing.assert_allclose(step, 0.5 * np.array([8, 2, 8]) / np.sqrt(132), rtol=1e-6)


def test_l2_is_half_the_squares_of_hidden_kernels_alone():
    agent = DDPGAgent(DDPGConfig(critic_network=MLPConfig(1, 2)), 1, 1, dtype="float64")
    critic = agent.nets.critic
    critic.set_weights([np.array([[1.0, 2], [3, 4]]), np.full(2, 9.0), np.ones((2, 1)), np.ones(1)])
    assert float(hidden_l2(critic)) == pytest.approx((1 + 4 + 9 + 16) / 2)


def test_soft_update():
    agent = linear_agent()
    soft_update(agent.nets.target_critic, agent.nets.critic, 0.25)
    np.testing.assert_allclose(agent.nets.target_critic.get_weights()[0][:, 0], [2.5, 0.5])


HEADS = [
    {"critic": "q"},
    {"critic": "q", "critic_sees": "physics"},
    {"critic": "concat"},
    {"critic": "antisymmetric"},
    {"critic": "additive"},
    {"critic": "additive", "actor_loss": "symmetric"},
]


def small_agent(dtype="float64", **options):
    options = {"batch_size": 8, "replay_size": 500, "noise_type": "none"} | options
    for network in ("actor_network", "critic_network"):
        options.setdefault(network, MLPConfig(1, 4))
    sight = NOTHING
    if "critic_sees" in options:
        sight = make_sight("physics", Ensemble.parse("a:1,1,0,2;b:1,1,0,2"), 0)
    return DDPGAgent(DDPGConfig(**options), 3, 2, seed=1, dtype=dtype, sight=sight)


def random_batches(agent, count, seed=0):
    """Packed rows with terminals, absorbing states and unequal windows among them."""
    rng, layout = np.random.default_rng(seed), agent._layout
    rows = rng.normal(size=(count, agent.config.batch_size, layout.width))
    rows[..., layout.terminals1] = rng.random(rows.shape[:2]) < 0.3
    rows[..., layout.discounts] = rng.choice([0.9, 0.8], rows.shape[:2])
    rows[..., layout.absorbing0] = 0
    if agent.config.paired:
        rows[:, 0, [layout.absorbing0, layout.terminals1]] = 1
    return rows.astype(agent._dtype)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_gradients_that_must_not_flow(head):
    agent = small_agent(**head)
    nets, batch = agent.nets, agent._layout.unpack(tf.constant(random_batches(agent, 1)[0]))
    with tf.GradientTape(persistent=True) as tape:
        targets = agent.head.targets(nets, batch)
        critic_loss = agent.head.loss(nets, batch, tf.stop_gradient(targets))
        actor_loss = tf.reduce_mean(agent.head.actor_value(nets, batch, nets.actor(batch.obs0)))
    for loss, networks in {
        "targets": (targets, (nets.actor, nets.critic)),
        "critic": (critic_loss, (nets.actor, nets.target_actor, nets.target_critic)),
        "actor": (actor_loss, (nets.target_actor, nets.target_critic)),
    }.values():
        for network in networks:
            assert tape.gradient(loss, network.trainable_variables) == [None] * len(
                network.trainable_variables
            )


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_each_gradient_moves_its_own_network_alone(head):
    agent = small_agent(**head, actor_lr=1e-9, critic_l2_reg=0.0)
    nets, packed = agent.nets, tf.constant(random_batches(agent, 1)[0])
    batch = agent._layout.unpack(packed)
    targets = agent.head.targets(nets, batch)
    _, critic_grads = critic_gradient(nets, agent.head, batch, targets, 0.0)
    _, actor_grads = actor_gradient(nets, agent.head, batch)
    assert [g.shape for g in critic_grads] == [v.shape for v in nets.critic.trainable_variables]
    assert [g.shape for g in actor_grads] == [v.shape for v in nets.actor.trainable_variables]
    # The critic sees nothing of the actor's loss: with a frozen actor its step is that gradient.
    before = nets.critic.get_weights()
    ddpg_update(nets, agent.head, batch, agent.config)
    for old, new, g in zip(before, nets.critic.get_weights(), critic_grads, strict=True):
        # Adam's first step: lr g / (|g| + epsilon')
        np.testing.assert_allclose(old - new, 1e-3 * g / (np.abs(g) + 1e-8 / 1e-3**0.5), rtol=1e-5)


@pytest.mark.parametrize("head", HEADS, ids=str)
def test_critic_gradient_against_finite_differences(head):
    agent = small_agent(**head)
    nets, batch = agent.nets, agent._layout.unpack(tf.constant(random_batches(agent, 1)[0]))
    targets = agent.head.targets(nets, batch)
    _, grads = critic_gradient(nets, agent.head, batch, targets, 0.01)
    kernel, epsilon = nets.critic.trainable_variables[0], 1e-6

    def loss(change):
        value = kernel.numpy()
        value[1, 2] += change
        old = kernel.numpy()
        kernel.assign(value)
        result = critic_gradient(nets, agent.head, batch, targets, 0.01)[0]
        kernel.assign(old)
        return float(result)

    slope = (loss(epsilon) - loss(-epsilon)) / (2 * epsilon)
    assert float(grads[0][1, 2]) == pytest.approx(slope, rel=1e-5)


def test_the_symmetric_additive_actor_gradient_is_that_of_minus_mean_q():
    agent = small_agent(critic="additive", actor_loss="symmetric")
    nets, batch = agent.nets, agent._layout.unpack(tf.constant(random_batches(agent, 1)[0]))
    loss, grads = actor_gradient(nets, agent.head, batch)
    alive = (1 - batch.absorbing0)[:, None]  # the first row is the absorbing state

    def q(actions):
        points = [batch.obs0 * alive, actions * alive, batch.absorbing0[:, None]]
        return tf.reduce_mean(nets.critic(tf.concat(points, 1)))

    with tf.GradientTape() as tape:
        value = -q(nets.actor(batch.obs0))
    expected = tape.gradient(value, nets.actor.trainable_variables)
    for g, e in zip(grads, expected, strict=True):
        np.testing.assert_allclose(g, e, rtol=1e-10, atol=1e-14)
    # What is reported is that value less the data's: how much the critic prefers the actor.
    assert float(loss) == pytest.approx(float(value + q(batch.actions)), rel=1e-10)


def test_over_pairings_the_additive_critic_gradient_is_twice_the_residuals_variance():
    """Averaged over the three ways of pairing four rows, two of them terminal."""
    agent = small_agent(critic="additive", batch_size=4)
    nets, rows = agent.nets, random_batches(agent, 2, seed=3)[1]
    rows[:, agent._layout.absorbing0], rows[:, agent._layout.discounts] = 0, 0.9
    rows[:, agent._layout.terminals1] = [0, 1, 0, 1]
    losses, grads = [], []
    for order in ([0, 1, 2, 3], [0, 1, 3, 2], [0, 2, 1, 3]):  # pairs are rows i and i + 2
        batch = agent._layout.unpack(tf.constant(rows[order]))
        targets = agent.head.targets(nets, batch)
        loss, grad = critic_gradient(nets, agent.head, batch, targets, 0.0)
        losses.append(loss)
        grads.append(grad)
    batch = agent._layout.unpack(tf.constant(rows))
    alive, over = (1 - batch.terminals1)[:, None], batch.terminals1[:, None]
    ends = [batch.obs1 * alive, nets.target_actor(batch.obs1) * alive, over]
    y = batch.rewards + 0.9 * nets.target_critic(tf.concat(ends, 1))[:, 0]
    with tf.GradientTape() as tape:
        q = nets.critic(tf.concat([batch.obs0, batch.actions, 0 * over], 1))[:, 0]
        twice_variance = 2 * tf.math.reduce_variance(y - q) * 4 / 3  # unbiased
    expected = tape.gradient(twice_variance, nets.critic.trainable_variables)
    assert float(np.mean(losses)) == pytest.approx(float(twice_variance), rel=1e-10)
    for e, *g in zip(expected, *grads, strict=True):
        np.testing.assert_allclose(np.mean(g, 0), e, rtol=1e-9, atol=1e-13)


OPTIONS = [
    {},
    {"normalize_observations": False, "clip_norm": 0.1},
    {"normalize_returns": True, "popart": True},
    {"normalize_returns": True, "return_range": 1.0},
    {"critic_l2_reg": 0.0, "critic_optimizer": "sgd", "tau": 1.0},
    {
        "critic_network": MLPConfig(2, 8, "relu", True),
        "actor_network": MLPConfig(1, 8, "elu", True),
    },
    {"n_step": 3},
]


def assert_eager_equals_compiled(dtype, tolerance, **options):
    compiled, eager = (small_agent(dtype, **options) for _ in range(2))
    batches = random_batches(compiled, 5)
    compiled_metrics = compiled._updates(batches).numpy()
    tf.config.run_functions_eagerly(True)
    try:
        eager_metrics = eager._updates(tf.constant(batches)).numpy()
    finally:
        tf.config.run_functions_eagerly(False)
    np.testing.assert_allclose(compiled_metrics, eager_metrics, rtol=10 * tolerance, atol=tolerance)
    ours, theirs = compiled.nets.state(), eager.nets.state()
    assert ours.keys() == theirs.keys()
    for name, a in ours.items():
        b = theirs[name]
        np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("head, options", zip(HEADS, OPTIONS[1:], strict=True), ids=str)
def test_eager_equals_compiled_for_every_head_and_every_option(head, options):
    assert_eager_equals_compiled("float64", 1e-12, **head, **options)


@pytest.mark.parametrize("head", [HEADS[0], HEADS[-1]], ids=str)
def test_eager_equals_compiled_in_float32(head):
    assert_eager_equals_compiled("float32", 1e-5, **head)


@pytest.mark.slow
@pytest.mark.parametrize("dtype, tolerance", [("float64", 1e-12), ("float32", 1e-5)])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("head", HEADS, ids=str)
def test_eager_equals_compiled_for_every_combination(head, options, dtype, tolerance):
    assert_eager_equals_compiled(dtype, tolerance, **head, **options)


def test_popart_keeps_what_the_critics_say():
    """With learning rates of nothing, new statistics alone must not change a value."""
    for critic in ("q", "concat", "antisymmetric", "additive"):
        agent = small_agent(critic=critic, normalize_returns=True, popart=True, critic_lr=1e-30,
                            actor_lr=1e-30, tau=1e-30, critic_l2_reg=0.0)  # fmt: skip
        batch = agent._layout.unpack(tf.constant(50 * random_batches(agent, 1)[0]))
        before = agent.head.predictions(agent.nets, batch)
        scale = float(agent.nets.return_stats.std)
        ddpg_update(agent.nets, agent.head, batch, agent.config)
        after = agent.head.predictions(agent.nets, batch)
        assert float(agent.nets.return_stats.std) > 2 * scale
        np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-12)
