"""A study's CSV: what a run leaves in it, and when it counts as done."""

import csv
import json
import math
import shutil
from functools import partial

import pytest

from baselines_tf2.common.files import read_table, write_text
from baselines_tf2.report.runs import Run
from baselines_tf2.runs.folder import open_folder
from baselines_tf2.sweeps import study_outcomes, study_run, study_store
from baselines_tf2.sweeps.study import plan
from baselines_tf2.sweeps.study_outcomes import OUTCOMES, by_mass, judge
from baselines_tf2.sweeps.study_store import Store
from envs.errors import ConfigError
from run_experiments import EXPERIMENTS
from tests.baselines_tf2.sweeps.test_study import TEXT, study


def run_of(evaluations, metrics=(), failure=None, steps=500):
    """Returns by step (and by robot), and rows of metrics.csv."""
    config = {"settings": {"train": {"num_timesteps": steps, "eval_interval": 100}}}
    rows = {
        step: [{"step": step, "return": x, "physics/torso_mass": m, "physics/friction": i / 7}
               for i, (m, x) in enumerate(episodes)]
        for step, episodes in evaluations.items()
    }  # fmt: skip
    return Run(None, config, list(metrics), rows, False, failure)


def number(name, run):
    return OUTCOMES[name].of(run)


EVALUATIONS = {step: [(1.0, x), (2.0, 3 * x), (1.0, x), (2.0, x)] for step, x in
               zip((100, 200, 300, 400, 500), (100, 900, 20, 30, 40), strict=True)}  # fmt: skip


def test_outcomes_by_hand():
    run = run_of(EVALUATIONS, [
        {"step": s, "eval/return_outside": s, "eval/return_inside_worst_robot": 2 * s,
         "diagnostics/robot_share": s / 1000}
        for s in (100, 200, 300, 400, 500)
    ])  # fmt: skip
    # Means over an evaluation's four episodes are 1.5 x; 45 of the last three x is their mean.
    assert number("mean", run) == pytest.approx(1.5 * 30)
    assert number("area", run) == pytest.approx(1.5 * 218)
    assert number("worst", run) == pytest.approx(30)  # 1 kg gives x, 2 kg 2 x
    assert number("cvar10", run) == pytest.approx(30)  # a tenth of four is one episode
    assert number("outside", run) == 400 and number("inside_worst", run) == 800
    assert number("robot_share", run) == pytest.approx(0.4)  # of 300, 400 and 500
    assert number("robot_share_early", run) == pytest.approx(0.1)  # of 100 of 500
    assert number("steps_to_475", run) == 200
    assert number("best", run) == pytest.approx(1.5 * 900)
    assert math.isnan(number("inside", run)) and math.isnan(number("model_loss", run))


def test_a_run_that_failed_keeps_its_last_evaluation():
    run = run_of({100: [(1.0, 10.0)], 200: [(1.0, 40.0)]}, failure="diverged")
    assert number("mean", run) == 40  # at 300, 400 and 500
    assert number("area", run) == pytest.approx((10 + 4 * 40) / 5)
    assert number("steps_to_475", run) == 500  # never
    judged = run_of({0: [(1.0, 10.0)], 100: [(1.0, 40.0)]}, failure="diverged")
    judged.config["settings"]["train"]["eval_at_start"] = True
    assert number("area", judged) == pytest.approx((10 + 5 * 40) / 6)
    assert math.isnan(number("mean", run_of({}, failure="diverged")))


def test_return_by_mass_is_of_the_other_parameters_middle():
    swept = [(3.0, 0.0, 1.0), (6.0, 0.0, 2.0), (9.0, 0.0, 3.0), (6.0, -5.0, 70.0), (6.0, 5.0, 80.0)]
    rows = [{"return": x, "physics/torso_mass": m, "physics/slope": s} for m, s, x in swept]
    assert by_mass(rows) == {"torso_mass": {3.0: 1.0, 6.0: 2.0, 9.0: 3.0}}


