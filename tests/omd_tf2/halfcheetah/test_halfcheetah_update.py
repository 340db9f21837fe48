"""One training step, part by part, against the same steps written out; eagerly and compiled."""

import numpy as np
import pytest
import tensorflow as tf

from baselines_tf2.common.compile import compiled
from omd_tf2.common.functional import adam_step, soft_update
from omd_tf2.common.solver import SolverConfig
from omd_tf2.halfcheetah.sac import (
    actor_loss,
    critic_loss,
    critic_targets,
    in_model,
    model_loss,
    temperature_loss,
    values,
)
from omd_tf2.halfcheetah.update import (
    MOVED,
    actor_step,
    agent_steps,
    init_state,
    metric_names,
    model_critic_loss,
    model_gradient,
    update,
)
from omd_tf2.implicit import loss_and_gradient
from tests.omd_tf2.halfcheetah.small import A, K, O, make_batch, make_config, make_noise, make_state
from tests.omd_tf2.small import Draw, assert_same, changed, flat

DRAW = Draw(2)  # the inner gradient's norm falls at each step
STATE, BATCH, NOISE = make_state(DRAW), make_batch(DRAW), make_noise(DRAW)
RATES = {"model_lr": 0.01, "critic_lr": 0.02, "actor_lr": 0.03, "temperature_lr": 0.04}
CONVERGING = {  # on an indefinite matrix, thanks to the ridge
    "identity": {},
    "gauss_newton": {"ridge_relative": 0.1, "correct_inner": True},
    "cg": {"ridge": 100.0, "tol": 1e-14},
    "minres": {"ridge": 100.0, "tol": 1e-14},
    "neumann": {"ridge": 100.0, "tol": 1e-14, "step_size": 0.009},
    "dense": {"ridge": 100.0},
}
PLAIN = ("mle", "vaml", "sac")  # without a solver
ARMS = [(arm, inner_tol) for arm in (*PLAIN, *CONVERGING) for inner_tol in (0.0, 1e-9)]
QUICK = ("vaml", 0.0), ("sac", 0.0), ("gauss_newton", 1e-9)  # the others take a minute to compile


def config(**options):
    idle = {"model_lr"} if options.get("agent") == "sac" else ()
    return make_config(**({name: RATES[name] for name in RATES if name not in idle} | options))


def inner_gradient(state, noise):
    return loss_and_gradient(
        model_critic_loss, state.critics, state.model, state, BATCH, noise, config()
    )


def agent_steps_by_hand(state, steps):
    """State, actor loss and entropy after `steps`; the gradient's norm before each and after."""
    norms, reported = [], (0.0, 0.0)
    for k, noise in enumerate(tf.unstack(NOISE.critic)[: steps + 1]):
        _, gradient = inner_gradient(state, noise)
        norms.append(np.linalg.norm(flat(gradient)))
        if k < steps:
            critics, adam = adam_step(state.critics, gradient, state.critic_adam, 0.02)
            target = soft_update(state.target, critics, 0.1)
            state = state._replace(critics=critics, target=target, critic_adam=adam)
            state, *reported = actor_step_by_hand(state, NOISE.actor[k])
    return (state, *reported), norms


def actor_step_by_hand(state, noise):
    (loss, entropy), gradient = loss_and_gradient(
        actor_loss, state.actor, state.critics, state.log_temperature, BATCH.obs0, noise
    )
    actor, actor_adam = adam_step(state.actor, gradient, state.actor_adam, 0.03)
    _, gradient = loss_and_gradient(temperature_loss, state.log_temperature, entropy, -A / 2)
    log_temperature, adam = adam_step(state.log_temperature, gradient, state.temperature_adam, 0.04)
    state = state._replace(
        actor=actor, actor_adam=actor_adam, log_temperature=log_temperature, temperature_adam=adam
    )
    return state, loss, entropy


def move_model_by_hand(state, gradient):
    model, adam = adam_step(state.model, gradient, state.model_adam, 0.01)
    return state._replace(model=model, model_adam=adam)


def named(settings, metrics):
    return dict(zip(metric_names(settings), (float(x) for x in metrics), strict=True))


