"""Judging finished runs over a grid of parameters."""

import csv
import itertools
import json
from dataclasses import asdict

import numpy as np
import pytest

from baselines_tf2.common.rollout import Episode
from baselines_tf2.ddpg.experiments import EXPERIMENTS
from baselines_tf2.runs import plots, workers
from baselines_tf2.runs.evaluate_run import (
    default_grids,
    evaluate_run,
    load_agent,
    make_plan,
    parse_grid,
)
from baselines_tf2.runs.experiment import Experiment
from baselines_tf2.runs.folder import locked
from envs import ConfigError, EnvSpec, uncertainty_grid
from tests.toys import still


class Still:
    def policy(self):
        return still


def fake(settings, folder):
    assert (folder / "config.json").exists()
    return Still()


def rows_at(folder, name):
    return sorted(path.name for path in (folder / name).iterdir())


@pytest.fixture(autouse=True)
def one_core(monkeypatch):
    """Starting a process costs more than these evaluations."""
    monkeypatch.setattr(workers, "usable_cores", lambda: 1)


@pytest.fixture
def run(tmp_path):
    real = EXPERIMENTS["ddpg_ensemble_pendulum"]
    settings = real.settings("default", "classic")
    config = {"exp": real.name, "backend": "classic", "seed": 0, "settings": asdict(settings)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "finished.json").write_text('{"return": "1"}')
    np.savez(tmp_path / "weights.npz", actor=np.zeros(3), count=np.array(1))
    fields = {f: getattr(real, f) for f in real.__dataclass_fields__}
    return {real.name: Experiment(**(fields | {"load": fake}))}, tmp_path


