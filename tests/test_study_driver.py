"""A study by its command line: done once, one run after the other in a process, and never again."""

import shutil

from baselines_tf2.common.files import read_table
from tests.forks import here
from tests.tiny import assert_same_result, result

SET = (
    "train.random_steps=200", "agent.batch_size=16", "train.eval_interval=300",
    "train.eval_episodes=1", "agent.actor_network.num_layers=1",
    "agent.critic_network.num_layers=1", "train.num_timesteps=600",
)  # fmt: skip
STUDY = f"""
question = "Does it?"
hypotheses = []
primary = "mean"
outcomes = []
seeds = "0-1"
steps = 600
set = {list(SET[:-1])}
[part.only]
title = "Only"
baseline = "plain"
[part.only.arm]
plain = {{ exp = "ddpg_pendulum" }}
"""


def test_a_study_is_done_once_and_its_runs_are_as_alone(ray_address, tmp_path):
    (tmp_path / "try.toml").write_text(STUDY)
    study = ["--mode=study", f"--study={tmp_path / 'try.toml'}", f"--logdir={tmp_path / 'runs'}"]
    study.append(f"--ray_address={ray_address}")  # of one CPU
    status, out, err = here(study)
    assert status == 0 and "done before: 0 of 2" in out and "Runs: 2 of 2" in out, out + err
    first, second = read_table(tmp_path / "try.csv")
    assert (first["seed"], second["seed"], second["status"]) == ("0", "1", "finished")
    assert (tmp_path / "runs" / "try" / "study.md").exists()
    (folder,) = (tmp_path / "runs").rglob("seed_1")
    sets = [f"--set={text}" for text in SET]
    status, *said = here(
        ["--exp=ddpg_pendulum", "--seed=1", f"--logdir={tmp_path / 'alone'}", *sets]
    )
    assert status == 0, said
    assert_same_result(result(folder), result(next((tmp_path / "alone").rglob("seed_1"))))
    shutil.rmtree(tmp_path / "runs")
    status, out, _ = here(study)
    assert status == 0 and "done before: 2 of 2" in out
    assert read_table(tmp_path / "try.csv") == [first, second]
    (tmp_path / "try.toml").write_text(STUDY.replace("batch_size=16", "batch_size=32"))
    status, _, err = here(study)
    assert status == 1 and "--overwrite does them anew" in err and len(err.splitlines()) == 1


def test_what_a_study_that_is_tried_out_has_wrong_is_said_of_its_own_file(tmp_path):
    path = tmp_path / "try.toml"
    path.write_text(STUDY.replace("agent.batch_size", "agent.batch_sise"))
    status, _, err = here(["--mode=study", f"--study={path}", "--smoke"])
    assert status == 1 and f"{path}: part.only.arm.plain: unknown override" in err
