import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.networks import MLPConfig
from baselines_tf2.common.replay import Rollout
from baselines_tf2.ddpg import agent as ddpg_agent
from baselines_tf2.ddpg.agent import DDPGAgent
from baselines_tf2.ddpg.config import DDPGConfig, DDPGTrainConfig, LoopConfig, check_envs
from envs import ConfigError

SMALL = MLPConfig(2, 8)


def make(seed=0, num_envs=1, **options):
    options = {"batch_size": 4, "nb_train_steps": 3, "replay_size": 200} | options
    config = DDPGConfig(**({"actor_network": SMALL, "critic_network": SMALL} | options))
    return DDPGAgent(config, 3, 2, seed=seed, num_envs=num_envs)


def rows(num=40, num_envs=1, seed=0):
    rng = np.random.default_rng(seed)
    ends = np.zeros((num, num_envs), bool)
    ends[9::10] = True
    return Rollout(
        obs0=rng.normal(3.0, 2.0, (num, num_envs, 3)).astype(np.float32),
        actions=rng.uniform(-1, 1, (num, num_envs, 2)).astype(np.float32),
        rewards=rng.normal(size=(num, num_envs)).astype(np.float32),
        obs1=rng.normal(3.0, 2.0, (num, num_envs, 3)).astype(np.float32),
        terminals1=ends & (np.arange(num) < 20)[:, None],
        ends=ends,
        members=np.repeat(np.arange(num // 10), 10)[:, None] * np.ones(num_envs, int),
    )


def weights(agent):
    return [np.asarray(v) for v in agent.nets.state().values()]


def test_acting_in_numpy_equals_the_network():
    agent = make()
    agent.store(rows())
    obs = rows(seed=5).obs0[:, 0]
    expected = agent.nets.actor(agent.nets.normalise_obs(tf.constant(obs)))
    np.testing.assert_allclose(agent.predict(obs), expected, atol=1e-6)
    np.testing.assert_allclose(agent.predict(obs[0]), expected[0], atol=1e-6)
    with pytest.raises(ConfigError, match=rf"of shape \[..., {obs.shape[1]}\], not \[7\]"):
        agent.predict(np.zeros(7))
    with pytest.raises(ConfigError, match="must be numbers of shape"):
        agent.predict((obs[0], {}))


def test_step_is_baselines_call(eagerly):
    agent = make()
    obs = rows().obs0[0, 0]
    actions, q, state, neglogp = agent.step(obs)
    assert actions.shape == (1, 2) and q.shape == (1,) and state is neglogp is None
    expected = agent.head.values(agent.nets, tf.constant(obs[None]), tf.constant(actions))
    np.testing.assert_allclose(q, expected, atol=1e-6)


def test_rewards_are_scaled_once_in_the_replay():
    agent = make(reward_scale=0.1)
    new = rows()
    agent.store(new)
    held = agent.replay.gather(np.arange(40), np.zeros(40, int))
    np.testing.assert_allclose(held[:, agent.replay.layout.rewards], 0.1 * new.rewards[:, 0])


def test_the_normaliser_follows_every_stored_observation():
    agent = make()
    agent.store(rows(400))
    np.testing.assert_allclose(agent.nets.obs_stats.mean, 3.0, atol=0.4)
    np.testing.assert_allclose(agent.nets.obs_stats.std, 2.0, atol=0.3)


def test_the_normaliser_counts_every_observation_once_as_the_policy_saw_it():
    """By hand: a hundredth of a row of mean 0 and variance 1, then ten rows of obs0."""
    agent, new = make(), rows(10)
    agent.store(new._replace(obs1=new.obs1 + 50))
    x = new.obs0[:, 0].astype(float)
    mean = x.sum(0) / 10.01
    std = np.sqrt((np.square(x).sum(0) + 0.01) / 10.01 - mean**2)
    np.testing.assert_allclose(agent.nets.obs_stats.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(agent.nets.obs_stats.std, std, rtol=1e-5)


def test_adapted_parameter_noise_moves_the_actions_as_far_as_it_should():
    """Where it settles, a policy that explores is at the wanted distance from the actor."""
    agent = make(nb_train_steps=600, param_noise_adaption_interval=1, batch_size=64)
    new = rows()
    agent.store(new)
    agent._adapt_noise(agent._stddev)  # without the updates, which would move the actor
    obs, source = new.obs0[:, 0], agent.exploring_policy()
    distances = [np.square(source()(obs) - agent.predict(obs)).mean() ** 0.5 for _ in range(50)]
    assert np.median(distances) == pytest.approx(0.2, rel=0.3)


def test_only_a_perturbed_policy_lasts_an_episode():
    assert make(noise_type="normal_0.1").refresh_each_cycle
    assert not make(noise_type="adaptive-param_0.1").refresh_each_cycle
    assert make(noise_type="adaptive-param_0.1", num_envs=2).refresh_each_cycle


def test_exploring_policies_are_perturbed_each_time():
    agent, obs = make(noise_type="adaptive-param_0.5"), rows().obs0[:, 0]
    source = agent.exploring_policy()
    first, second = source()(obs), source()(obs)
    assert not np.allclose(first, second)
    assert not np.allclose(first, agent.predict(obs))
    plain = make(noise_type="normal_0.5").exploring_policy()
    np.testing.assert_array_equal(plain()(obs), make(noise_type="none").predict(obs))


def test_parameter_noise_is_adapted_once_per_interval(eagerly, monkeypatch):
    agent = make(nb_train_steps=7, param_noise_adaption_interval=3)
    agent.store(rows())
    distances, action_distance = [], ddpg_agent.action_distance

    def noted(*actions):
        distances.append(action_distance(*actions))
        return distances[-1]

    monkeypatch.setattr(ddpg_agent, "action_distance", noted)
    metrics = agent.train()
    assert len(distances) == 3
    assert metrics["param_noise/distance"] == pytest.approx(np.mean(distances))
    ups = sum(distance <= 0.2 for distance in distances)
    assert metrics["param_noise/stddev"] == pytest.approx(0.2 * 1.01 ** (2 * ups - 3))
    assert int(agent.nets.critic_optimizer.iterations) == 7


def test_training_is_repeatable_and_eagerly_the_same():
    """A whole cycle, parameter noise and all."""
    agent, other = (
        make(seed=3, nb_train_steps=5, param_noise_adaption_interval=3) for _ in range(2)
    )
    agent.store(rows())
    other.store(rows())
    runs, state = [], agent.get_state()
    for trained in (agent, agent, other):
        tf.config.run_functions_eagerly(trained is other)
        trained.train()
        runs.append([*weights(trained), trained._stddev])
        agent.set_state(state)
    tf.config.run_functions_eagerly(False)
    for a, b, eager in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)
        np.testing.assert_allclose(a, eager, rtol=1e-5, atol=1e-5)


def test_an_exploring_policy_is_not_moved_by_training_meanwhile(eagerly):
    """Overlapped training changes actor and stddev while an episode asks for its policy."""
    obs, drawn = rows().obs0[:, 0], []
    for train_meanwhile in (False, True):
        agent = make(seed=3)
        agent.store(rows())
        source = agent.exploring_policy()
        if train_meanwhile:
            agent.train()
            # The normaliser's statistics are moved by `store` alone, between cycles.
        drawn.append(source()(obs))
    np.testing.assert_array_equal(*drawn)


@pytest.mark.parametrize("critic", ["q", "concat", "antisymmetric", "additive"])
@pytest.mark.parametrize("pairing", ["independent", "same_member", "coupled"])
def test_every_head_runs_with_every_pairing_and_reports_diagnostics(
    critic, pairing, eagerly, monkeypatch
):
    monkeypatch.setattr(ddpg_agent, "DIAGNOSTIC_BATCHES", 2)
    if critic == "q" and pairing != "independent":
        with pytest.raises(ConfigError, match="needs a difference critic"):
            make(critic=critic, pairing=pairing)
        return
    num_envs = 1 + (pairing == "coupled")
    agent = make(critic=critic, pairing=pairing, num_envs=num_envs, n_step=2)
    new = rows(num_envs=num_envs)
    agent.store(new)
    metrics = agent.statistics(new) | agent.diagnostics()
    metrics |= agent.train()
    assert all(np.isfinite(value) for value in metrics.values())
    assert 0 <= metrics["diagnostics/robot_share"] <= 1
    assert {"train/critic_loss", "diagnostics/target_variance"} <= set(metrics)


def test_logging_does_not_change_what_is_explored(eagerly):
    logged, other = make(noise_type="adaptive-param_0.2"), make(noise_type="adaptive-param_0.2")
    new = rows()
    for agent in (logged, other):
        agent.store(new)
    assert "reference/perturbed_action_mean" in logged.statistics(new)
    obs = new.obs0[:, 0]
    np.testing.assert_array_equal(*(x.exploring_policy()()(obs) for x in (logged, other)))


def test_a_loss_that_is_not_finite_is_named(eagerly):
    agent = make(noise_type="none")
    new = rows()
    agent.store(new._replace(rewards=new.rewards * np.nan))
    with pytest.raises(TrainingError, match="train/critic_loss is nan"):
        agent.train()


def test_saved_is_loaded_with_normalisers_and_optimisers(tmp_path, eagerly):
    agent = make(normalize_returns=True)
    agent.store(rows())
    agent.train()
    agent.save(tmp_path / "w.npz")
    other = make(seed=9, normalize_returns=True)
    other.load(tmp_path / "w.npz")
    for a, b in zip(weights(agent), weights(other), strict=True):
        np.testing.assert_array_equal(a, b)
    assert other._stddev == agent._stddev
    obs = rows(seed=5).obs0[:, 0]
    np.testing.assert_array_equal(agent.predict(obs), other.predict(obs))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "w.npz"
    make().save(path)
    return path


def test_loading_keeps_the_learning_rates_of_the_settings(saved):
    other = make(actor_lr=1e-6, critic_lr=1e-5)
    other.load(saved)
    assert float(other.nets.actor_optimizer.learning_rate) == pytest.approx(1e-6)
    assert float(other.nets.critic_optimizer.learning_rate) == pytest.approx(1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"critic": "additive"},
        {"normalize_returns": True},
        {"reward_scale": 0.1},
        {"observation_range": 4.0},
        {"actor_network": MLPConfig(2, 8, "relu")},
        {"critic_network": MLPConfig(2, 9)},
    ],
)
def test_weights_of_another_agent_are_refused(saved, options):
    other = make(**options)
    before = weights(other)
    with pytest.raises(ConfigError, match="saved by an agent with other settings"):
        other.load(saved)
    for a, b in zip(before, weights(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_weights_that_were_made_for_normalised_observations_are_refused_without(tmp_path):
    make(normalize_observations=True).save(tmp_path / "weights.npz")
    with pytest.raises(ConfigError, match="other settings: obs_stats/0 does not match"):
        make(normalize_observations=False).load(tmp_path / "weights.npz")


def test_what_env_reset_gives_is_no_observation():
    with pytest.raises(ConfigError, match="observations must be numbers"):
        make().step((np.zeros(3, np.float32), {}))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"critic": "additiv"}, "did you mean 'additive'"),
        ({"critic": "concat", "pairing": "couple"}, "did you mean 'coupled'"),
        ({"critic": "concat", "batch_size": 5}, "even batch_size"),
        ({"actor_loss": "symmetric"}, "needs a difference critic"),
        ({"popart": True}, "normalize_returns"),
        ({"gamma": 1.5}, "gamma must lie"),
        ({"tau": 0.0}, "tau must lie"),
        ({"actor_lr": float("nan")}, "actor_lr must be positive"),
        ({"clip_norm": 0.0}, "clip_norm must be positive"),
        ({"clip_norm": float("inf")}, "clip_norm must be positive and finite, or none"),
        ({"n_step": 0}, "n_step must be at least 1"),
        ({"critic": "concat", "absorbing_fraction": 0.0}, "absorbing_fraction must lie in"),
        ({"replay_size": 10}, "does not hold one cycle"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        DDPGConfig(**options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"epopt_trajectories": 10, "num_envs": 2}, "num_envs=1, not 2"),
        ({"num_envs": 0}, "num_envs must be at least 1, not 0"),
        ({"nb_epoch_cycles": 0}, "nb_epoch_cycles must be at least 1, not 0"),
        ({"overlap": 1}, "overlap must be of type bool, not 1"),
        ({"epopt_trajectories": -1}, "epopt_trajectories must be at least 0, not -1"),
    ],
)
def test_loops_that_cannot_run_are_refused(options, message):
    for kind in (LoopConfig, DDPGTrainConfig):
        with pytest.raises(ConfigError, match=message):
            kind(**options)