def test_a_fresh_state():
    settings = config(hidden_dim=6, model_hidden_dim=5, init_temperature=0.5)
    state = init_state(settings, O, A, seed=0, dtype="float64")
    shapes = {
        name: [tuple(x.shape) for x in tf.nest.flatten(getattr(state, name))]
        for name in ("model", "critics", "target", "actor", "log_temperature")
    }
    critic = [(5, 6), (6,), (6, 6), (6,), (6, 1), (1,)]
    assert shapes == {
        "model": [(5, 5), (5,), (5, 5), (5,), (5, 4), (4,)],
        "critics": 2 * critic,
        "target": 2 * critic,
        "actor": [(3, 6), (6,), (6, 6), (6,), (6, 4), (4,)],
        "log_temperature": [()],
    }
    assert_same(state.target, state.critics)
    assert not np.allclose(flat(state.critics[0]), flat(state.critics[1]))
    assert float(state.log_temperature) == pytest.approx(np.log(0.5), rel=1e-15)
    kernel = state.actor[-1][0]  # the output layer's gain is sqrt(2) too
    np.testing.assert_allclose(tf.transpose(kernel) @ kernel, 2 * np.eye(4), atol=1e-6)
    for adam in state[-4:]:
        assert not flat(adam).any()
    assert_same(init_state(settings, O, A, seed=0, dtype="float64"), state)
    assert not np.allclose(flat(init_state(settings, O, A, seed=1).model), flat(state.model))


def test_each_step_moves_its_own_part_alone():
    settings = config()
    assert changed(STATE, agent_steps(STATE, BATCH, NOISE, settings)[0]) == set(MOVED)
    actors = {"actor", "log_temperature", "actor_adam", "temperature_adam"}
    assert changed(STATE, actor_step(STATE, BATCH.obs0, NOISE.actor[0], settings)[0]) == actors
    assert set(MOVED) == actors | {"critics", "target", "critic_adam"}


def agent_steps_taken(**options):
    state, steps, *reported = agent_steps(STATE, BATCH, NOISE, config(**options))
    return (state, *reported), steps


def test_inner_steps_equal_steps_written_out():
    got, steps = agent_steps_taken()
    expected, _ = agent_steps_by_hand(STATE, K)
    assert_same(got, expected, atol=1e-13)
    assert steps == K


def test_inner_steps_count_for_all_but_the_model():
    # As the original's optimisers do: model 1, and K each of critics, actor and temperature.
    state, _ = update(STATE, BATCH, NOISE, config())
    counts = [int(adam.steps) for adam in state[-4:]]
    assert state._fields[-4:] == ("model_adam", "critic_adam", "actor_adam", "temperature_adam")
    assert counts == [1, K, K, K]


def test_a_tolerance_that_is_not_reached_changes_nothing():
    unrolled, _ = agent_steps_taken()
    looped, steps = agent_steps_taken(inner_tol=1e-12)
    assert_same(looped, unrolled, atol=1e-13)
    assert steps == K


@pytest.mark.parametrize("expected_steps", [0, 1])
def test_inner_steps_end_at_the_tolerance(expected_steps):
    by_hand, norms = agent_steps_by_hand(STATE, expected_steps)
    tol = 1.001 * norms[-1]
    assert all(norm > tol for norm in norms[:-1])
    got, steps = agent_steps_taken(inner_tol=tol)
    assert steps == expected_steps
    assert_same(got, by_hand, atol=1e-13)


def test_the_actors_step_equals_the_one_written_out():
    got = actor_step(STATE, BATCH.obs0, NOISE.actor[0], config())
    assert_same(got, actor_step_by_hand(STATE, NOISE.actor[0]), atol=1e-13)


@pytest.mark.parametrize("solver", ["identity", "gauss_newton"])
def test_a_step_of_omd_equals_its_parts(solver):
    settings = config(solver=SolverConfig(solver, **CONVERGING[solver]))
    got, metrics = update(STATE, BATCH, NOISE, settings)
    (state, cost, entropy), _ = agent_steps_by_hand(STATE, K)
    outer, gradient, health = model_gradient(state, BATCH, NOISE.critic[K], settings)
    assert_same(got, move_model_by_hand(state, gradient), atol=1e-12)
    expected = {
        "train/model_loss": model_loss(STATE.model, BATCH, settings),
        "train/actor_loss": cost,
        "train/entropy": entropy,
        "train/temperature": tf.exp(state.log_temperature),
        "train/q_mean": tf.reduce_mean(values(state.critics, BATCH.obs0, BATCH.actions)),
        "train/outer_loss": outer,
        "train/inner_steps": K,
    }
    expected |= {f"solver/{name}": getattr(health, name) for name in settings.solver.reported}
    assert named(settings, metrics) == pytest.approx({k: float(v) for k, v in expected.items()})
    assert tuple(expected) == metric_names(settings)


