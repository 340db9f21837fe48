"""The agent and its settings: acting, training, saving."""

import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.replay import Rollout
from envs.errors import ConfigError
from omd_tf2.common.solver import SolverConfig
from omd_tf2.halfcheetah.agent import HalfCheetahAgent
from omd_tf2.halfcheetah.config import HalfCheetahConfig
from omd_tf2.halfcheetah.sac import gaussian
from omd_tf2.halfcheetah.update import metric_names
from tests.omd_tf2.halfcheetah.small import A, O
from tests.omd_tf2.small import changed, flat

FAILING = {"name": "cg", "tol": 1e-12, "max_steps": 1}
SMALL = {"hidden_dim": 5, "model_hidden_dim": 4, "batch_size": 4, "replay_size": 100}


def make(seed=0, dtype="float64", **options):
    return HalfCheetahAgent(HalfCheetahConfig(**(SMALL | options)), O, A, seed=seed, dtype=dtype)


def rows(num=40, seed=0):
    rng = np.random.default_rng(seed)
    terminals1 = np.arange(num)[:, None] % 10 == 9
    return Rollout(
        obs0=rng.normal(size=(num, 1, O)),
        actions=rng.uniform(-1, 1, (num, 1, A)),
        rewards=rng.normal(size=(num, 1)),
        obs1=rng.normal(size=(num, 1, O)),
        terminals1=terminals1,
        ends=terminals1,
        members=np.zeros((num, 1), int),
    )


def stored(**options):
    agent = make(**options)
    agent.store(rows())
    return agent


def state(agent):
    return agent.state


@pytest.mark.parametrize("agent_name", ["omd", "mle"])
def test_training_moves_everything_and_reports_it(agent_name, eagerly):
    agent = stored(agent=agent_name)
    before = state(agent)
    metrics = agent.train()
    assert tuple(metrics) == metric_names(agent.config)
    assert all(isinstance(x, float) and np.isfinite(x) for x in metrics.values())
    assert changed(before, state(agent)) == set(before._fields)
    np.testing.assert_array_equal(flat(agent._acting), flat(state(agent).actor))
    assert agent.statistics(rows()) == agent.diagnostics() == {}


def test_updates_per_call_and_inner_steps_per_update(eagerly):
    agent = stored(cycle_steps=2, outer_steps=2, inner_steps=3)
    agent.train()
    after = state(agent)
    steps = [float(adam.steps) for adam in (after.model_adam, after.actor_adam, after.critic_adam)]
    assert steps == [4, 12, 12]


def test_compiled_training_equals_eager_training_twice_over():
    agents = []
    for eager in (False, True, True):
        tf.config.run_functions_eagerly(eager)
        agents.append(stored(cycle_steps=3))
        metrics = agents[-1].train()
        agents[-1].metrics = list(metrics.values())
    tf.config.run_functions_eagerly(False)
    compiled, eager, again = agents
    np.testing.assert_allclose(compiled.metrics, eager.metrics, rtol=1e-9)
    np.testing.assert_allclose(flat(state(compiled)), flat(state(eager)), rtol=1e-9, atol=1e-11)
    np.testing.assert_array_equal(flat(compiled._acting), flat(state(compiled).actor))
    np.testing.assert_array_equal(flat(state(again)), flat(state(eager)))


def test_a_seed_fixes_weights_batches_and_exploration(eagerly):
    runs = []
    for seed in (0, 0, 1):
        agent = stored(seed=seed)
        agent.train()
        explored = agent.exploring_policy()()(np.ones((1, O)))
        runs.append(np.concatenate([flat(state(agent)), explored[0]]))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.allclose(runs[0], runs[2]) and not np.allclose(runs[0][-A:], runs[2][-A:])


def test_acting_in_numpy_equals_the_policys_squashed_mean(eagerly):
    agent = stored()
    for _ in range(2):
        obs = np.random.default_rng(1).normal(size=(6, O))
        mean, _ = gaussian(state(agent).actor, tf.constant(obs))
        np.testing.assert_allclose(agent.predict(obs), np.tanh(mean), rtol=1e-12)
        np.testing.assert_array_equal(agent.policy()(obs), agent.predict(obs))
        agent.train()