def test_masses_are_judged_with_all_else_as_usual():
    swept = [(1.5, 0.0, 10.0), (3.0, 0.0, 30.0), (9.0, 0.0, 20.0), (13.5, 0.0, 6.0)]
    slid = [(6.0, 0.0, 50.0), (6.0, -40.0, 80_000.0), (6.0, 40.0, -90_000.0)]
    run = run_of({500: [(0.0, 0.0)]})
    run.evaluations[500] = [
        {"return": x, "physics/torso_mass": m, "physics/slope": s} for m, s, x in swept + slid
    ]
    run.config["settings"]["env"] = {"ensemble": "torso_mass:6,1.5,3,9;slope:0,8,-20,20"}
    assert number("outer_masses", run) == 8  # 1.5 and 13.5 kg
    assert number("worst_mass", run) == 6
    run.config["settings"]["env"] = {"ensemble": "slope:0,8,-20,20"}
    assert math.isnan(number("outer_masses", run))


def test_percentiles_by_mass_are_of_ten_episodes_or_more():
    rows = [{"return": m * x, "physics/torso_mass": m} for m in (1.0, 2.0) for x in range(11)]
    found = by_mass(rows)
    assert found["torso_mass"] == {1.0: 5.0, 2.0: 10.0}
    assert found["torso_mass_p10"] == {1.0: 1.0, 2.0: 2.0}  # of 0 to 10 a tenth is at or below 1
    assert found["torso_mass_p50"] == found["torso_mass"]
    assert found["torso_mass_p90"] == {1.0: 9.0, 2.0: 18.0}
    assert list(by_mass(rows[:-2])) == ["torso_mass"]  # nine at 2 kg
    assert by_mass([{"return": 1.0}]) == {"torso_mass": {}}


def test_an_uncertainty_set_judges_finished_runs_once(tmp_path, monkeypatch):
    text = TEXT.replace('["area"]', '["area", "rrls2_corrected_worst", "rrls2_corrected_mean"]')
    one, called = study(tmp_path, text), []

    def evaluate_run(experiments, folder, grid, protocol, variant, **_):
        called.append((folder, protocol, variant))
        rows = [("physics/friction", "return"), (1, 10), (1, 30), (2, 7), (2, 9)]
        with open(folder / f"sweep_{protocol}_{variant}.csv", "w", newline="") as file:
            csv.writer(file).writerows(rows)

    monkeypatch.setattr(study_outcomes, "evaluate_run", evaluate_run)
    store, runs = Store(one, partial(judge, EXPERIMENTS)), plan(one, EXPERIMENTS, str(tmp_path))
    put(runs[0])
    put(runs[1], "diverged")
    for _ in range(2):
        store.collect(runs)
    assert called == [(runs[0].planned.folder, "rrls2", "corrected")]
    assert store.number(runs[0].key, "rrls2_corrected_worst") == 8  # means 20 and 8
    assert store.number(runs[0].key, "rrls2_corrected_mean") == 14
    assert math.isnan(store.number(runs[1].key, "rrls2_corrected_worst"))


def put(run, outcome="finished", *, returns=(1.0, 2.0)):
    """A run folder as a run leaves it."""
    folder = run.planned.folder
    folder.mkdir(parents=True, exist_ok=True)
    open_folder(folder, run.planned.flags, run.planned.settings, overwrite=True, resume=False)
    for name, columns in {
        "metrics.csv": ("step", "time/elapsed"),
        "eval.csv": ("step", "return"),
    }.items():
        with open(folder / name, "w", newline="") as file:
            csv.writer(file).writerows([columns, *zip((2000, 4000), returns, strict=True)])
    if outcome == "finished":
        (folder / "finished.json").write_text(json.dumps({"return": "x"}))
    else:
        (folder / "failed.json").write_text(json.dumps({"error": outcome}))


def setting(tmp_path, text=TEXT):
    one = study(tmp_path, text)
    return Store(one), plan(one, EXPERIMENTS, str(tmp_path / "runs"))


