"""The experiments as the driver runs them, and the example of how to call the parts."""

import doctest
from dataclasses import replace

import numpy as np
import pytest

import omd_tf2.cartpole
from baselines_tf2.common.files import read_table
from baselines_tf2.runs.checkpoint import Checkpoints
from baselines_tf2.runs.experiment import make_settings
from envs import EnvSpec, make_env
from envs.errors import ConfigError
from omd_tf2.cartpole.agent import CartPoleAgent
from omd_tf2.cartpole.config import AGENTS, CartPoleConfig
from omd_tf2.cartpole.experiments import EXPERIMENTS, make_agent
from omd_tf2.cartpole.update import metric_names

QUICK = (
    "train.num_timesteps=60",
    "train.eval_episodes=1",
    "train.random_steps=55",
    "agent.cycle_steps=5",
    "agent.batch_size=8",
    "agent.hidden_dim=4",
)


class Silent:
    def update(self, step, episode_return):
        pass


def settings(name, *overrides):
    model = [] if name == "qlearning_cartpole" else ["agent.model_hidden_dim=4"]
    return make_settings(EXPERIMENTS[name], "default", None, [*QUICK, *model, *overrides])


def run(name, folder, *overrides, seed=0):
    folder.mkdir(exist_ok=True)
    chosen = settings(name, *overrides)
    return chosen, EXPERIMENTS[name].prepare(chosen, seed)(folder, Silent(), Checkpoints(folder))


def test_there_is_one_experiment_per_agent_with_the_papers_length():
    assert set(EXPERIMENTS) == {f"{agent}_cartpole" for agent in AGENTS}
    for name, experiment in EXPERIMENTS.items():
        chosen = make_settings(experiment, "original", None, [])
        assert name == experiment.name == f"{chosen.agent.agent}_cartpole"
        assert chosen.agent == CartPoleConfig(agent=chosen.agent.agent)
        assert (chosen.env.task, *experiment.backends) == ("cartpole", "classic")
        train = chosen.train
        assert (train.num_timesteps, train.eval_interval, train.eval_episodes) == (
            200_000,
            1_000,
            10,
        )
        assert train.eval_at_start and not chosen.agent.greedy
        default = make_settings(experiment, "default", None, [])
        assert not default.train.eval_at_start and default.agent.greedy


@pytest.mark.parametrize("agent", AGENTS)
def test_a_run_fills_its_folder(agent, tmp_path, eagerly):
    chosen, summary = run(f"{agent}_cartpole", tmp_path)
    assert "return" in summary
    (row,) = read_table(tmp_path / "metrics.csv")
    assert row["step"] == "60" and float(row["eval/return_mean"]) >= 8
    assert all(np.isfinite(float(row[name])) for name in metric_names(chosen.agent))
    (episode,) = read_table(tmp_path / "eval.csv")
    assert float(episode["return"]) == float(row["eval/return_mean"])
    loaded = CartPoleAgent(chosen.agent, 4, 2, seed=1)
    loaded.load(tmp_path / "weights.npz")
    # An update of four critic steps for each of the steps 56 to 60; omd's Adam starts anew at each.
    assert loaded.state.critic_adam.steps == (4 if agent == "omd" else 20)
    assert (tmp_path / "curves.png").exists()


def test_distractors_are_part_of_the_observation(tmp_path, eagerly):
    chosen, _ = run("omd_cartpole", tmp_path, "env.distractors=2")
    agent = CartPoleAgent(chosen.agent, 4 + 2, 2, seed=0)
    agent.load(tmp_path / "weights.npz")
    with pytest.raises(ConfigError, match="other settings"):
        CartPoleAgent(chosen.agent, 4, 2, seed=0).load(tmp_path / "weights.npz")


def test_a_seed_gives_the_same_log(tmp_path, eagerly):
    overrides = ("agent.inner_steps=1", "agent.prob_model=true")
    logs = []
    for i, seed in enumerate((0, 0, 1)):
        run("mle_cartpole", tmp_path / str(i), *overrides, seed=seed)
        (row,) = read_table(tmp_path / str(i) / "metrics.csv")
        logs.append({name: x for name, x in row.items() if not name.startswith("time/")})
    assert len(logs[0]) > 10
    assert logs[0] == logs[1]
    assert logs[0] != logs[2]


@pytest.mark.parametrize(
    "env, message",
    [
        (EnvSpec("pendulum", "classic"), "needs discrete actions"),
        (EnvSpec("cheetah", "mujoco"), "needs discrete actions"),
    ],
)
def test_continuous_actions_are_refused_before_training(env, message):
    with pytest.raises(ConfigError, match=message) as error:
        EXPERIMENTS["omd_cartpole"].prepare(replace(settings("omd_cartpole"), env=env), 0)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "override, message",
    [
        ("train.random_steps=60", "leaves nothing to train on"),
        ("agent.cycle_steps=7", "cycle_steps must divide 1000"),
        ("agent.agent=vaml", "'agent.agent' follows from --exp"),
        ("agent.solver.name=newton", "unknown solver"),
        ("agent.solver.ridge=-1", "ridge"),
        ("agent.gamma=1.5", "gamma must lie"),
        ("agent.gama=0.9", "did you mean 'agent.gamma'"),
        ("agent.prob_model=yes", "must be true or false"),
        ("env.action_noise=0.1", "action_noise must be 0"),
    ],
)
def test_mistaken_settings_are_refused(override, message):
    quick = [text for text in QUICK if text.partition("=")[0] != override.partition("=")[0]]
    with pytest.raises(ConfigError, match=message):
        make_settings(EXPERIMENTS["omd_cartpole"], "default", None, [*quick, override])


def test_an_agent_fits_its_environment():
    env = make_env(EnvSpec("cartpole", "classic", distractors=3), training=True)
    agent = make_agent(env, settings("vep_cartpole").agent, 0)
    state = agent.state
    assert state.critics[0][0][0].shape[0] == 4 + 3 and state.critics[0][-1][0].shape[1] == 2
    assert state.model[0][0][0].shape[0] == 4 + 3 + 2 and state.model[0][-1][0].shape[1] == 4 + 3


def test_the_example_of_the_documentation_runs():
    result = doctest.testmod(omd_tf2.cartpole)
    assert result.attempted > 5 and result.failed == 0


@pytest.mark.slow
def test_omd_learns_to_balance(tmp_path):
    chosen = make_settings(
        EXPERIMENTS["omd_cartpole"], "default", None, ["train.num_timesteps=20_000"]
    )
    EXPERIMENTS["omd_cartpole"].prepare(chosen, 0)(tmp_path, Silent(), Checkpoints(tmp_path))
    returns = [float(row["eval/return_mean"]) for row in read_table(tmp_path / "metrics.csv")]
    assert len(returns) == 20
    # Untrained it is about 10, for uniform actions about 22; measured: 366.
    assert max(returns) > 250
