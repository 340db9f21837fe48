"""Critic heads on one-dimensional problems small enough to work out by hand, in float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common.networks import MLPConfig
from baselines_tf2.common.replay import Batch
from baselines_tf2.ddpg.config import CRITICS, DDPGConfig
from baselines_tf2.ddpg.heads import QHead, critic_input_dim, make_head, register
from baselines_tf2.ddpg.networks import Nets
from envs import ConfigError

LINEAR = MLPConfig(num_layers=0)
FORMS = ("concat", "antisymmetric", "additive")


def make(critic, **options):
    """Linear networks: mu(s) = tanh(0) = 0 until its weights are set."""
    options = {"normalize_observations": False} | options
    config = DDPGConfig(
        critic=critic, actor_network=LINEAR, critic_network=LINEAR, batch_size=2, **options
    )
    nets = Nets(config, 1, 1, critic_input_dim(config, 1, 1), dtype="float64")
    for network in (nets.actor, nets.critic, nets.target_actor, nets.target_critic):
        for weight in network.weights:
            weight.assign(tf.zeros_like(weight))
    return nets, make_head(config)


def set_linear(network, kernel, bias=0.0):
    network.set_weights([np.reshape(kernel, (len(kernel), 1)), np.array([bias])])


def batch(obs0, actions, rewards, obs1, terminals1=None, discounts=None, absorbing0=None):
    """A pair: every argument lists its two members."""
    fields = (rewards, terminals1 or [0, 0], discounts or [0.9, 0.9], absorbing0 or [0, 0])
    rewards, terminals1, discounts, absorbing0 = (tf.constant(x, tf.float64) for x in fields)
    column = lambda x: tf.constant(x, tf.float64)[:, None]
    return Batch(
        column(obs0), column(actions), rewards, column(obs1), terminals1, discounts, absorbing0
    )


PAIR = {"obs0": [1.0, 2.0], "actions": [0.5, -0.5], "rewards": [3.0, 1.0], "obs1": [4.0, 6.0]}


def test_q_targets_by_hand():
    nets, head = make("q")
    set_linear(nets.target_critic, [2.0, 7.0], 1.0)  # Q'(s, a) = 2 s + 7 a + 1, and mu' = 0
    targets = head.targets(nets, batch(**PAIR, terminals1=[0, 1]))
    # 3 + 0.9 (2 * 4 + 1) = 11.1; the second ended: 1
    np.testing.assert_allclose(targets, [11.1, 1.0])


def test_q_targets_follow_the_target_actor():
    nets, head = make("q")
    set_linear(nets.target_critic, [0.0, 10.0])
    set_linear(nets.target_actor, [0.25])
    # mu'(4) = tanh(1), mu'(6) = tanh(1.5)
    expected = [3 + 9 * np.tanh(1.0), 1 + 9 * np.tanh(1.5)]
    np.testing.assert_allclose(head.targets(nets, batch(**PAIR)), expected)


def test_q_loss_and_actor_value_by_hand():
    nets, head = make("q")
    set_linear(nets.critic, [1.0, 2.0])
    data = batch(**PAIR)
    np.testing.assert_allclose(head.predictions(nets, data), [2.0, 1.0])
    # ((2 - 3)^2 + (1 - 5)^2) / 2 = 8.5
    assert float(head.loss(nets, data, tf.constant([3.0, 5.0], tf.float64))) == pytest.approx(8.5)
    actions = tf.constant([[-1.0], [1.0]], tf.float64)
    np.testing.assert_allclose(head.actor_value(nets, data, actions), [-1.0, 4.0])


def set_difference(network, critic, q_obs, q_action, q_absorbing):
    """Weights with which every form computes q(x) - q(y), q linear in (s, a, absorbing)."""
    q = [q_obs, q_action, q_absorbing]
    set_linear(network, q if critic == "additive" else q + [-x for x in q])


@pytest.mark.parametrize("n_step", [1, 3])
def test_nothing_is_left_where_both_sides_ended_whatever_the_head_says(n_step):
    nets, head = make("concat", n_step=n_step)
    set_linear(nets.target_critic, [2.0, 7.0, 100.0] * 2, 5.0)  # f(absorbing, absorbing) = 205
    data = batch(**PAIR, terminals1=[1, 1], discounts=[0.9, 0.5])
    np.testing.assert_allclose(head.targets(nets, data), [2.0])


@pytest.mark.parametrize("critic", FORMS)
def test_difference_targets_by_hand(critic):
    nets, head = make(critic)
    set_difference(nets.target_critic, critic, 2.0, 7.0, 100.0)
    # 3 - 1 + 0.9 (2 * 4 - 2 * 6) = -1.6
    np.testing.assert_allclose(head.targets(nets, batch(**PAIR)), [-1.6])


@pytest.mark.parametrize("critic", FORMS)
@pytest.mark.parametrize(
    "terminals1, expected",
    [
        ([1, 0], 2 + 0.9 * (100 - 12)),  # A is absorbing, q(absorbing) = 100, B goes on with 12
        ([0, 1], 2 + 0.9 * (8 - 100)),
        ([1, 1], 2.0),  # nothing is left on either side
    ],
)
def test_a_terminal_leads_to_the_absorbing_state(critic, terminals1, expected):
    nets, head = make(critic)
    set_difference(nets.target_critic, critic, 2.0, 7.0, 100.0)
    targets = head.targets(nets, batch(**PAIR, terminals1=terminals1))
    np.testing.assert_allclose(targets, [expected])


@pytest.mark.parametrize("critic", FORMS)
@pytest.mark.parametrize(
    "discounts, terminals1, expected",
    [
        # q' = 2 s - q(absorbing): with c_A, c_B = 0.9, 0.5 the target is 2 + 0.5 (8 - 12) + 0.4
        # (8 - 100), and likewise with the roles exchanged.
        ([0.9, 0.5], [0, 0], 2 + 0.5 * (8 - 12) + 0.4 * (8 - 100)),
        ([0.5, 0.9], [0, 0], 2 + 0.5 * (8 - 12) - 0.4 * (12 - 100)),
        ([0.5, 0.5], [0, 0], 2 + 0.5 * (8 - 12)),
        # A ended: its discount does not matter, B keeps its own.
        ([0.9, 0.5], [1, 0], 2 + 0.5 * (100 - 12)),
        ([0.9, 0.5], [0, 1], 2 + 0.9 * (8 - 100)),
        ([0.9, 0.5], [1, 1], 2.0),
    ],
)
def test_windows_of_unequal_discount(critic, discounts, terminals1, expected):
    nets, head = make(critic, n_step=3)
    set_difference(nets.target_critic, critic, 2.0, 7.0, 100.0)
    data = batch(**PAIR, discounts=discounts, terminals1=terminals1)
    np.testing.assert_allclose(head.targets(nets, data), [expected])


@pytest.mark.parametrize("critic", FORMS)
def test_difference_loss_by_hand(critic):
    nets, head = make(critic)
    set_difference(nets.critic, critic, 1.0, 2.0, 0.0)
    data = batch(**PAIR)
    np.testing.assert_allclose(head.predictions(nets, data), [(1 + 1) - (2 - 1)])
    assert float(head.loss(nets, data, tf.constant([4.0], tf.float64))) == pytest.approx(9.0)


@pytest.mark.parametrize("critic", FORMS)
@pytest.mark.parametrize(
    "actor_loss, return_range, expected",
    [
        # q = s + 2 a, mu = (0.25, 0.75): D(A, mu; B, b) = 1.5 - 1 = 0.5,
        ("first", None, 0.5),
        # and D(A, a; B, mu) = 2 - 3.5 = -1.5: (0.5 + 1.5) / 2.
        ("symmetric", None, 1.0),
        ("symmetric", 0.5, (0.5 + 1.0) / 2),  # each difference is clipped to 1
        ("first", 0.125, 0.25),
    ],
)
def test_actor_losses_by_hand(critic, actor_loss, return_range, expected):
    nets, head = make(critic, actor_loss=actor_loss, return_range=return_range)
    set_difference(nets.critic, critic, 1.0, 2.0, 0.0)
    actions = tf.constant([[0.25], [0.75]], tf.float64)
    np.testing.assert_allclose(head.actor_value(nets, batch(**PAIR), actions), [expected])


@pytest.mark.parametrize("critic", FORMS)
def test_the_absorbing_state_hides_observation_and_action(critic):
    nets, head = make(critic)
    set_difference(nets.critic, critic, 1.0, 2.0, 50.0)
    data = batch(**PAIR, absorbing0=[0, 1])
    np.testing.assert_allclose(head.predictions(nets, data), [2.0 - 50.0])
    actions = tf.constant([[0.25], [0.75]], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(actions)
        value = head.actor_value(nets, data, actions)
    assert float(tape.gradient(value, actions)[1, 0]) == 0


def test_values_are_differences_to_the_absorbing_state():
    nets, head = make("additive")
    set_difference(nets.critic, "additive", 1.0, 2.0, 50.0)
    obs, actions = tf.constant([[3.0]], tf.float64), tf.constant([[0.5]], tf.float64)
    np.testing.assert_allclose(head.values(nets, obs, actions), [4.0 - 50.0])


def random_head(critic):
    config = DDPGConfig(critic=critic, normalize_observations=False, batch_size=2)
    nets = Nets(config, 1, 1, critic_input_dim(config, 1, 1), seed=3, dtype="float64")
    nets.critic.layers[-1].kernel.assign(
        keras.random.normal(nets.critic.layers[-1].kernel.shape, seed=0, dtype="float64")
    )

    def difference(x, y):
        return float(head_batch(nets, make_head(config), x, y))

    return difference


def head_batch(nets, head, x, y):
    return head.predictions(nets, batch([x[0], y[0]], [x[1], y[1]], [0, 0], [0, 0]))[0]


X, Y, Z = (0.3, -0.7), (-1.1, 0.2), (2.0, 0.9)


def test_concat_is_free_to_contradict_itself():
    difference = random_head("concat")
    assert abs(difference(X, Y) + difference(Y, X)) > 1e-3


@pytest.mark.parametrize("critic", ["antisymmetric", "additive"])
def test_antisymmetry_is_exact(critic):
    difference = random_head(critic)
    assert difference(X, X) == 0
    assert difference(X, Y) == -difference(Y, X) != 0


def test_only_the_additive_form_is_transitive():
    additive, antisymmetric = random_head("additive"), random_head("antisymmetric")
    assert additive(X, Z) == pytest.approx(additive(X, Y) + additive(Y, Z), abs=1e-12)
    assert abs(antisymmetric(X, Z) - antisymmetric(X, Y) - antisymmetric(Y, Z)) > 1e-3


def test_returns_are_clipped_and_differences_to_twice_that():
    for critic, bound in (("q", 2.0), ("additive", 4.0)):
        nets, head = make(critic, return_range=2.0)
        targets = tf.constant([100.0, -100.0][: 2 if critic == "q" else 1], tf.float64)
        # The prediction is 0, so the loss is the clipped target's square.
        assert float(head.loss(nets, batch(**PAIR), targets)) == pytest.approx(bound**2)


def test_normalised_differences_keep_their_sign():
    nets, head = make("additive", normalize_returns=True)
    nets.return_stats.update(tf.constant([10.0] * 1000, tf.float64))  # scale 10, mean held at 0
    set_difference(nets.critic, "additive", 1.0, 2.0, 0.0)
    np.testing.assert_allclose(head.predictions(nets, batch(**PAIR)), [10.0], rtol=1e-4)
    set_difference(nets.target_critic, "additive", 2.0, 0.0, 0.0)
    # Targets in units of return: 3 - 1 + 0.9 * 10 (8 - 12)
    np.testing.assert_allclose(head.targets(nets, batch(**PAIR)), [2 - 36.0], rtol=1e-4)


@pytest.mark.parametrize("paired, points, width", [(False, 1, 5), (True, 1, 6), (True, 2, 12)])
def test_a_head_of_ones_own_is_a_setting(paired, points, width, monkeypatch):
    monkeypatch.setitem(CRITICS, "own", None)  # which is taken out afterwards
    own = register("own", paired=paired, points=points)(type("Own", (QHead,), {}))
    config = DDPGConfig(critic="own")
    assert config.paired is paired and type(make_head(config)) is own
    assert critic_input_dim(config, 3, 2) == width  # (3 + 2 + 1 if paired) points
    assert type(make_head(DDPGConfig(critic="q"))) is QHead


def test_a_head_that_nobody_registered_is_refused():
    with pytest.raises(ConfigError, match="unknown critic 'addditive'; did you mean 'additive'"):
        DDPGConfig(critic="addditive")