def test_runs_that_ended_become_rows_and_are_done(tmp_path):
    store, runs = setting(tmp_path)
    assert store.collect(runs) == runs and not (tmp_path / "try.csv").exists()
    put(runs[0])
    put(runs[3], "diverged, at step 4,000")
    assert store.collect(runs) == [*runs[1:3], *runs[4:]]
    first, failed = read_table(tmp_path / "try.csv")
    assert (first["arm"], first["level"], first["seed"]) == ("slow", "noise=a, batch=32", "0")
    assert (first["status"], first["mean"], first["area"]) == ("finished", "1.5", "1.5")
    assert (first["steps"], first["seconds"]) == ("4000", "2")
    assert failed["status"] == "failed: diverged, at step 4,000"
    config = json.loads((runs[0].planned.folder / "config.json").read_text())
    assert first["commit"] == config["versions"]["commit"]

    shutil.rmtree(tmp_path / "runs")  # another machine, which has the CSVs alone
    other, _ = setting(tmp_path)
    assert other.collect(runs) == [*runs[1:3], *runs[4:]]
    assert other.rows == store.rows
    x, y = other.curves[runs[0].key]["return"]
    assert x.tolist() == [2000, 4000] and y.tolist() == [1, 2]


def test_a_run_that_was_mended_replaces_its_failure(tmp_path):
    store, runs = setting(tmp_path)
    put(runs[0], "diverged")
    store.collect(runs)
    put(runs[0], returns=(5.0, 7.0))
    store.collect(runs)
    assert store.rows[runs[0].key]["status"] == "finished"
    assert store.number(runs[0].key, "mean") == 6


def test_a_run_that_fails_anew_replaces_its_failure(tmp_path):
    store, runs = setting(tmp_path)
    put(runs[0], "diverged, at step 2,000")
    store.collect(runs)
    put(runs[0], "diverged, at step 4,000", returns=(5.0, 7.0))
    store.collect(runs)
    assert store.rows[runs[0].key]["status"] == "failed: diverged, at step 4,000"
    assert store.number(runs[0].key, "mean") == 6


def test_a_failure_here_does_not_replace_a_row_that_another_machine_finished(tmp_path):
    store, runs = setting(tmp_path)
    put(runs[0], returns=(5.0, 7.0))
    store.collect(runs)
    (runs[0].planned.folder / "finished.json").unlink()
    (runs[0].planned.folder / "failed.json").write_text('{"error": "killed"}')
    assert runs[0] not in store.collect(runs)
    assert store.rows[runs[0].key]["status"] == "finished"


def test_an_outcome_that_is_named_later_is_taken_from_the_folders(tmp_path):
    store, runs = setting(tmp_path)
    put(runs[0])
    store.collect(runs)
    store, runs = setting(tmp_path, TEXT.replace('["area"]', '["area", "cvar10"]'))
    store.collect(runs)
    assert store.number(runs[0].key, "cvar10") == 1.5


@pytest.mark.parametrize("keep_folder", [True, False])
def test_rows_of_other_settings_are_not_mixed_in(tmp_path, keep_folder):
    store, runs = setting(tmp_path)
    put(runs[0])
    store.collect(runs)
    if not keep_folder:
        shutil.rmtree(tmp_path / "runs")
    changed = TEXT.replace("agent.actor_lr=1e-4", "agent.actor_lr=2e-4")
    store, runs = setting(tmp_path, changed)
    with pytest.raises(ConfigError, match="1 runs were done with other settings .*--overwrite"):
        store.collect(runs)
    others = store.others(runs)
    assert others == runs[:1] and store.collect(runs, but=others) == runs
    assert len(read_table(tmp_path / "try.csv")) == 1  # until it is certain that they can be done
    store.drop(others)
    assert not read_table(tmp_path / "try.csv")
    assert store.collect(runs) == runs  # its folder, if there is one, is ready for the run


