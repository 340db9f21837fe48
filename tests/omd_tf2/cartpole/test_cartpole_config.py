"""Every setting that cannot work is refused in one line that names it."""

import dataclasses

import pytest

from envs.errors import ConfigError
from omd_tf2.cartpole.config import AGENTS, CartPoleConfig
from omd_tf2.common.solver import SolverConfig

NAN, INF = float("nan"), float("inf")


def test_the_defaults_are_the_originals():
    c = CartPoleConfig()
    assert (c.agent, c.solver.name) == ("omd", "identity")
    assert (c.batch_size, c.inner_steps, c.cycle_steps) == (256, 1, 1)
    assert (c.lr, c.inner_lr, c.alpha, c.tau, c.gamma) == (1e-3, 3e-4, 0.01, 0.01, 0.99)
    assert (c.epsilon, c.hidden_dim, c.model_steps, c.value_gain) == (0.1, 32, 1, 1e-2)
    assert not any(value is True for value in dataclasses.asdict(c).values())


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_has_its_defaults(agent):
    assert CartPoleConfig(agent=agent).agent == agent


BAD = [
    *(
        (name, value)
        for name in (
            "batch_size",
            "replay_size",
            "cycle_steps",
            "inner_steps",
            "model_steps",
            "model_hidden_dim",
            "hidden_dim",
        )
        for value in (0, -1, 1.5, True, "1")
    ),
    *((name, value) for name in ("gamma", "tau", "epsilon") for value in (-0.1, 1.5, NAN)),
    *(
        (name, value)
        for name in ("alpha", "lr", "inner_lr", "value_gain")
        for value in (0.0, -1e-3, NAN, INF)
    ),
    *(("inner_tol", value) for value in (-1e-3, NAN, INF)),
    *(
        (name, value)
        for name in ("hard", "no_double", "prob_model", "no_learn_reward", "no_warm", "warm_opt")
        for value in (1, "true", None)
    ),
    *((name, value) for name in ("gamma", "lr", "inner_tol") for value in ("1", None, True)),
    *(("agent", value) for value in ("sac", "", None)),
    *(("solver", value) for value in ("cg", None)),
]


@pytest.mark.parametrize("name, value", BAD)
def test_bad_values_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf"\b{name}\b") as error:
        CartPoleConfig(**{name: value})
    assert "\n" not in str(error.value)


def test_an_unknown_agent_gets_the_nearest_name():
    with pytest.raises(ConfigError, match="did you mean 'vaml'"):
        CartPoleConfig(agent="vamel")


@pytest.mark.parametrize(
    "name, good", [("gamma", 0.0), ("gamma", 1.0), ("tau", 1.0), ("epsilon", 0.0)]
)
def test_bounds_are_included(name, good):
    assert getattr(CartPoleConfig(**{name: good}), name) == good


@pytest.mark.parametrize(
    "agent, name",
    [
        *((agent, name) for name in ("warm_opt", "no_warm") for agent in AGENTS if agent != "omd"),
        ("qlearning", "prob_model"),
        ("qlearning", "no_learn_reward"),
    ],
)
def test_an_option_that_an_agent_would_not_heed_is_refused(agent, name):
    with pytest.raises(ConfigError, match=f"{name} means nothing to agent '{agent}'"):
        CartPoleConfig(agent=agent, **{name: True})


@pytest.mark.parametrize(
    "name, value, heeding",
    [
        ("model_steps", 2, ("mle", "vep", "vaml")),
        ("value_gain", 0.5, ("vep",)),
        ("one_batch", True, ("mle", "vep", "vaml", "qlearning")),
    ],
)
def test_an_option_is_of_the_agents_that_heed_it(name, value, heeding):
    for agent in AGENTS:
        if agent in heeding:
            assert getattr(CartPoleConfig(agent=agent, **{name: value}), name) == value
        else:
            with pytest.raises(ConfigError, match=f"{name} means nothing to agent '{agent}'"):
                CartPoleConfig(agent=agent, **{name: value})


@pytest.mark.parametrize(
    "solver", [SolverConfig("cg"), SolverConfig("cg", on_failure="use")], ids=str
)
@pytest.mark.parametrize("agent", [agent for agent in AGENTS if agent != "omd"])
def test_a_solver_without_anything_to_solve_is_refused(agent, solver):
    with pytest.raises(ConfigError, match=f"agent '{agent}' solves no linear system"):
        CartPoleConfig(agent=agent, solver=solver)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"name": "cgg"}, "did you mean 'cg'"),
        ({"name": "cg", "ridge": -1.0}, "ridge must be"),
        ({"name": "cg", "step_size": 0.1}, "solver 'cg' has no option 'step_size'"),
    ],
)
def test_a_solver_that_cannot_work_is_refused_before_the_agent_has_it(options, message):
    with pytest.raises(ConfigError, match=message):
        CartPoleConfig(solver=SolverConfig(**options))
