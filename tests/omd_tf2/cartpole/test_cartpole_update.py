"""One step of every agent against the same written out as a loop, and eager against compiled."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common.compile import compiled
from envs.errors import ConfigError
from omd_tf2.cartpole.config import AGENTS
from omd_tf2.cartpole.losses import (
    critic_loss,
    critic_targets,
    in_model,
    mle_loss,
    values,
    vaml_loss,
    vep_loss,
)
from omd_tf2.cartpole.update import (
    critic_steps,
    init_state,
    metric_names,
    model_gradient,
    update,
    with_new_critics,
)
from omd_tf2.common.functional import adam_init, adam_step, mlp, soft_update
from omd_tf2.common.solver import SolverConfig, report
from omd_tf2.implicit import loss_and_gradient
from tests.omd_tf2.cartpole.small import A, K, O, at, make_batches, make_config, make_state
from tests.omd_tf2.small import Draw, assert_same, changed, flat


def problem(agent="omd", **options):
    """(state, batches, noise, config), the optimisers not at their start."""
    draw, config = Draw(), make_config(agent=agent, **options)
    state = make_state(draw, config)
    batches, noise = make_batches(draw, config, state)
    state, _ = update(state, batches, noise, config)
    return state, batches, noise, config


def descended(state, batches, config, adam):
    """K critic steps; their targets are constants, written down before each."""
    critics, target = state.critics, state.target
    for batch in batches:
        y = critic_targets(target, batch, config).numpy()
        _, gradient = loss_and_gradient(critic_loss, critics, batch, tf.constant(y))
        critics, adam = adam_step(critics, gradient, adam, config.inner_lr)
        target = soft_update(target, critics, config.tau)
    return state._replace(critics=critics, target=target, critic_adam=adam)


def model_moved(state, gradient, config):
    model, adam = adam_step(state.model, gradient, state.model_adam, config.lr)
    return state._replace(model=model, model_adam=adam)


def assert_critic_metrics(metrics, state, moved_on, real, config):
    """state: after the critics' steps."""

    def loss(batch):
        return critic_loss(state.critics, batch, critic_targets(state.target, batch, config))

    q = values(state.critics, real.obs0, real.actions).numpy()
    expected = [loss(moved_on), loss(real), q.mean(), K]
    np.testing.assert_allclose(metrics[:4], expected, rtol=1e-12)


@pytest.mark.parametrize("options", [{}, {"warm_opt": True}, {"prob_model": True}], ids=str)
def test_omd_moves_the_critics_in_its_model_then_the_model_by_the_new_critics(options):
    state, batches, noise, config = problem("omd", **options)
    real, draw = at(batches, 0), noise.model[0]
    predicted = in_model(state.model, real, draw, config)
    adam = state.critic_adam if config.warm_opt else adam_init(state.critics)
    between = descended(state, [predicted] * K, config, adam)
    outer, gradient, health = model_gradient(between, real, draw, config)
    new, metrics = update(state, batches, noise, config)
    assert_same(new, model_moved(between, gradient, config), 1e-13)
    assert_critic_metrics(metrics, between, predicted, real, config)
    np.testing.assert_allclose(outer, metrics[1], rtol=1e-12)
    prediction = mle_loss(state.model, real, draw, config)
    reported = report(config.solver, health)
    np.testing.assert_allclose(metrics[4:], [prediction, *reported], rtol=1e-9)


