"""Study files: what they say, which runs they plan, and what is wrong with them in one line."""

import pytest

from baselines_tf2.runs.experiment import defaults, flatten, make_settings
from baselines_tf2.sweeps.study import fingerprint, plan, read_study
from baselines_tf2.sweeps.sweep import command_line
from envs.errors import ConfigError
from run_experiments import EXPERIMENTS

TEXT = """
question = "Does it?"
hypotheses = ["It does."]
primary = "mean"
outcomes = ["area"]
seeds = "0-1"
steps = 4000
set = ["train.eval_interval=2000", "agent.gamma=0.9"]

[arm]
slow = { exp = "ddpg_pendulum", set = ["agent.actor_lr=1e-4"] }

[part.first]
title = "First"
baseline = "plain"
arms = ["slow"]
[part.first.factor.noise]
a = ["agent.noise_type=normal_0.1"]
b = ["agent.noise_type=normal_0.2", "agent.gamma=0.8"]
[part.first.factor.batch]
32 = ["agent.batch_size=32"]
64 = ["agent.batch_size=64"]
[part.first.arm]
plain = { exp = "ddpg_pendulum", set = ["agent.gamma=0.7"], without = ["batch"] }

[part.second]
title = "Second"
baseline = "slow"
arms = ["slow"]
seeds = "7"
steps = 3000
set = ["agent.gamma=0.95"]
"""


def study(tmp_path, text=TEXT):
    path = tmp_path / "try.toml"
    path.write_text(text)
    return read_study(path)


def planned(tmp_path, parts=(), text=TEXT):
    return plan(study(tmp_path, text), EXPERIMENTS, str(tmp_path / "runs"), parts)


def test_seeds_vary_slowest_and_parts_come_in_the_order_asked_for(tmp_path):
    keys = [run.key for run in planned(tmp_path, ["second", "first"])]
    assert keys[0] == ("second", "slow", "", 7)
    once = [
        ("slow", "noise=a, batch=32"), ("plain", "noise=a"), ("slow", "noise=a, batch=64"),
        ("slow", "noise=b, batch=32"), ("plain", "noise=b"), ("slow", "noise=b, batch=64"),
    ]  # fmt: skip
    assert keys[1:] == [("first", *cell, seed) for seed in (0, 1) for cell in once]


def test_the_more_special_override_counts(tmp_path):
    settings = {run.key: run.planned.settings for run in planned(tmp_path)}
    got = {key: (x.agent.gamma, x.train.num_timesteps) for key, x in settings.items()}
    assert got["first", "slow", "noise=a, batch=64", 0] == (0.9, 4000)  # the study's
    assert got["first", "slow", "noise=b, batch=64", 0] == (0.8, 4000)  # the level's
    assert got["first", "plain", "noise=b", 1] == (0.7, 4000)  # the arm's
    assert got["second", "slow", "", 7] == (0.95, 3000)  # the part's
    assert settings["first", "slow", "noise=a, batch=32", 0].agent.batch_size == 32
    assert settings["first", "slow", "noise=a, batch=32", 0].agent.actor_lr == 1e-4


def test_a_run_is_a_command_line_with_a_folder_of_its_own(tmp_path):
    run = planned(tmp_path)[1]
    inner = tmp_path / "runs/try/first/plain/noise=a"
    assert run.planned.folder == inner / "ddpg_pendulum/classic/seed_0"
    own = {"--exp=ddpg_pendulum", "--seed=0", "--set=agent.gamma=0.7"}
    assert own | {f"--logdir={inner}", "--resume"} <= set(command_line(run.planned))
    assert len({run.planned.folder for run in planned(tmp_path)}) == 13


def test_the_fingerprint_is_of_what_is_not_the_default():
    def of(*overrides):
        settings = make_settings(EXPERIMENTS["ddpg_pendulum"], "default", None, overrides)
        return flatten(settings), defaults(settings)

    leaves, usual = of()
    same = fingerprint("ddpg_pendulum", leaves, usual)
    assert same != fingerprint("ddpg_pendulum", *of("agent.gamma=0.9"))
    assert same == fingerprint("ddpg_pendulum", *of("agent.gamma=0.99"))
    assert same != fingerprint("another", leaves, usual)
    newer = {"agent.remedy": "none"}  # a setting that came later, off
    assert same == fingerprint("ddpg_pendulum", leaves | newer, usual | newer)
    assert same != fingerprint("ddpg_pendulum", leaves | {"agent.remedy": "all"}, usual | newer)


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('question = "Does it?"', "", "the study lacks 'question', a text"),
        ("steps = 4000", 'steps = "4e3"', "'steps' of the study must be a whole number"),
        ("steps = 4000", "", "part.first lacks 'steps', a whole number"),
        ("[part.second]", "[part.second]\nseads = 1", "did you mean 'seeds'?"),
        ('baseline = "plain"', "", None),
        ('baseline = "plain"', 'baseline = "plan"', "unknown baseline of part.first 'plan'"),
        ('arms = ["slow"]', 'arms = ["slov"]', "unknown arm of part.first 'slov'"),
        ('without = ["batch"]', 'without = ["bach"]', "'without' of part.first.arm.plain 'bach'"),
        ('outcomes = ["area"]', 'outcomes = ["aera"]', "did you mean 'area'?"),
        ('outcomes = ["area"]', 'outcomes = "area"', "must be a list of texts, not 'area'"),
        ('32 = ["agent.batch_size=32"]', "32 = 32", "'32' of part.first.factor.batch must be"),
        ("[part.second]", "[part.second.factor]\nwidth = 5\n[part.second]", "must be a table"),
        ('seeds = "7"', 'seeds = "7-"', "cannot read seeds '7-'"),
        ("[part.second]", "[part.second]\ntunes = true\n", None),
        ('seeds = "7"', 'seeds = "1"\ntunes = true', "part.first reports seed 1, which a part"),
        ("[arm]", "[arm", "cannot be read as TOML"),
        ('baseline = "slow"\narms = ["slow"]', "", "part.second has no arm"),
        ('32 = ["agent.batch_size=32"]\n64 = ["agent.batch_size=64"]', "", "batch has no level"),
        (
            '{ exp = "ddpg_pendulum", set = ["agent.actor_lr=1e-4"] }',
            '{ exp = "ddpg_pendulum", set = ["agent.batch_size=8"] }',
            "arm.slow is one run at 'noise=a, batch=32' and at 'noise=a, batch=64'",
        ),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(tmp_path, old, new, message):
    text = TEXT.replace(old, new)
    assert text != TEXT
    if message is None:
        study(tmp_path, text)
        return
    with pytest.raises(ConfigError) as caught:
        study(tmp_path, text)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(tmp_path / "try.toml") in str(caught.value)


def test_settings_that_cannot_be_name_their_arm(tmp_path):
    with pytest.raises(
        ConfigError, match=r"arm\.slow at noise=a, batch=32: unknown override 'agent\.act"
    ):
        planned(tmp_path, text=TEXT.replace("agent.actor_lr", "agent.acttor_lr"))
    with pytest.raises(ConfigError, match="unknown part of .* 'third'"):
        planned(tmp_path, ["third"])


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path):
    with pytest.raises(ConfigError, match="none.toml cannot be read: No such file or directory$"):
        read_study(tmp_path / "none.toml")
