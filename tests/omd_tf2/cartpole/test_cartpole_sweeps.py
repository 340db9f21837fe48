"""The sweeps: which runs they make, what they write, and what they refuse."""

import csv
from dataclasses import replace

import pytest

from baselines_tf2.runs.checkpoint import Checkpoints
from baselines_tf2.runs.experiment import find_experiment, make_settings
from envs import ConfigError
from omd_tf2.cartpole.sweeps import EXPERIMENTS, SWEEPS, format_table, runs

WIDTHS, DISTRACTORS = SWEEPS
TINY = [
    "agents=omd,mle", "values=1,2", "num_seeds=2", "train.num_timesteps=20",
    "train.eval_episodes=1", "train.eval_interval=10", "train.random_steps=10",
    *(f"{agent}.{name}" for agent in ("omd", "mle")
      for name in ("batch_size=4", "hidden_dim=4", "cycle_steps=5")),
]  # fmt: skip


class Silent:
    def __init__(self):
        self.steps = []

    def update(self, step, episode_return):
        self.steps.append(step)

    def resume(self, step):
        pass


def settings(name, *overrides):
    return make_settings(find_experiment(EXPERIMENTS, name), "default", None, overrides)


def test_the_widths_are_the_papers():
    chosen = settings("cartpole_widths")
    assert chosen.numbers() == [1, 2, 3, 4, 6, 12]
    assert chosen.num_seeds == 10
    assert chosen.num_runs() == 3 * 6 * 10


def test_every_run_has_its_agent_value_and_seed():
    planned = runs(WIDTHS, settings("cartpole_widths", "num_seeds=2", "values=1,12"), seed=5)
    assert {(agent, value, seed) for agent, value, seed, _ in planned} == {
        (agent, value, seed)
        for agent in ("omd", "mle", "vep")
        for value in (1, 12)
        for seed in (5, 6)
    }
    for agent, value, _, run in planned:
        assert run.agent.agent == agent and run.agent.model_hidden_dim == value


def test_distractors_are_the_environments():
    planned = runs(DISTRACTORS, settings("cartpole_distractors", "values=0,7"), seed=0)
    assert {run.env.distractors for *_, run in planned} == {0, 7}


def test_an_agents_own_settings_reach_its_runs_alone():
    planned = runs(WIDTHS, settings("cartpole_widths", "omd.inner_steps=9"), seed=0)
    assert {run.agent.inner_steps == 9 for agent, *_, run in planned if agent == "omd"} == {True}
    assert {run.agent.inner_steps == 9 for agent, *_, run in planned if agent != "omd"} == {False}


@pytest.mark.usefixtures("eagerly")
def test_a_sweep_fills_its_folder(tmp_path):
    chosen, progress = settings("cartpole_widths", *TINY), Silent()
    summary = EXPERIMENTS["cartpole_widths"].prepare(chosen, 3)(
        tmp_path, progress, Checkpoints(tmp_path)
    )
    with open(tmp_path / "results.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 8
    assert {(row["agent"], row["value"], row["seed"]) for row in rows} == {
        (agent, value, seed)
        for agent in ("omd", "mle")
        for value in ("1", "2")
        for seed in ("3", "4")
    }
    assert (tmp_path / "omd" / "2" / "seed_4" / "eval.csv").exists()
    assert (tmp_path / "sweep.png").stat().st_size > 10_000
    assert progress.steps == sorted(progress.steps)
    assert progress.steps[-1] == 8 * 20 == EXPERIMENTS["cartpole_widths"].num_timesteps(chosen)
    assert "mle" in summary["returns"]


@pytest.mark.usefixtures("eagerly")
def test_a_run_that_failed_before_is_named_and_not_repeated(tmp_path):
    kept = [text for text in TINY if not text.startswith(("agents", "num_seeds", "omd."))]
    chosen = settings("cartpole_widths", *kept, "agents=mle", "num_seeds=1")
    failed = tmp_path / "mle" / "1" / "seed_3"
    failed.mkdir(parents=True)
    (failed / "failed.json").write_text('{"error": "loss is nan"}')
    summary = EXPERIMENTS["cartpole_widths"].prepare(chosen, 3)(
        tmp_path, Silent(), Checkpoints(tmp_path)
    )
    assert summary["failed"] == "mle/1/seed_3: failed before: loss is nan"
    with open(tmp_path / "results.csv", newline="") as file:
        assert [row["error"][:13] for row in csv.DictReader(file)] == ["failed before", ""]


def test_the_table_has_means_and_deviations():
    rows = [
        {"agent": "omd", "value": 3, "seed": 0, "return_mean": 10.0},
        {"agent": "omd", "value": 3, "seed": 1, "return_mean": 30.0},
        {"agent": "mle", "value": 3, "seed": 0, "return_mean": 7.0},
    ]
    chosen = settings("cartpole_widths", "agents=omd,mle,vep", "values=3", "num_seeds=2")
    last = format_table(WIDTHS, chosen, rows).splitlines()[-1].split()
    # The standard deviation of 10 and 30 is sqrt(200) = 14.1; a run of mle and vep's two failed.
    assert last == ["3", "20", "±", "14", "7", "(1", "of", "2)", "failed"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("agents=omd,mlee", "unknown agent 'mlee'"),
        ("values=1,two", "values must be whole numbers"),
        ("num_seeds=0", "num_seeds must be at least 1"),
        ("values=0", "model_hidden_dim must be at least 1"),
        ("train.random_steps=60000", "leaves nothing to train on"),
        ("vaml.inner_steps=2", "settings of vaml do nothing here"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(override, message):
    with pytest.raises(ConfigError, match=message):
        EXPERIMENTS["cartpole_widths"].prepare(settings("cartpole_widths", override), 0)


def test_the_sweeps_agents_are_those_of_the_single_runs():
    chosen = settings("cartpole_widths")
    for agent in ("omd", "mle", "vep", "vaml", "qlearning"):
        assert replace(getattr(chosen, agent)).agent == agent