OPTIONS = [
    {},
    {"prob_model": True},
    {"no_learn_reward": True},
    {"model_steps": 2},
    {"one_batch": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("agent", ["mle", "vep", "vaml"])
def test_the_others_move_the_model_then_the_critics_in_the_new_model_on_fresh_batches(
    agent, options
):
    state, batches, noise, config = problem(agent, **options)
    pairs = [(at(batches, k), noise.model[k]) for k in range(len(noise.model))]
    if config.one_batch:
        pairs += [pairs[-1]] * (K - 1)
    assert len(pairs) == config.model_steps + K
    between = state
    for own in pairs[: config.model_steps]:
        loss, gradient = {
            "mle": lambda *own: loss_and_gradient(mle_loss, *own),
            "vep": lambda m, *own: loss_and_gradient(vep_loss, m, state.value_functions, *own),
            "vaml": lambda m, *own: loss_and_gradient(vaml_loss, m, state.target, *own),
        }[agent](between.model, *own, config)
        between = model_moved(between, gradient, config)
    predicted = [in_model(between.model, *own, config) for own in pairs[config.model_steps :]]
    expected = descended(between, predicted, config, state.critic_adam)
    new, metrics = update(state, batches, noise, config)
    assert_same(new, expected, 1e-13)
    assert_critic_metrics(metrics, expected, predicted[-1], pairs[-1][0], config)
    np.testing.assert_allclose(metrics[4:], [loss], rtol=1e-12)


@pytest.mark.parametrize("one_batch", [False, True])
def test_qlearning_moves_the_critics_on_real_data(one_batch):
    state, batches, noise, config = problem("qlearning", one_batch=one_batch)
    each = [at(batches, 0 if one_batch else k) for k in range(K)]
    expected = descended(state, each, config, state.critic_adam)
    new, metrics = update(state, batches, noise, config)
    assert_same(new, expected, 1e-13)
    assert_critic_metrics(metrics, expected, each[-1], each[-1], config)


@pytest.mark.parametrize("agent", AGENTS)
def test_only_what_learns_changes_and_every_metric_has_a_name(agent):
    state, batches, noise, config = problem(agent)
    new, metrics = update(state, batches, noise, config)
    critics, model = {"critics", "target", "critic_adam"}, {"model", "model_adam"}
    assert changed(state, new) == (critics if agent == "qlearning" else critics | model)
    assert len(metrics) == len(metric_names(config)) == len(set(metric_names(config)))
    assert all(x.shape == () and np.isfinite(x) for x in metrics)


@pytest.mark.parametrize("no_learn_reward", [False, True])
@pytest.mark.parametrize("agent", ["omd", "mle", "vep", "vaml"])
def test_the_reward_network_learns_unless_told_not_to(agent, no_learn_reward):
    state, batches, noise, config = problem(agent, no_learn_reward=no_learn_reward)
    new, _ = update(state, batches, noise, config)
    moved = [np.abs(flat(a) - flat(b)).max() for a, b in zip(new.model, state.model, strict=True)]
    assert moved[0] > 1e-3
    assert (moved[1] == 0) == no_learn_reward


@pytest.mark.parametrize(
    "agent, options, steps",
    [("omd", {}, K), ("omd", {"warm_opt": True}, 2 * K), ("mle", {}, 2 * K)],
)
def test_the_inner_adam_is_fresh_at_each_step_of_omd_unless_warm(agent, options, steps):
    state, batches, noise, config = problem(agent, **options)  # one update behind it
    new, _ = update(state, batches, noise, config)
    assert new.critic_adam.steps == steps
    assert new.model_adam.steps == 2
    forgotten = state._replace(critic_adam=adam_init(state.critics))
    other, _ = update(forgotten, batches, noise, config)
    distance = np.abs(flat(other.critics) - flat(new.critics)).max()
    assert (distance == 0) == (steps == K)


def test_without_warm_start_new_critics_are_drawn_and_the_target_is_equal_to_them():
    state, batches, noise, config = problem("omd", no_warm=True)
    start = with_new_critics(state, noise.critics)
    assert changed(state, start) == {"critics", "target"}
    assert_same(start.target, start.critics)
    new, _ = update(state, batches, noise, config)
    expected, _ = update(start, batches, noise, replace(config, no_warm=False))
    assert_same(new, expected)
    assert new.critic_adam.steps == K
    other, _ = update(state, batches, noise._replace(critics=noise.critics[::-1]), config)
    assert np.abs(flat(other.critics) - flat(new.critics)).max() > 0.1


def inner_norms(state, batch, config):
    """The norm of the inner loss's gradient before each of the K steps, and after them."""
    norms = []
    for steps in range(K + 1):
        now, _ = (
            critic_steps(state, batch, replace(config, inner_steps=steps)) if steps else (state, 0)
        )
        y = critic_targets(now.target, batch, config)
        _, gradient = loss_and_gradient(critic_loss, now.critics, batch, y)
        norms.append(np.linalg.norm(flat(gradient)))
    return norms


def test_critic_steps_stop_at_the_tolerance():
    state, batches, _, config = problem("qlearning")
    batch = at(batches, 0)
    norms = inner_norms(state, batch, config)
    assert norms[0] > norms[1] > norms[2]
    for steps, tol in ((0, 1e3), (1, (norms[0] + norms[1]) / 2), (2, (norms[1] + norms[2]) / 2)):
        got, taken = critic_steps(state, batch, replace(config, inner_tol=tol))
        assert taken == steps
        if steps:
            expected, _ = critic_steps(state, batch, replace(config, inner_steps=steps))
            assert_same(got, expected, 1e-14)
        else:
            assert_same(got, state)


@pytest.mark.parametrize("agent", ["omd", "mle"])
def test_a_tolerance_never_reached_changes_nothing(agent):
    state, batches, noise, config = problem(agent)
    expected = update(state, batches, noise, config)
    got = update(state, batches, noise, replace(config, inner_tol=1e-12))
    assert_same(got, expected, 1e-12)


@pytest.mark.parametrize("agent", ["omd", "vaml"])
def test_a_target_that_is_the_critics_own_tensors_is_constant_all_the_same(agent):
    state, batches, noise, config = problem(agent)  # as `init_state` makes it
    aliased = state._replace(target=state.critics)
    copied = state._replace(target=tf.nest.map_structure(tf.identity, state.critics))
    assert_same(*(update(s, batches, noise, config) for s in (aliased, copied)))


def test_a_failed_solve_is_reported_replaced_or_stops():
    state, batches, noise, config = problem()

    def step(name, **options):
        solver = SolverConfig(name, **options)
        new, metrics = update(state, batches, noise, replace(config, solver=solver))
        reported = dict(zip(metric_names(replace(config, solver=solver)), metrics, strict=True))
        return new, reported.get("solver/converged", 1)

    cut = {"max_steps": 1, "tol": 1e-12}
    used, converged = step("cg", on_failure="use", **cut)
    assert not converged
    replaced, converged = step("cg", on_failure="identity", **cut)
    assert not converged
    identity, converged = step("identity")
    assert converged
    assert_same(replaced, identity)
    assert not np.allclose(flat(used), flat(identity))
    marked, converged = step("cg", on_failure="stop", **cut)
    assert not converged and np.isnan(flat(marked.model)).all()  # `SolverConfig.check` stops it


def test_fresh_networks_have_the_sizes_asked_for():
    config = make_config(agent="vep", model_hidden_dim=5, hidden_dim=4, prob_model=True)
    state = init_state(config, O, A, seed=0)
    shapes = [[kernel.shape.as_list() for kernel, _ in layers] for layers in state.model]
    assert shapes == [[[O + A, 5], [5, 5], [5, 2 * O]], [[O + A, 5], [5, 5], [5, 1]]]
    for critics in (state.critics, state.target):
        assert [[k.shape.as_list() for k, _ in q] for q in critics] == [
            [[O, 4], [4, 4], [4, A]]
        ] * 2
    assert len(state.value_functions) == 5
    assert {x.dtype for x in tf.nest.flatten(state)} == {tf.float32}


def test_fresh_targets_are_the_critics_and_networks_differ():
    config = make_config()
    state, again, other = (init_state(config, O, A, seed=s, dtype="float64") for s in (0, 0, 1))
    assert_same(again, state)
    assert_same(state.target, state.critics)
    assert not np.allclose(flat(state.critics[0]), flat(state.critics[1]))
    assert not np.allclose(flat(other.critics), flat(state.critics))
    assert state.value_functions == ()
    assert len(init_state(make_config(no_double=True), O, A, seed=0).critics) == 1


def test_fresh_critics_and_models_answer_near_zero_but_vep_s_functions_do_not():
    config = make_config(agent="vep", hidden_dim=32, value_gain=1.0)
    state = init_state(config, O, A, seed=0, dtype="float64")
    obs = Draw()(100, O)
    q = mlp(state.critics[0], obs)
    values_at = np.stack([mlp(v, obs)[:, 0] for v in state.value_functions])
    assert np.abs(q).max() < 0.1
    assert (values_at.std(1) > 0.1).all()
    small = init_state(replace(config, value_gain=1e-2), O, A, seed=0, dtype="float64")
    for v, w in zip(state.value_functions, small.value_functions, strict=True):
        np.testing.assert_allclose(mlp(w, obs), 1e-2 * mlp(v, obs), rtol=1e-5, atol=1e-9)
    assert np.abs(np.corrcoef(values_at) - np.eye(5)).max() < 0.999


def solver(name):
    options = {
        "identity": {},
        "gauss_newton": {"ridge": 0.1},
        "neumann": {"step_size": 0.02, "ridge": 20.0},
    }
    return {"solver": SolverConfig(name, **options.get(name, {"ridge": 20.0}))}


CORRECTED = {"solver": SolverConfig("gauss_newton", ridge_relative=0.1, correct_inner=True)}


def assert_compiled_is_eager(agent, options):
    *args, config = problem(agent, **({"inner_steps": 1} | options))

    def step(state, batches, noise):
        return update(state, batches, noise, config)

    eager, fast = step(*args), compiled(step)(*args)
    assert_same(fast[0], eager[0], 1e-12)
    for name, got, expected in zip(metric_names(config), fast[1], eager[1], strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize(
    "agent, options",
    [
        ("omd", CORRECTED | {"hard": True, "no_double": True, "no_warm": True, "inner_steps": 2}),
        ("omd", solver("cg") | {"prob_model": True, "warm_opt": True, "inner_tol": 1e-3}),
        ("mle", {"prob_model": True, "no_learn_reward": True}),
        ("vep", {"model_steps": 2, "inner_steps": 2}),
        ("vaml", {"one_batch": True, "inner_steps": 2}),
        ("qlearning", {"hard": True}),
    ],
)
def test_compiled_is_eager(agent, options):
    assert_compiled_is_eager(agent, options)


FLAGS = ("hard", "no_double", "prob_model", "no_learn_reward", "no_warm", "warm_opt")
CROSSED = [
    {},
    {"inner_tol": 1e-3},
    {"model_steps": 2},
    {"one_batch": True},
    *({name: True} for name in FLAGS),
]
SOLVERS = ("identity", "gauss_newton", "cg", "minres", "neumann", "dense")


def heeded(agent, options):
    try:
        make_config(agent=agent, **options)
    except ConfigError:
        return False
    return True


CROSS = [
    (agent, options)
    for agent in AGENTS
    for options in [*CROSSED, *map(solver, SOLVERS[1:])]
    if heeded(agent, options)
]


@pytest.mark.slow
@pytest.mark.parametrize("agent, options", CROSS, ids=str)
def test_compiled_is_eager_for_every_agent_option_and_solver(agent, options):
    assert_compiled_is_eager(agent, options)