def test_a_step_of_mle_moves_the_model_first():
    settings = config(agent="mle")
    got, metrics = update(STATE, BATCH, NOISE, settings)
    loss, gradient = loss_and_gradient(model_loss, STATE.model, BATCH, settings)
    state = move_model_by_hand(STATE, gradient)
    (state, *_), _ = agent_steps_by_hand(state, K)  # in the model that has moved
    assert_same(got, state, atol=1e-13)
    metrics = named(settings, metrics)
    assert metrics["train/model_loss"] == pytest.approx(float(loss))
    assert not any(name.startswith("solver/") for name in metrics)


def test_a_step_of_vaml_moves_the_model_first_to_keep_the_targets():
    settings = config(agent="vaml")
    got, metrics = update(STATE, BATCH, NOISE, settings)

    def loss(model):
        target, actor, log_temperature = STATE.target, STATE.actor, STATE.log_temperature
        y, real = (
            critic_targets(target, actor, log_temperature, batch, NOISE.critic[K], 0.9)
            for batch in (in_model(model, BATCH, None, settings), BATCH)
        )
        return tf.reduce_mean((y - real) ** 2)

    own_loss, gradient = loss_and_gradient(loss, STATE.model)
    (state, *_), _ = agent_steps_by_hand(move_model_by_hand(STATE, gradient), K)
    assert_same(got, state, atol=1e-13)
    metrics = named(settings, metrics)
    assert metrics["train/vaml_loss"] == pytest.approx(float(own_loss))
    prediction_loss = float(model_loss(STATE.model, BATCH, settings))
    assert metrics["train/model_loss"] == pytest.approx(prediction_loss)


def test_a_step_of_sac_is_on_real_transitions_and_has_no_model():
    settings = config(agent="sac")
    got, metrics = update(STATE, BATCH, NOISE, settings)
    state = STATE
    for k, noise in enumerate(tf.unstack(NOISE.critic)[:K]):
        y = critic_targets(state.target, state.actor, state.log_temperature, BATCH, noise, 0.9)
        _, gradient = loss_and_gradient(critic_loss, state.critics, BATCH, y)
        critics, adam = adam_step(state.critics, gradient, state.critic_adam, 0.02)
        target = soft_update(state.target, critics, 0.1)
        state = state._replace(critics=critics, target=target, critic_adam=adam)
        state, *_ = actor_step_by_hand(state, NOISE.actor[k])
    assert_same(got, state, atol=1e-13)
    assert "train/model_loss" not in named(settings, metrics)


@pytest.mark.parametrize("options", [{"agent": "mle"}, {"agent": "omd"}, {"inner_tol": 1e-9}])
def test_a_residual_model_is_the_plain_one_with_the_identity_added(options):
    """For a linear model the option is a shift of its kernel, and moves alike under Adam."""
    state = make_state(Draw(2), hidden=())
    ((kernel, bias),) = state.model
    identity = tf.eye(O + A, O + 1, dtype=kernel.dtype) * ([1.0] * O + [0.0])
    plain = state._replace(model=((kernel + identity, bias),))
    got, metrics = update(state, BATCH, NOISE, config(residual_model=True, **options))
    expected, plain_metrics = update(plain, BATCH, NOISE, config(**options))
    ((kernel, bias),) = got.model
    assert_same(got._replace(model=((kernel + identity, bias),)), expected, atol=1e-11)
    np.testing.assert_allclose(metrics, plain_metrics, rtol=1e-11, atol=1e-11)


def test_every_network_and_optimiser_moves():
    for agent in ("omd", "mle", "vaml"):
        after, _ = update(STATE, BATCH, NOISE, config(agent=agent))
        assert changed(STATE, after) == set(STATE._fields)


@pytest.mark.parametrize(
    ("arm", "inner_tol"),
    [pytest.param(*arm, marks=() if arm in QUICK else pytest.mark.slow) for arm in ARMS],
)
def test_eagerly_and_compiled_are_the_same(arm, inner_tol):
    plain = arm in PLAIN
    agent = {"agent": arm} if plain else {"solver": SolverConfig(arm, **CONVERGING[arm])}
    settings = config(inner_tol=inner_tol, **agent)

    def step(state, batch, noise):
        return update(state, batch, noise, settings)

    eager = step(STATE, BATCH, NOISE)
    if not plain:
        assert named(settings, eager[1]).get("solver/converged", 1) == 1
    assert_same(compiled(step)(STATE, BATCH, NOISE), eager, atol=1e-12)
