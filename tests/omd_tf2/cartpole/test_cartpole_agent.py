"""The agent: how it explores, stores, trains, is saved and repeats itself."""

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import softmax

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.replay import Rollout
from envs.errors import ConfigError
from omd_tf2.cartpole import update as module
from omd_tf2.cartpole.agent import CartPoleAgent
from omd_tf2.cartpole.config import AGENTS, CartPoleConfig
from omd_tf2.cartpole.update import metric_names
from omd_tf2.common.functional import mlp
from tests.omd_tf2.small import assert_same, flat

O, A, B = 3, 3, 4
DRAWS = 20_000


def make(seed=0, dtype="float32", **options):
    sizes = {"batch_size": B, "hidden_dim": 4}
    if options.get("agent") != "qlearning":
        sizes["model_hidden_dim"] = 4
    options = sizes | options
    return CartPoleAgent(
        CartPoleConfig(**({"replay_size": 100} | options)), O, A, seed=seed, dtype=dtype
    )


def rows(num=30, seed=0):
    """The reward is the row's number, so that a row can be told."""
    rng = np.random.default_rng(seed)
    ends = (np.arange(num) % 10 == 9)[:, None]
    return Rollout(
        obs0=rng.normal(size=(num, 1, O)),
        actions=np.eye(A)[rng.integers(A, size=(num, 1))],
        rewards=np.arange(num)[:, None],
        obs1=rng.normal(size=(num, 1, O)),
        terminals1=ends,
        ends=ends,
        members=np.zeros((num, 1), int),
    )


def trained(**options):
    agent = make(**options)
    agent.store(rows())
    agent.train()
    return agent


def state(agent):
    return agent.state


def mean_q(agent, obs):
    critics = state(agent).critics
    return np.mean([mlp(q, tf.constant(obs, q[0][0].dtype)) for q in critics], 0)


@pytest.mark.parametrize("no_double", [False, True])
def test_the_greedy_policy_is_the_best_action_by_the_critics_mean(no_double, eagerly):
    agent, obs = trained(no_double=no_double, greedy=True), rows().obs0[:, 0]
    best = mean_q(agent, obs).argmax(-1)
    assert len(set(best)) > 1
    np.testing.assert_array_equal(agent.policy()(obs), np.eye(A)[best])
    np.testing.assert_array_equal(agent.predict(obs), best)
    assert agent.predict(obs[0]) == agent.predict(obs[0].tolist()) == best[0]
    assert agent.predict(obs.reshape(5, 6, O)).shape == (5, 6)