def test_a_number_of_environments_that_does_not_suit_the_agent_is_refused():
    with pytest.raises(ConfigError, match="num_envs must be even, as 2, not 1"):
        check_envs(DDPGConfig(critic="concat", pairing="coupled"), 1)
    with pytest.raises(ConfigError, match="nb_rollout_steps=100 is of all environments"):
        check_envs(DDPGConfig(), 3)
    check_envs(DDPGConfig(critic="concat", pairing="coupled"), 2)


@pytest.mark.parametrize(
    "options, needed",
    [
        ({"absorbing_fraction": 0.2}, {"critic": "concat"}),
        (
            {"param_noise_adaption_interval": 20, "noise_type": "normal_0.2"},
            {"noise_type": "normal_0.2,adaptive-param_0.2"},
        ),
        (
            {"observation_range": 4.0, "normalize_observations": False},
            {"normalize_observations": True},
        ),
    ],
)
def test_a_setting_that_nothing_reads_is_refused(options, needed):
    refused_unless_needed(DDPGConfig, options, needed)


@pytest.mark.parametrize("options", [{"epopt_epsilon": 0.3}, {"epopt_warmup": 0.7}])
@pytest.mark.parametrize("kind", [LoopConfig, DDPGTrainConfig])
def test_a_setting_of_epopt_without_it_is_refused(kind, options):
    refused_unless_needed(kind, options, {"epopt_trajectories": 10})


def refused_unless_needed(kind, options, needed):
    name = next(iter(options))
    with pytest.raises(ConfigError, match=f"{name} does nothing without"):
        kind(**options)
    kind(**options | needed)
    kind(**options | {name: getattr(kind(), name)})  # the default is not set


def test_eagerly_an_update_holds_real_tensors(eagerly):
    """What a person at a breakpoint inside an update sees."""
    agent = make()
    agent.store(rows())
    seen, targets = [], agent.head.targets
    agent.head.targets = lambda nets, batch: (
        seen.append(batch.rewards.numpy()),
        targets(nets, batch),
    )[1]
    agent.train()
    assert [rewards.shape for rewards in seen] == [(4,)] * 3
