import json
from dataclasses import dataclass

import pytest

from baselines_tf2.runs.experiment import Chosen, Experiment
from baselines_tf2.runs.folder import write_config
from baselines_tf2.sweeps.sweep import (
    check_apart,
    check_prepared,
    left_to_do,
    parse_seeds,
    variants,
)
from envs.errors import ConfigError


def test_seeds_are_numbers_and_ranges():
    assert parse_seeds("0-3") == [0, 1, 2, 3]
    assert parse_seeds("7") == [7]
    assert parse_seeds("0,5-6, 3") == [0, 5, 6, 3]


@pytest.mark.parametrize(
    "text", ["", "a", "1-", "-1", "3-1", "0,0", "0-4,2", "2147483648", "1.5", "0-2147483647"]
)
def test_other_seeds_are_refused(text):
    with pytest.raises(ConfigError, match="seeds"):
        parse_seeds(text)


def test_settings_given_once_are_one_variant_without_a_name():
    assert variants([]) == [("", ())]
    assert variants(["a=1", "b=2"]) == [("", ("a=1", "b=2"))]


def test_settings_given_more_than_once_are_combined():
    assert variants(["a=1", "b=x", "a=2", "c=u/v", "c=w"]) == [
        ("a=1,c=u_v", ("a=1", "b=x", "c=u/v")),
        ("a=1,c=w", ("a=1", "b=x", "c=w")),
        ("a=2,c=u_v", ("a=2", "b=x", "c=u/v")),
        ("a=2,c=w", ("a=2", "b=x", "c=w")),
    ]


def test_a_value_given_twice_is_refused():
    with pytest.raises(ConfigError, match="'a=1' is given twice: leave one out"):
        variants(["a=1", "a=2", "a=1"])


@dataclass(frozen=True)
class Settings:
    gamma: float = 0.9


def planned(folder, name, settings=Settings()):
    return Chosen(None, folder / name, {"exp": "toy"}, settings)


def test_what_is_left_to_do(tmp_path):
    names = ("new", "stopped", "done", "diverged", "damaged", "lost")
    runs = {name: planned(tmp_path, name) for name in names}
    for run in [*runs.values()][1:]:
        run.folder.mkdir()
        write_config(run.folder, run.flags, run.settings)
    (runs["done"].folder / "finished.json").write_text(json.dumps({"return": "1"}))
    (runs["diverged"].folder / "failed.json").write_text(json.dumps({"error": "loss is nan"}))
    (runs["damaged"].folder / "finished.json").write_text("{")
    (runs["lost"].folder / "config.json").write_text("{")
    left, failed = left_to_do(runs)
    assert list(left) == ["new", "stopped"]
    assert list(failed) == ["diverged", "damaged", "lost"]
    assert failed["diverged"].startswith("failed before: loss is nan")
    assert "finished.json is damaged" in failed["damaged"]
    assert "config.json cannot be read as JSON" in failed["lost"]
    with pytest.raises(ConfigError, match="gamma was 0.9 and is 0.8"):
        left_to_do({"": planned(tmp_path, "diverged", Settings(0.8))})


def test_runs_that_would_share_a_folder(tmp_path):
    check_apart([planned(tmp_path, "a"), planned(tmp_path, "b")])
    with pytest.raises(ConfigError, match="two runs would share"):
        check_apart([planned(tmp_path, "a"), planned(tmp_path, "a")])


def test_equal_settings_of_two_experiments_are_checked_for_each(tmp_path):
    def refuse(settings, seed):
        raise ConfigError("not so")

    first, second = (
        Experiment(name, name, "", (), Settings, prepare)
        for name, prepare in {"first": refuse, "second": lambda *_: None}.items()
    )
    runs = [Chosen(one, tmp_path / one.name, {"seed": 0}, Settings()) for one in (first, second)]
    with pytest.raises(ConfigError, match="not so"):
        check_prepared(runs)