@pytest.mark.parametrize("epsilon", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("hard", [False, True])
def test_exploration_is_uniform_with_probability_epsilon_else_softmax_or_best(hard, epsilon):
    options = {} if hard else {"alpha": 0.02}
    agent, obs = make(hard=hard, epsilon=epsilon, **options), np.full((1, O), 2.0)
    q = mean_q(agent, obs)[0]
    greedy = np.eye(A)[q.argmax()] if hard else softmax(q / 0.02)
    assert hard or (greedy > 0.05).all() and greedy.max() > 0.4
    expected = epsilon / A + (1 - epsilon) * greedy
    actions = agent.exploring_policy()()(np.repeat(obs, DRAWS, 0))
    assert set(np.unique(actions)) == {0.0, 1.0} and (actions.sum(-1) == 1).all()
    # Four standard errors of a share; none where the action is certain.
    allowed = 4 * np.sqrt(expected * (1 - expected) / DRAWS)
    assert (np.abs(actions.mean(0) - expected) <= allowed).all()


def test_the_policy_is_else_drawn_from_the_softmax_or_best_and_leaves_exploration_as_it_was():
    agent, other, obs = make(alpha=0.02), make(alpha=0.02), np.full((1, O), 2.0)
    expected = softmax(mean_q(agent, obs)[0] / 0.02)
    assert (expected > 0.05).all() and expected.max() > 0.4
    actions = agent.policy()(np.repeat(obs, DRAWS, 0))
    allowed = 4 * np.sqrt(expected * (1 - expected) / DRAWS)
    assert (np.abs(actions.mean(0) - expected) <= allowed).all()
    many = np.repeat(obs, 50, 0)
    explored = [x.exploring_policy()()(many) for x in (agent, other)]
    np.testing.assert_array_equal(*explored)
    other.set_state(agent.get_state())
    np.testing.assert_array_equal(*(x.policy()(many) for x in (agent, other)))
    hard = make(hard=True)
    best = np.eye(A)[[mean_q(hard, obs)[0].argmax()] * 50]
    np.testing.assert_array_equal(hard.policy()(many), best)


def test_an_episodes_draws_are_not_the_environments():
    # A reset with the same seed gives the environment the stream default_rng(seed).
    policy, obs = make(alpha=1e9).policy(), np.zeros((200, O))
    policy.begin(3)
    drawn, theirs = (
        policy(obs).argmax(-1),
        np.random.default_rng(3).gumbel(size=(200, A)).argmax(-1),
    )
    assert 0.2 < (drawn == theirs).mean() < 0.5  # by chance one in three
    policy.begin(3)
    np.testing.assert_array_equal(policy(obs).argmax(-1), drawn)


def test_a_policy_once_given_is_not_moved_by_training(eagerly):
    agent, obs = trained(lr=0.1, inner_lr=0.1, greedy=True), rows().obs0[:, 0]
    policy, before = agent.policy(), agent.policy()(obs)
    for _ in range(3):
        agent.train()
    np.testing.assert_array_equal(policy(obs), before)
    assert not np.array_equal(agent.policy()(obs), before)


def test_transitions_arrive_in_the_replay_as_they_were():
    agent, new = make(), rows()
    assert not agent.can_train()
    agent.store(new)
    assert agent.can_train()
    replay = agent.replay
    held = replay.layout.unpack(replay.gather(np.arange(30), np.zeros(30, int)))
    np.testing.assert_array_equal(held.actions, new.actions[:, 0])
    np.testing.assert_array_equal(held.rewards, new.rewards[:, 0])
    np.testing.assert_array_equal(held.terminals1, new.terminals1[:, 0])
    np.testing.assert_allclose(held.obs1, new.obs1[:, 0], rtol=1e-6)


@pytest.mark.parametrize(
    "options, num",
    [
        ({"agent": "omd", "inner_steps": 2, "prob_model": True}, 1),
        ({"agent": "omd", "no_warm": True}, 1),
        ({"agent": "mle", "inner_steps": 2, "model_steps": 3}, 5),
        ({"agent": "vep", "prob_model": True}, 2),
        ({"agent": "vep", "inner_steps": 3, "one_batch": True}, 2),
        ({"agent": "vaml"}, 2),
        ({"agent": "qlearning", "inner_steps": 2}, 2),
    ],
    ids=str,
)
def test_an_update_gets_stored_rows_and_a_draw_for_each(options, num, eagerly, monkeypatch):
    seen, update = [], module.update

    def watched(state, batches, noise, config):
        seen.append((batches, noise))
        return update(state, batches, noise, config)

    monkeypatch.setattr(module, "update", watched)
    agent, new = make(**options, cycle_steps=2), rows()
    agent.store(new)
    agent.train()
    assert len(seen) == 2
    for batches, noise in seen:
        assert noise.model.shape == (num, B, O * agent.config.prob_model)
        # Both critics' kernels: 3 x 4, 4 x 4 and 4 x 3.
        assert noise.critics.shape == (80 * agent.config.no_warm,)
        indices = batches.rewards.numpy().astype(int)
        assert indices.shape == (num, B)
        for field in batches._fields:
            expected = getattr(new, field)[indices, 0].astype(np.float32)
            np.testing.assert_array_equal(getattr(batches, field), expected)
    drawn = np.concatenate([batches.rewards for batches, _ in seen])
    assert len({tuple(x) for x in drawn}) == 2 * num
    assert all(len(set(x)) == B for x in drawn)
    draws = [x for _, noise in seen for x in (*noise.model, noise.critics) if tf.size(x)]
    assert len({float(tf.reshape(x, [-1])[0]) for x in draws}) == len(draws)


@pytest.mark.parametrize("agent", AGENTS)
def test_training_reports_finite_metrics_by_name(agent, eagerly):
    agent = make(agent=agent)
    agent.store(rows())
    metrics = agent.train()
    assert tuple(metrics) == metric_names(agent.config)
    assert all(isinstance(x, float) and np.isfinite(x) for x in metrics.values())
    assert agent.statistics(rows()) == agent.diagnostics() == {}


def test_a_cycle_has_an_update_per_step(eagerly):
    assert state(trained(cycle_steps=3)).model_adam.steps == 3


@pytest.mark.parametrize(
    "agent, name", [("omd", "train/real_critic_loss"), ("qlearning", "train/critic_loss")]
)
def test_the_first_metric_that_is_not_finite_is_named(agent, name, eagerly):
    agent = make(agent=agent)
    agent.store(rows()._replace(rewards=np.full((30, 1), np.nan)))
    with pytest.raises(TrainingError, match=f"{name} is nan"):
        agent.train()


def test_a_seed_fixes_every_bit_and_compiled_is_eager():
    runs = []
    for eager, seed in ((False, 0), (True, 0), (True, 0), (True, 1)):
        tf.config.run_functions_eagerly(eager)
        agent = trained(seed=seed, dtype="float64", agent="mle", prob_model=True, cycle_steps=3)
        explored = agent.exploring_policy()()(np.ones((50, O)))
        runs.append((flat(state(agent)), explored))
    tf.config.run_functions_eagerly(False)
    (compiled, _), (first, acted), (again, acted_again), (other, acted_other) = runs
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(acted_again, acted)
    np.testing.assert_allclose(compiled, first, rtol=0, atol=1e-10)
    assert not np.allclose(other, first) and not np.array_equal(acted_other, acted)


def test_saved_is_loaded_and_goes_on_alike(tmp_path, eagerly):
    agent, other = trained(greedy=True), trained(seed=1, greedy=True)
    agent.save(tmp_path / "w.npz")
    other.load(tmp_path / "w.npz")
    assert_same(state(other), state(agent))
    obs = rows(seed=5).obs0[:, 0]
    np.testing.assert_array_equal(other.predict(obs), agent.predict(obs))
    np.testing.assert_array_equal(other.policy()(obs), agent.policy()(obs))


@pytest.mark.parametrize("options", [{"hidden_dim": 5}, {"no_double": True}, {"agent": "vep"}])
def test_weights_of_another_agent_are_refused(tmp_path, options):
    make().save(tmp_path / "w.npz")
    with pytest.raises(ConfigError, match="saved by an agent with other settings"):
        make(**options).load(tmp_path / "w.npz")


def test_observations_of_another_length_are_named():
    with pytest.raises(ConfigError, match=rf"of shape \[..., {O}\], not \[2, 9\]"):
        make().predict(np.zeros((2, 9)))