def test_two_processes_keep_each_others_rows(tmp_path):
    store, runs = setting(tmp_path)
    other = Store(store.study)
    for one, run in ((store, runs[0]), (other, runs[1]), (store, runs[2])):
        put(run)
        one.collect([run])
    assert len(read_table(tmp_path / "try.csv")) == 3
    assert Store(store.study).curves.keys() == {run.key for run in runs[:3]}
    other.drop(runs[:1])  # which knows nothing of the last
    assert Store(store.study).rows.keys() == {run.key for run in runs[1:3]}


def test_a_damaged_run_is_named_and_keeps_no_other_from_its_row(tmp_path, capsys):
    store, runs = setting(tmp_path)
    put(runs[0])
    put(runs[1])
    (runs[0].planned.folder / "eval.csv").write_text("step,return\n2000,x\n")
    assert store.collect(runs) == [runs[0], *runs[2:]]
    assert f"warning: {runs[0].name}: " in capsys.readouterr().out
    assert Store(store.study).rows.keys() == {runs[1].key}


def test_a_run_whose_configuration_is_damaged_stops_no_other_and_goes_with_overwrite(tmp_path):
    store, runs = setting(tmp_path)
    put(runs[0])
    put(runs[1])
    (runs[0].planned.folder / "config.json").write_text("{")
    assert store.collect(runs) == [runs[0], *runs[2:]]
    damaged = store.others(runs)
    assert damaged == runs[:1]
    store.drop(damaged)
    assert store.others(runs) == [] and store.collect(runs) == [runs[0], *runs[2:]]


def test_a_row_is_there_only_with_its_curves(tmp_path, monkeypatch):
    store, runs = setting(tmp_path)
    put(runs[0])

    def killed(path, text):
        if path.name == "try.csv":
            raise KeyboardInterrupt
        write_text(path, text)

    monkeypatch.setattr(study_store, "write_text", killed)
    with pytest.raises(KeyboardInterrupt):
        store.collect(runs)
    monkeypatch.undo()
    assert Store(store.study).collect(runs) == runs[1:]
    assert Store(store.study).curves.keys() == {runs[0].key}


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("try.csv", "\n", "\n<<<<<<< HEAD\n"),
        ("try_curves.csv", "\n", "\n<<<<<<< HEAD\n"),
        ("try_curves.csv", ",2000 4000", ""),
        ("try_curves.csv", ",2000 4000", ",2000 x"),
        ("try.csv", "commit", "comit"),
    ],
)
def test_a_damaged_table_is_named(tmp_path, name, old, new):
    store, runs = setting(tmp_path)
    put(runs[0])
    store.collect(runs)
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(text.replace(old, new, 1))
    with pytest.raises(ConfigError, match=f"{name} is damaged: put back what was committed"):
        Store(store.study)


def test_overwriting_destroys_nothing_before_the_runs_can_begin(tmp_path, monkeypatch):
    store, runs = setting(tmp_path)
    put(runs[0])
    store.collect(runs)
    one = study(tmp_path, TEXT.replace("agent.actor_lr=1e-4", "agent.actor_lr=2e-4"))

    def refused(*_, **__):
        raise ConfigError("no room")

    monkeypatch.setattr(study_run, "launch_runs", refused)
    where = {"logdir": str(tmp_path / "runs"), "parts": [], "collect": False, "overwrite": True}
    with pytest.raises(ConfigError, match="no room"):
        study_run.do_study(one, EXPERIMENTS, "", **where)
    assert len(read_table(tmp_path / "try.csv")) == 1
    assert (runs[0].planned.folder / "eval.csv").exists()


def test_the_folder_of_another_run_is_not_taken_for_this_one(tmp_path):
    store, runs = setting(tmp_path)
    put(runs[0])
    changed = TEXT.replace("agent.actor_lr=1e-4", "agent.actor_lr=2e-4")
    store, runs = setting(tmp_path, changed)
    with pytest.raises(ConfigError, match="other settings"):
        store.collect(runs)