def rows(folder):
    with open(folder / "sweep.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_robot_of_the_grid_is_judged(run):
    experiments, folder = run
    summary = evaluate_run(experiments, folder, "mass=1,2;length=1,1.5", episodes=2, seed=0)
    table = rows(folder)
    robots = [(float(row["physics/mass"]), float(row["physics/length"])) for row in table]
    assert robots == [(m, x) for m in (1, 2) for x in (1, 1.5) for _ in range(2)]
    assert {row["length"] for row in table} == {"200"} and len(
        {row["return"] for row in table}
    ) == 8
    assert "8 episodes on 4 robots" in summary["return"]
    assert (folder / "sweep.png").stat().st_size > 10_000


def test_a_parameter_of_one_value_is_no_axis(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "write_atomically", lambda path, write: None)
    monkeypatch.setattr(plots, "_plot_lines", lambda axis, grid, returns: drawn.append([*grid]))
    values = tuple(float(x) for x in range(1, 8))
    returns = {frozenset({"one": 6.0, "many": x}.items()): [x] for x in values}
    assert plots.plot_sweeps(tmp_path / "x.png", [{"one": (6.0,), "many": values}], returns)
    assert drawn == [["many", "one"]]  # one line, not a map of no width


def test_a_run_that_goes_on_meanwhile_is_not_judged(run):
    experiments, folder = run
    (folder / "finished.json").unlink()
    with locked(folder), pytest.raises(ConfigError, match="another process is running in"):
        evaluate_run(experiments, folder, "mass=1", episodes=1, seed=0)
    assert not (folder / "sweep.csv").exists()


def test_what_the_grid_leaves_to_each_episodes_draw_makes_no_other_robot(run):
    experiments, folder = run
    summary = evaluate_run(experiments, folder, "length=0.5,1", episodes=3, seed=0)
    worst = f"{float(summary['worst'].split()[0]):.1f}"  # on one of two lengths, of six masses
    assert summary["return"].count(f"worst robot {worst};") == 1
    assert f"worst robot {worst};" in summary["inside"]


def test_the_first_episode_on_each_robot_is_recorded_and_nothing_else_changes(run):
    pytest.importorskip("imageio_ffmpeg")
    pytest.importorskip("pygame")
    experiments, folder = run
    grid, tables = "mass=2;length=1,1.5", []
    for video in (False, True):
        summary = evaluate_run(
            experiments, folder, grid, episodes=2, seed=0, overwrite=True, video=video, cores=2
        )
        tables.append(rows(folder))
        assert ("videos" in summary) == (folder / "sweep_videos").exists() == video
    assert tables[0] == tables[1]
    assert rows_at(folder, "sweep_videos") == ["mass=2,length=1.5.mp4", "mass=2,length=1.mp4"]
    (folder / "sweep_videos" / ".video-x").mkdir()  # of one that was killed
    again = {"episodes": 1, "seed": 0, "overwrite": True}  # videos are of the table's robots
    evaluate_run(experiments, folder, "mass=1", **again, video=True)
    assert rows_at(folder, "sweep_videos") == ["mass=1.mp4"]
    evaluate_run(experiments, folder, "mass=1", **again)
    assert not (folder / "sweep_videos").exists()


def test_an_unfinished_runs_weights_are_judged_with_a_warning(run):
    experiments, folder = run
    assert "warning" not in evaluate_run(experiments, folder, "mass=1", episodes=1, seed=0)
    (folder / "finished.json").unlink()
    summary = evaluate_run(experiments, folder, "mass=1", episodes=1, seed=0, overwrite=True)
    assert "is not finished: its weights are of its latest stop" in summary["warning"]
    (folder / "failed.json").write_text('{"error": "loss is nan"}')
    summary = evaluate_run(experiments, folder, "mass=1", episodes=1, seed=0, overwrite=True)
    assert "failed (loss is nan): its weights are of that moment" in summary["warning"]


def test_weights_that_are_not_there_or_not_finite(run):
    experiments, folder = run
    np.savez(folder / "weights.npz", actor=np.array([0, np.nan]))
    with pytest.raises(ConfigError, match=r"not finite \(actor\): its run diverged"):
        evaluate_run(experiments, folder, "mass=1", episodes=1, seed=0)
    (folder / "weights.npz").unlink()
    with pytest.raises(ConfigError, match="is not there yet: .* --resume goes on"):
        evaluate_run(experiments, folder, "mass=1", episodes=1, seed=0)


def test_the_same_seed_gives_the_same_table_and_replaces_the_last(run):
    experiments, folder = run
    tables = []
    for seed in (0, 0, 1):
        evaluate_run(experiments, folder, "mass=1,2", episodes=1, seed=seed, overwrite=True)
        tables.append(rows(folder))
    assert tables[0] == tables[1] != tables[2] and len(tables[2]) == 2


def with_ensemble(run, text):
    """The run, trained on another ensemble."""
    _, folder = run
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["env"]["ensemble"] = text
    (folder / "config.json").write_text(json.dumps(config))
    return run


@pytest.mark.parametrize("text", [None, "", "reward_offset:0,10,-30,30"])
def test_without_a_grid_nine_masses_inside_and_outside_the_ensemble(run, text):
    experiments, folder = run if text is None else with_ensemble(run, text)
    _, settings = load_agent(experiments, folder)
    ((name, masses),) = default_grids(settings.env)[0].items()
    assert name == "mass" and len(default_grids(settings.env)) == 1 and len(masses) == 9
    np.testing.assert_allclose([masses[0], masses[-1]], [0.25, 2.25])  # of [0.5, 1.5] kg


def test_without_a_grid_each_varied_parameter_is_swept(run):
    experiments, folder = with_ensemble(run, "length:0.5,1.5;mass:0.5,1.5")
    summary = evaluate_run(experiments, folder, "", episodes=1, seed=0)
    robots = [(float(row["physics/length"]), float(row["physics/mass"])) for row in rows(folder)]
    assert robots[:9] == [(k / 4, 1.0) for k in range(1, 10)]
    assert robots[9:] == [(1.0, k / 4) for k in range(1, 10) if k != 4]
    assert "17 episodes on 17 robots" in summary["return"]
    assert summary["inside"].endswith("inside of length 0.5 to 1.5, mass 0.5 to 1.5")
    returns = [float(row["return"]) for row in rows(folder)]
    inside = [0.5 <= length <= 1.5 and 0.5 <= mass <= 1.5 for length, mass in robots]
    worst = min(x for x, chosen in zip(returns, inside, strict=True) if not chosen)
    assert f"worst robot {worst:.1f}" in summary["outside"]


def test_the_reward_offset_trained_with_is_not_judged_with(run):
    tables = []
    for text in ("mass:0.5,1.5", "mass:0.5,1.5;reward_offset:50,1,49,51"):
        experiments, folder = with_ensemble(run, text)
        evaluate_run(experiments, folder, "", episodes=1, seed=0, overwrite=True)
        tables.append(rows(folder))
    assert tables[0] == tables[1]
    with pytest.raises(ConfigError, match="reward_offset is added in training only"):
        evaluate_run(experiments, folder, "reward_offset=1", episodes=1, seed=0, overwrite=True)


def test_a_grid_by_hand():
    assert parse_grid(" a=2.5,1,1 ; b=3 ") == {"a": (1.0, 2.5), "b": (3.0,)}
    assert parse_grid("") == {}


def on_robot(run, task, backend, **fields):
    """The run, of another robot."""
    experiments, folder = run
    config = json.loads((folder / "config.json").read_text())
    config["settings"]["env"] |= {"task": task, "backend": backend, "ensemble": "", **fields}
    (folder / "config.json").write_text(json.dumps(config))
    return experiments, folder


@pytest.fixture
def judged_in(monkeypatch):
    """The environments that were asked for; nothing is stepped, each robot has its own return."""
    specs = []

    def judge(self, policy, spec, rng, robots, videos=None):
        specs.append(spec)
        return [Episode(sum(robot.values()), 5, dict(robot)) for robot in robots]

    monkeypatch.setattr(workers.Workers, "evaluate", judge)
    return specs


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("variant", [None, "corrected", "as_published"])
def test_a_protocol_judges_its_own_grid_alone(run, judged_in, count, variant):
    trained = {"ensemble": "damping:0.5,1.5", "physics": "mass/foot=9", "distractors": 2}
    experiments, folder = on_robot(run, "hopper", "mujoco", **trained)
    name = f"rrls{count}"
    summary = evaluate_run(experiments, folder, protocol=name, variant=variant, episodes=2, seed=0)
    (spec,), bare = judged_in, variant == "as_published"
    assert spec == EnvSpec("hopper", "mujoco", bare_mass=bare, distractors=2)
    stem = f"sweep_{name}_{variant or 'corrected'}"
    assert summary["numbers"] == f"{stem}.csv" and not (folder / "sweep.csv").exists()
    grid = uncertainty_grid("hopper", count, variant or "corrected")
    with open(folder / f"{stem}.csv", newline="") as file:
        table = list(csv.DictReader(file))
    points = [tuple(float(row[f"physics/{name}"]) for name in grid) for row in table]
    assert points == [x for x in itertools.product(*grid.values()) for _ in range(2)]
    assert len(points) == 2 * 10**count
    # The least of all sums is that of the lower ends, 0.1 each.
    assert summary["worst"].startswith(f"{0.1 * count:.1f} mean on floor_friction 0.1")
    assert f"worst robot {0.1 * count:.1f}; {2 * 10**count} episodes on" in summary["return"]
    assert ("figure" in summary) == (folder / f"{stem}.png").exists() == (count < 3)
    assert "inside" not in summary


def test_a_protocol_leaves_the_target_out_that_the_run_adapted_to():
    trained = EnvSpec("hopper", "mujoco", ensemble="torso_mass:6,1.5,3,9", target="torso_mass=11")
    _, robot, _, _ = make_plan(trained, "", "rrls1", None)
    assert robot == EnvSpec("hopper", "mujoco")


def test_a_protocol_steps_real_robots(run):
    experiments, folder = on_robot(run, "hopper", "mujoco")
    summary = evaluate_run(experiments, folder, protocol="rrls1", episodes=1, seed=0)
    assert "10 episodes on 10 robots" in summary["return"]
    with pytest.raises(ConfigError, match="add --overwrite to replace sweep_rrls1_corrected.csv"):
        evaluate_run(experiments, folder, protocol="rrls1", episodes=1, seed=0)


@pytest.mark.parametrize(
    ("task", "backend", "asked", "message"),
    [
        ("hopper", "mujoco", {"protocol": "rrls1", "grid": "friction=1"}, "leave --grid out"),
        ("hopper", "mujoco", {"variant": "corrected"}, "--variant is a protocol's: add --protocol"),
        ("hopper", "mujoco", {"protocol": "rrls4"}, "unknown protocol 'rrls4'"),
        ("hopper", "mujoco", {"protocol": "rrls1", "variant": "x"}, "unknown variant"),
        ("hopper", "pybullet", {"protocol": "rrls1"}, "this run's robot is the hopper of pybullet"),
        ("ant", "mujoco", {"protocol": "rrls1"}, "this run's robot is the ant of mujoco"),
        ("pendulum", "classic", {"protocol": "rrls1"}, "for mujoco's cheetah, hopper, walker;"),
    ],
)
def test_protocols_that_are_refused(run, task, backend, asked, message):
    experiments, folder = on_robot(run, task, backend)
    with pytest.raises(ConfigError, match=message):
        evaluate_run(experiments, folder, **asked, episodes=1, seed=0)
    assert not list(folder.glob("sweep*"))


def test_an_evaluation_is_not_replaced_unasked(run):
    experiments, folder = run
    evaluate_run(experiments, folder, "mass=1", episodes=1, seed=0)
    with pytest.raises(ConfigError, match="evaluated already: add --overwrite"):
        evaluate_run(experiments, folder, "mass=2", episodes=1, seed=0)
    assert rows(folder)[0]["physics/mass"] == "1.0"


def test_a_parameter_named_twice():
    with pytest.raises(ConfigError, match="names 'a' twice"):
        parse_grid("a=1;a=2")


@pytest.mark.parametrize("text", ["mass", "mass=", "mass=1,x", "=;"])
def test_a_grid_that_cannot_be_read(text):
    with pytest.raises(ConfigError, match="cannot read grid entry"):
        parse_grid(text)


@pytest.mark.parametrize(
    ("grid", "episodes", "message"),
    [("mas=1", 1, "did you mean 'mass'"), ("mass=-1", 1, "positive"), ("mass=1", 0, "at least 1")],
)
def test_bad_input_leaves_no_table(run, grid, episodes, message):
    experiments, folder = run
    with pytest.raises(ConfigError, match=message):
        evaluate_run(experiments, folder, grid, episodes=episodes, seed=0)
    assert not (folder / "sweep.csv").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "there is no run in .*/seed_<n>"),
        ("{", "cannot be read as JSON"),
        ("{}", "is no run's"),
        ("[]", "is no run's"),
        ('{"exp": "ddpg_ensemble_pendulum"}', "is no run's"),
        ('{"exp": "nothing", "backend": "classic"}', "unknown experiment"),
    ],
)
def test_a_folder_without_a_sound_run(run, text, message):
    experiments, folder = run
    (folder / "config.json").unlink() if text is None else (folder / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_agent(experiments, folder)


def test_an_experiment_without_an_agent(run):
    experiments, folder = run
    (experiment,) = experiments.values()
    fields = {f: getattr(experiment, f) for f in experiment.__dataclass_fields__}
    none = {experiment.name: Experiment(**(fields | {"load": None}))}
    with pytest.raises(ConfigError, match="leaves no agent"):
        load_agent(none, folder)