@pytest.mark.parametrize("shape", [(), (1,), (7,), (2, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_actions_have_the_observations_shape_and_lie_in_the_box(shape, dtype):
    obs = 1e3 * np.random.default_rng(0).normal(size=(*shape, O))
    actions = make(dtype=dtype).predict(obs)
    assert actions.shape == (*shape, A) and actions.dtype == dtype
    assert np.abs(actions).max() <= 1


def test_predict_takes_a_list():
    agent = make()
    np.testing.assert_array_equal(agent.predict([1, 2, 3]), agent.predict(np.arange(1.0, 4.0)))


def test_exploration_samples_the_policy():
    # 20,000 draws of each dimension: standard errors std / sqrt(20,000) and std / sqrt(40,000)
    agent, obs = make(), np.full((20_000, O), 0.1)
    mean, std = gaussian(state(agent).actor, tf.constant(obs[:1]))
    actions = agent.exploring_policy()()(obs)
    assert actions.shape == (20_000, A) and np.abs(actions).max() <= 1
    unsquashed = np.arctanh(np.clip(actions, -1 + 1e-15, 1 - 1e-15))
    assert np.all(np.abs(unsquashed.mean(0) - mean[0]) < 5 * std[0] / 20_000**0.5)
    assert np.all(np.abs(unsquashed.std(0) - std[0]) < 5 * std[0] / 40_000**0.5)


def test_only_an_agent_with_data_can_train():
    assert not make().can_train() and stored().can_train()


def broken(**options):
    agent, new = make(**options), rows()
    agent.store(new._replace(rewards=np.nan * new.rewards))
    return agent


def test_a_metric_that_is_not_finite_is_named(eagerly):
    with pytest.raises(TrainingError, match="train/model_loss is nan"):
        broken(agent="mle").train()


@pytest.mark.slow
def test_a_metric_that_is_not_finite_is_named_rather_than_the_solve_compiled():
    with pytest.raises(TrainingError, match="train/model_loss is nan"):
        broken(solver=SolverConfig("gauss_newton", ridge=1.0)).train()


def test_a_failed_solve_stops_eagerly(eagerly):
    with pytest.raises(TrainingError, match="did not converge.*residual"):
        stored(solver=SolverConfig(**FAILING)).train()


@pytest.mark.slow
def test_a_failed_solve_stops_compiled_and_moves_nothing():
    agent = stored(solver=SolverConfig(**FAILING), cycle_steps=3)
    before = state(agent)
    with pytest.raises(TrainingError, match="solve by 'cg' did not converge.*1 iterations.*ridge"):
        agent.train()
    assert not changed(before, state(agent))


@pytest.mark.parametrize("on_failure", ["use", "identity"])
def test_a_failed_solve_that_need_not_stop_is_reported(on_failure, eagerly):
    metrics = stored(solver=SolverConfig(**FAILING, on_failure=on_failure)).train()
    assert metrics["solver/converged"] == 0 and metrics["solver/iterations"] == 1


def test_saved_is_loaded_with_optimisers_and_acts_alike(tmp_path, eagerly):
    agent, other = stored(), stored(seed=1)
    agent.train()
    agent.save(tmp_path / "w.npz")
    other.load(tmp_path / "w.npz")
    assert not changed(state(agent), state(other))
    obs = np.ones(O)
    np.testing.assert_array_equal(other.predict(obs), agent.predict(obs))
    assert state(other).critic_adam.steps == 1


@pytest.mark.parametrize("options", [{"hidden_dim": 6}, {"model_hidden_dim": 5}])
def test_weights_of_other_settings_are_refused(options, tmp_path):
    make(**options).save(tmp_path / "w.npz")
    agent = make()
    before = state(agent)
    with pytest.raises(ConfigError, match="w.npz was saved by an agent with other settings"):
        agent.load(tmp_path / "w.npz")
    assert not changed(before, state(agent))


def test_damaged_weights_are_refused(tmp_path):
    agent = make()
    agent.save(tmp_path / "w.npz")
    (tmp_path / "w.npz").write_bytes((tmp_path / "w.npz").read_bytes()[:500])
    with pytest.raises(ConfigError, match="w.npz cannot be read, it is damaged"):
        agent.load(tmp_path / "w.npz")


def test_the_settings_are_the_papers():
    config = HalfCheetahConfig()
    rates = (config.model_lr, config.critic_lr, config.actor_lr, config.temperature_lr)
    assert set(rates) == {3e-4}
    assert (config.batch_size, config.tau) == (256, 0.005)
    assert (config.hidden_dim, config.model_hidden_dim) == (256, 64)
    assert (config.init_temperature, config.inner_steps, config.outer_steps) == (1, 1, 1)
    assert config.solver == SolverConfig("identity")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"agent": "vep"}, "unknown agent 'vep'; known: mle, omd, sac, vaml"),
        ({"agent": "mle", "solver": SolverConfig("cg")}, "'mle' solves no linear system: leave"),
        ({"agent": "sac", "model_lr": 1e-3}, "model_lr means nothing to agent 'sac': leave it out"),
        ({"agent": "sac", "model_hidden_dim": 128}, "model_hidden_dim means nothing"),
        ({"agent": "sac", "residual_model": True}, "residual_model means nothing"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"batch_size": 2.5}, "batch_size must be of type int, not 2.5"),
        ({"inner_steps": 0}, "inner_steps must be at least 1, not 0"),
        ({"outer_steps": -1}, "outer_steps must be at least 1, not -1"),
        ({"cycle_steps": 0}, "cycle_steps must be at least 1, not 0"),
        ({"replay_size": 0}, "replay_size must be at least 1, not 0"),
        ({"hidden_dim": 0}, "hidden_dim must be at least 1, not 0"),
        ({"model_hidden_dim": 0}, "model_hidden_dim must be at least 1, not 0"),
        ({"gamma": 1.1}, r"gamma must lie in \[0, 1\], not 1.1"),
        ({"gamma": float("nan")}, r"gamma must lie in \[0, 1\], not nan"),
        ({"tau": -0.1}, r"tau must lie in \(0, 1\], not -0.1"),
        ({"model_lr": 0.0}, "model_lr must be positive and finite, not 0.0"),
        ({"critic_lr": float("inf")}, "critic_lr must be positive and finite, not inf"),
        ({"actor_lr": float("nan")}, "actor_lr must be positive and finite, not nan"),
        ({"temperature_lr": -1.0}, "temperature_lr must be positive and finite, not -1.0"),
        ({"init_temperature": 0.0}, "init_temperature must be positive and finite, not 0.0"),
        ({"inner_tol": float("nan")}, "inner_tol must be at least 0, not nan"),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(options, message):
    with pytest.raises(ConfigError, match=message) as error:
        HalfCheetahConfig(**options)
    assert "\n" not in str(error.value)


def test_observations_of_another_length_are_named():
    with pytest.raises(ConfigError, match=rf"of shape \[..., {O}\], not \[2, 9\]"):
        make().predict(np.zeros((2, 9)))
