"""The named experiments, shortened, and what they refuse; the documentation's example."""

import doctest

import gymnasium as gym
import numpy as np
import pytest

from baselines_tf2.common.files import read_table
from baselines_tf2.runs.checkpoint import Checkpoints
from baselines_tf2.runs.experiment import make_settings
from envs.errors import ConfigError
from omd_tf2 import halfcheetah
from omd_tf2.common.solver import SolverConfig
from omd_tf2.halfcheetah.agent import HalfCheetahAgent
from omd_tf2.halfcheetah.config import AGENTS, HalfCheetahConfig
from omd_tf2.halfcheetah.experiments import EXPERIMENTS, make_agent
from omd_tf2.halfcheetah.update import metric_names
from tests.tiny import short_episodes
from tests.toys import Corridor

STEPS = 22
QUICK = (
    f"train.num_timesteps={STEPS}",
    "train.eval_episodes=1",
    "train.random_steps=20",
    "agent.hidden_dim=4",
    "agent.model_hidden_dim=4",
    "agent.batch_size=4",
    "agent.replay_size=100",
)


class Steps:
    def __init__(self):
        self.seen = []

    def update(self, step, episode_return):
        self.seen.append(step)


def settings(name, *overrides, backend=None):
    quick = [x for x in QUICK if not (name.startswith("sac") and "model" in x)]  # it has none
    return make_settings(EXPERIMENTS[name], "default", backend, [*quick, *overrides])


def run(name, folder, *overrides, backend=None, seed=0):
    chosen, progress = settings(name, *overrides, backend=backend), Steps()
    summary = EXPERIMENTS[name].prepare(chosen, seed)(folder, progress, Checkpoints(folder))
    return chosen, summary, progress.seen


def test_the_experiments_are_four_agents_on_three_robots():
    assert set(EXPERIMENTS) == {
        f"{agent}_{task}" for agent in AGENTS for task in ("cheetah", "hopper", "walker")
    }
    for name, experiment in EXPERIMENTS.items():
        for preset in ("default", "original"):
            for backend in ("mujoco", "pybullet"):
                chosen = make_settings(experiment, preset, backend, [])
                assert name == f"{chosen.agent.agent}_{chosen.env.task}" == experiment.name
                assert chosen.env.backend == backend
                solver = SolverConfig("gauss_newton", ridge_relative=0.1, correct_inner=True)
                corrected = preset == "default" and chosen.agent.agent == "omd"
                assert chosen.agent.solver == (solver if corrected else SolverConfig())
                wide = preset == "default" and chosen.agent.agent != "sac"
                assert chosen.agent.model_hidden_dim == (256 if wide else 64)
                assert chosen.agent.residual_model == wide
                assert chosen.train.num_timesteps == 1_000_000
                assert (chosen.train.eval_interval, chosen.train.eval_episodes) == (5_000, 10)


@pytest.mark.parametrize(
    ("name", "backend"), [("omd_cheetah", "mujoco"), ("mle_cheetah", "pybullet")]
)
def test_a_run_on_robots_with_distractors_fills_its_folder(name, backend, tmp_path, eagerly):
    mass = 9.0 if backend == "pybullet" else 6.0  # [kg]
    ensemble = f"env.ensemble=torso_mass:{mass},1.5,{mass - 3},{mass + 3}"
    with short_episodes():
        chosen, summary, steps = run(name, tmp_path, ensemble, "env.distractors=2", backend=backend)
    assert steps == list(range(1, STEPS + 1))
    (row,) = read_table(tmp_path / "metrics.csv")
    logged = [float(row[column]) for column in metric_names(chosen.agent)]
    assert np.isfinite(logged).all() and float(row["step"]) == STEPS
    assert np.isfinite(float(row["eval/return_mean"]))
    assert "inside of torso_mass" in summary["inside"]
    obs_dim = 2 + {"mujoco": 17, "pybullet": 26}[backend]
    agent = HalfCheetahAgent(chosen.agent, obs_dim, 6, seed=1)
    agent.load(tmp_path / "weights.npz")
    # the critics move once a step, from the first after the random ones
    assert agent.state.critic_adam.steps == STEPS - 20
    assert np.abs(agent.predict(np.zeros(obs_dim))).max() <= 1


@pytest.mark.parametrize("agent", AGENTS)
def test_every_agent_takes_the_settings_of_all(agent, tmp_path, eagerly):
    ensemble = "env.ensemble=torso_mass:3.6,0.9,1.8,5.4"  # [kg]
    overrides = ["env.distractors=2", "agent.inner_steps=2", ensemble]
    chosen, _, steps = run(f"{agent}_hopper", tmp_path, *overrides)
    assert steps == list(range(1, STEPS + 1))
    (row,) = read_table(tmp_path / "metrics.csv")
    assert np.isfinite([float(row[column]) for column in metric_names(chosen.agent)]).all()


def test_a_run_repeats_itself_and_another_seed_differs(tmp_path, eagerly):
    weights = []
    for i, seed in enumerate((0, 0, 1)):
        (tmp_path / str(i)).mkdir()
        run("omd_hopper", tmp_path / str(i), seed=seed)
        with np.load(tmp_path / str(i) / "weights.npz") as archive:
            weights.append({name: archive[name] for name in archive.files})
    for name in weights[0]:
        np.testing.assert_array_equal(weights[0][name], weights[1][name])
    assert not np.allclose(weights[0]["state"], weights[2]["state"])


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (Corridor(action_space=gym.spaces.Discrete(3)), r"continuous action space.*Discrete\(3\)"),
        (Corridor(action_space=gym.spaces.Box(0.0, 1.0, (1,))), "must be symmetric around 0"),
        (gym.make("CartPole-v1"), r"continuous action space.*Discrete\(2\)"),
    ],
)
def test_spaces_that_do_not_suit_are_refused(env, message):
    with pytest.raises(ConfigError, match=message):
        make_agent(env, HalfCheetahConfig(), 0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.random_steps=22", "leaves nothing to train on in 22 steps"),
        ("agent.cycle_steps=3", "agent.cycle_steps must divide 1000"),
        ("agent.agent=omdd", "'agent.agent' follows from --exp"),
        ("agent.solver.name=minress", "unknown solver: 'minress'; did you mean 'minres'"),
        ("agent.solver.ridge=1", "ridge and ridge_relative exclude each other: set one to 0"),
        ("agent.solver.step_size=1", "solver 'gauss_newton' has no option 'step_size'"),
        ("agent.solver.ridge=big", "must be a number"),
        ("agent.solver.on_failure=halt", "unknown on_failure 'halt'"),
        ("agent.inner_step=2", "did you mean 'agent.inner_steps'"),
        ("agent.gamma=2", "gamma must lie"),
        ("env.distractors=-1", "distractors"),
        ("train.eval_interval=0", "eval_interval must be at least 1"),
    ],
)
def test_mistaken_settings_are_named(override, message):
    quick = [x for x in QUICK if x.partition("=")[0] != override.partition("=")[0]]
    with pytest.raises(ConfigError, match=message):
        make_settings(EXPERIMENTS["omd_cheetah"], "default", None, [*quick, override])


def test_solver_settings_reach_the_agent():
    chosen = settings("omd_walker", "agent.solver.name=gauss_newton", "agent.solver.ridge=10")
    assert (chosen.agent.solver.name, chosen.agent.solver.ridge) == ("gauss_newton", 10.0)


def test_the_documentations_example_runs():
    failed, attempted = doctest.testmod(halfcheetah)
    assert attempted > 5 and not failed
