"""What a run's folder lets in: nobody's, its own run again, and only one process."""

import json
import subprocess
import sys
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.runs.checkpoint import Checkpoints
from baselines_tf2.runs.experiment import Progress
from baselines_tf2.runs.folder import (
    FINISHED,
    carry_out,
    check_config,
    do_run,
    failure,
    finished_summary,
    locked,
    open_folder,
    read_config,
    write_config,
)
from envs.errors import ConfigError


@dataclass(frozen=True)
class Agent:
    gamma: float = 0.99
    layers: tuple[int, ...] = (64, 64)


@dataclass(frozen=True)
class Settings:
    agent: Agent = field(default_factory=Agent)
    steps: int = 100


FLAGS = {"exp": "toy", "seed": 3, "set": []}


def open_it(folder, settings=None, *, overwrite=False, resume=False):
    folder.mkdir(parents=True, exist_ok=True)
    chosen = Settings() if settings is None else settings
    return open_folder(folder, FLAGS, chosen, overwrite=overwrite, resume=resume)


def test_a_run_is_not_overwritten_unasked(tmp_path):
    folder = tmp_path / "toy" / "mujoco" / "seed_3"
    assert open_it(folder) == []
    (folder / "metrics.csv").write_text("step\n")
    (folder / "checkpoints").mkdir()
    with pytest.raises(ConfigError, match="already holds a run: add --resume to go on"):
        open_it(folder)
    assert (folder / "metrics.csv").read_text() == "step\n"
    open_it(folder, overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["config.json"]


def test_starting_anew_and_going_on_exclude_each_other_and_leave_no_folder(tmp_path):
    chosen = SimpleNamespace(folder=tmp_path / "new")
    with pytest.raises(ConfigError, match="leave one out"):
        do_run(chosen, Progress(), None, overwrite=True, resume=True)
    assert not chosen.folder.exists()


def test_config_json_holds_settings_and_versions(tmp_path):
    write_config(tmp_path, {"exp": "toy"}, Settings())
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["exp"] == "toy" and config["settings"]["agent"]["gamma"] == 0.99
    assert config["versions"]["tensorflow"][0].isdigit()


def test_only_the_same_run_is_resumed(tmp_path):
    assert open_it(tmp_path, resume=True) == []  # nothing there: it starts
    assert open_it(tmp_path, resume=True) == []
    changed = Settings(Agent(gamma=0.5, layers=(64, 32)), steps=7)
    with pytest.raises(ConfigError) as error:
        open_it(tmp_path, changed, resume=True)
    for text in (
        "agent.gamma was 0.99 and is 0.5",
        "agent.layers was [64, 64] and is [64, 32]",
        "steps was 100 and is 7",
    ):
        assert text in str(error.value)
    with pytest.raises(ConfigError, match="seed was 3 and is 4"):
        check_config(tmp_path, FLAGS | {"seed": 4}, Settings())


def test_other_versions_are_a_warning(tmp_path):
    open_it(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["versions"]["numpy"] = "1.0"
    (tmp_path / "config.json").write_text(json.dumps(config))
    (warning,) = open_it(tmp_path, resume=True)
    assert warning.startswith("versions.numpy was 1.0 and is") and "last bits" in warning


@dataclass(frozen=True)
class Train:
    num_timesteps: int
    random_steps: int = 0
    overlap: bool = False


@dataclass(frozen=True)
class TrainSettings:
    agent: Agent = field(default_factory=Agent)
    train: Train = field(default_factory=lambda: Train(50, 10))


def edit_settings(folder, edit):
    config = json.loads((folder / "config.json").read_text())
    edit(config["settings"])
    (folder / "config.json").write_text(json.dumps(config))


def test_an_older_run_whose_settings_were_elsewhere_is_resumed(tmp_path):
    def older(settings):
        settings["agent"]["random_steps"] = settings["train"].pop("random_steps")

    open_it(tmp_path, TrainSettings())
    edit_settings(tmp_path, older)
    assert open_it(tmp_path, TrainSettings(), resume=True) == []
    assert read_config(tmp_path)["settings"]["train"]["random_steps"] == 10
    with pytest.raises(ConfigError, match="as it was: train.random_steps was 10 and is 11; give"):
        open_it(tmp_path, TrainSettings(train=Train(50, 11)), resume=True)


def test_a_setting_that_an_older_run_lacks_was_as_its_class_has_it(tmp_path):
    open_it(tmp_path, TrainSettings())
    edit_settings(tmp_path, lambda settings: settings["train"].pop("overlap"))
    edit_settings(tmp_path, lambda settings: settings["agent"].pop("layers"))
    assert open_it(tmp_path, TrainSettings(), resume=True) == []
    with pytest.raises(ConfigError, match="train.overlap was False and is True"):
        open_it(tmp_path, TrainSettings(train=Train(50, 10, True)), resume=True)
    edit_settings(tmp_path, lambda settings: settings["train"].pop("num_timesteps"))
    with pytest.raises(ConfigError, match="train.num_timesteps was None and is 50"):
        open_it(tmp_path, TrainSettings(), resume=True)


@pytest.mark.parametrize("text", ["", "{", '{"exp": "toy"', "[]"])
def test_a_damaged_config_is_refused(tmp_path, text):
    open_it(tmp_path)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError):
        open_it(tmp_path, resume=True)
    (tmp_path / "config.json").unlink()
    (tmp_path / "metrics.csv").write_text("")
    with pytest.raises(ConfigError, match="no file"):
        open_it(tmp_path, resume=True)


HOLD = """
import sys, time
from pathlib import Path
from baselines_tf2.runs.folder import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_process_is_refused_and_death_frees_the_folder(tmp_path):
    folder = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(ConfigError, match="another process is running in"), locked(folder):
        pass
    process.kill()
    process.wait()
    process.stdout.close()
    with locked(folder):
        assert folder.exists()


def test_a_finished_run_is_not_done_again(tmp_path):
    calls = []

    def run(folder, progress, checkpoints):
        calls.append(folder)
        checkpoints.save(1, {"x": 1})
        return {"return": "1"}

    for _ in range(2):
        assert carry_out(run, tmp_path, None, Checkpoints(tmp_path)) == {"return": "1"}
    assert calls == [tmp_path] and not (tmp_path / "checkpoints").exists()


def test_without_a_checkpoint_tables_start_anew(tmp_path):
    open_it(tmp_path)
    (tmp_path / "metrics.csv").write_text("step\n1\n")
    (tmp_path / ".weights.npz.7.partial").write_text("half")
    (tmp_path / "notes.txt").write_text("the user's own")
    part = tmp_path / "omd" / "seed_0"
    part.mkdir(parents=True)
    left = []

    def run(folder, progress, checkpoints):
        left.extend(sorted(path.name for path in folder.iterdir()))
        return {}

    carry_out(run, tmp_path, None, Checkpoints(tmp_path))
    assert left == ["config.json", "notes.txt", "omd"]


def test_a_run_that_is_refused_keeps_what_it_failed_of(tmp_path):
    open_it(tmp_path)
    (tmp_path / "failed.json").write_text('{"error": "loss is nan"}')

    def run(folder, progress, checkpoints):
        raise ConfigError("no checkpoint is sound")

    with pytest.raises(ConfigError, match="is sound"):
        carry_out(run, tmp_path, None, Checkpoints(tmp_path))
    assert failure(tmp_path) == "loss is nan"


def test_what_a_link_leads_to_is_not_overwritten(tmp_path):
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "run"
    elsewhere.mkdir()
    (elsewhere / "film.mp4").write_text("x")
    open_it(folder)
    (folder / "videos").symlink_to(elsewhere)
    open_it(folder, overwrite=True)
    assert not (folder / "videos").exists() and (elsewhere / "film.mp4").exists()


def test_only_a_few_differences_are_listed(tmp_path):
    open_it(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match="; and 1 more; give it the same flags") as error:
        open_it(tmp_path, Settings(Agent(0.5, (8,)), steps=7), resume=True)
    assert str(error.value).count(" was ") == 4


def test_a_failure_is_kept_until_the_run_goes_on(tmp_path):
    def run(folder, progress, checkpoints):
        assert failure(folder) is None
        raise TrainingError("loss is nan at step 7")

    for _ in range(2):
        with pytest.raises(TrainingError, match="at step 7"):
            carry_out(run, tmp_path, None, Checkpoints(tmp_path))
        assert failure(tmp_path) == "loss is nan at step 7"
    carry_out(lambda *_: {"return": "1"}, tmp_path, None, Checkpoints(tmp_path))
    assert failure(tmp_path) is None
    (tmp_path / "failed.json").write_text("[")
    assert "does not say why" in failure(tmp_path)


def test_an_evaluation_does_not_outlive_its_weights(tmp_path):
    (tmp_path / "sweep_videos").mkdir()
    for name in ("sweep.csv", "sweep_rrls1_corrected.png", "sweep_videos/mass=1.mp4"):
        (tmp_path / name).touch()
    carry_out(lambda *_: {"return": "1"}, tmp_path, None, Checkpoints(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {FINISHED}


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_damaged_result_names_its_cure(tmp_path, text):
    (tmp_path / FINISHED).write_text(text)
    with pytest.raises(ConfigError, match="finished.json is damaged: .* --overwrite"):
        finished_summary(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["finished.json"], "holds a finished run: add --overwrite"),
        (["weights.npz"], "stopped before its first checkpoint: add --overwrite"),
        (["weights.npz", "checkpoints/step_1.json"], "holds a run: add --resume to go on"),
        (["failed.json"], r"failed \(loss is nan\): add --overwrite to start anew"),
        (["failed.json", "checkpoints/step_1.json"], r"loss is nan\): add --resume to try again"),
    ],
)
def test_what_the_folder_holds_decides_what_is_advised(tmp_path, files, message):
    (tmp_path / "checkpoints").mkdir()
    for name in files:
        (tmp_path / name).write_text('{"error": "loss is nan"}')
    with pytest.raises(ConfigError, match=message):
        open_it(tmp_path)


def test_a_failed_run_without_a_checkpoint_says_why_it_cannot_go_on(tmp_path):
    (tmp_path / "weights.npz").touch()
    (tmp_path / "failed.json").write_text('{"error": "loss is nan"}')
    with pytest.raises(ConfigError, match=r"since its run failed \(loss is nan\): keep it"):
        carry_out(lambda *_: {}, tmp_path, None, Checkpoints(tmp_path))
