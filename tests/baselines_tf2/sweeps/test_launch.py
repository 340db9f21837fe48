"""Many runs on Ray: two nodes on this machine, whose workers and nodes are killed."""

import io
import json
import os
import signal
import sys
import threading
from contextlib import redirect_stdout

import pytest

from baselines_tf2.sweeps import launch as launch_module
from baselines_tf2.sweeps.launch import launch
from baselines_tf2.sweeps.table import Report, Row, Table, render
from envs import ConfigError
from tests.launch_toys import DyingBoard, wait_for
from tests.ray_nodes import kill_node, second_node


def run(tasks, entry, address, **options):
    options = {"cpus": 1.0, "gpus": 0.0} | options
    return launch(tasks, f"tests.launch_toys:{entry}", address=address, **options)


@pytest.fixture(scope="module")
def many(ray_address, tmp_path_factory):
    """Tasks of all kinds, two at a time in processes of several: the errors, lines and folder."""
    folder = tmp_path_factory.mktemp("many")

    class Watched(Table):
        def change(self, row, state, why=""):
            super().change(row, state, why)
            (folder / f"{row.name} {state}").touch()

    counts = {
        "killed": (str(folder / "killed"), 20, 0.02, int(signal.SIGKILL), 7),
        "told": (str(folder / "told"), 20, 0.02, int(signal.SIGTERM), 7),
        "spared": (str(folder / "spared"), 20, 0.02),
    }
    tasks = {name: ("count", *arguments) for name, arguments in counts.items()} | {
        "bad": ("fail", "a"),
        "left": ("leave",),
        "deadly": ("die",),
        "seen": ("linger", str(folder / "seen running")),
    }
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.setattr(launch_module, "Table", Watched)
        patch.setattr(launch_module, "MAX_LOSSES", 1)
        failed = run(tasks, "play", ray_address, cpus=0.5, calls=4)
    return failed, out.getvalue().splitlines(), folder


def test_failed_tasks_are_named_and_fail_no_other(many):
    failed, lines, folder = many
    assert list(failed) == ["bad", "left", "deadly"]
    assert (failed["bad"], failed["left"]) == ("ValueError: no luck with a", "error: enough")
    assert "bad: failed, ValueError: no luck with a" in lines
    assert json.loads((folder / "spared").read_text()) == [20, 190]
    for name in ("killed", "told", "spared"):
        assert f"{name}: finished, 20 steps, latest episode's return 190.0" in lines


def test_a_running_task_is_seen_as_such(many):
    _, lines, _ = many
    first, last = (line for line in lines if line.startswith("seen: "))
    assert first.startswith("seen: running") and last.startswith("seen: finished, ")


@pytest.mark.parametrize(
    "name, why", [("killed", "its worker or node died"), ("told", "its worker was told to end")]
)
def test_a_killed_worker_is_replaced_and_the_results_are_equal(many, name, why):
    _, lines, folder = many
    assert json.loads((folder / name).read_text()) == [20, 190]
    retried = f"{name}: retried, "
    assert [line for line in lines if line.startswith(retried)] == [retried + why]


def test_a_task_that_always_kills_its_worker_ends(many):
    failed, lines, _ = many
    assert failed["deadly"].startswith("its worker or node died, after 1 other losses: once the")
    assert f"deadly: failed, {failed['deadly']}" in lines


def test_an_entry_that_is_not_there_is_a_failure(ray_address):
    (error,) = run({"one": ()}, "nothing", ray_address).values()
    assert "AttributeError" in error and "nothing" in error


def test_without_the_board_runs_go_on(ray_address, tmp_path, monkeypatch):
    monkeypatch.setattr(launch_module, "Board", DyingBoard)
    assert run({"one": (str(tmp_path / "one"), 40, 0.02)}, "count", ray_address) == {}
    assert json.loads((tmp_path / "one").read_text()) == [40, 780]


def test_two_nodes_share_the_tasks_and_those_of_a_dead_one_are_run_on_the_other(
    ray_address, tmp_path
):
    def kill_when_both_run():
        wait_for(tmp_path / "first")
        wait_for(tmp_path / "second")
        kill_node(node)
        (tmp_path / "killed").touch()

    names = ("first", "second")
    tasks = {name: (str(tmp_path / name), str(tmp_path / "killed")) for name in names}
    with second_node(ray_address) as node:
        thread = threading.Thread(target=kill_when_both_run)
        thread.start()
        assert run(tasks, "outlive", ray_address) == {}  # each node has one CPU
        thread.join()
    starts = [(tmp_path / name).read_text().split() for name in tasks]
    once, twice = sorted(starts, key=len)
    assert len(once) == 1 and len(twice) == 2
    assert twice[0] != once[0] == twice[1]


def test_ctrl_c_lets_the_runs_save(ray_address, tmp_path):
    path = tmp_path / "saved"
    # Shells start what is in the background with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def press():
        wait_for(path)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    tasks = {"one": (str(path),), "two": (str(tmp_path / "never"),)}
    with pytest.raises(KeyboardInterrupt):
        run(tasks, "save_when_told", ray_address)
    thread.join()
    signal.signal(signal.SIGINT, before)
    assert path.read_text() == "saved at stop" and not (tmp_path / "never").exists()


def test_on_this_machine_each_task_has_a_process_like_any_run_s(tmp_path):
    handler = signal.getsignal(signal.SIGTERM)
    tasks = {str(i): (str(tmp_path / str(i)),) for i in range(2)}
    assert run(tasks, "describe", None, cpus=os.cpu_count()) == {}  # one after the other
    facts = [json.loads((tmp_path / name).read_text()) for name in tasks]
    assert len({fact["pid"] for fact in facts}) == 2
    assert all(f["threads"] == ["1", "1", "1"] and f["nice"] == os.nice(0) for f in facts)
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize("wrong", ["127.0.0.1:1", "nonsense", "auto", "host.invalid:6379", ":", ""])
def test_an_address_where_no_cluster_answers(wrong):
    with pytest.raises(ConfigError, match="no Ray cluster answers at"):
        run({"one": ()}, "die", wrong)


def test_a_request_that_no_node_can_serve(ray_address):
    with pytest.raises(ConfigError, match="no node has the 500 CPUs and 0 GPUs .* have 1 and 0"):
        run({"one": ()}, "die", ray_address, cpus=500.0)


@pytest.mark.parametrize(("cpus", "gpus"), [(0, 0), (-1, 0), (float("nan"), 0), (1, -1), (1, 1.5)])
def test_requests_that_make_no_sense(cpus, gpus):
    wrong = "gpus_per_run must be 0, a part of one" if cpus == 1 else "cpus_per_run must be above 0"
    with pytest.raises(ConfigError, match=wrong):
        launch({}, "a:b", address=None, cpus=cpus, gpus=gpus)


def test_a_missing_ray_is_an_error_that_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"needs Ray: pip install -e '\.\[sweep\]'"):
        run({"one": ()}, "die", None)


def test_the_table_by_hand():
    rows = [
        Row("seed_0", "finished", report=Report(1000, 1000, 12.34, 50.0)),
        Row("seed_1", "running", report=Report(400, 1000, None, 5.0)),
        Row("seed_2", "failed", error="ValueError: no luck"),
        Row("seed_3"),
        Row("seed_4", "running"),
    ]
    assert render(rows, 61, columns=80, height=24) == [
        "5 runs: 2 running, 1 failed, 1 waiting, 1 finished; 0:01:01",
        "run     state           steps  episode return  steps/s     left",
        "seed_0  finished  1,000/1,000            12.3       50",
        "seed_1  running     400/1,000                        5  0:02:00",
        "seed_2  failed    ValueError: no luck",
        "seed_3  waiting",
        "seed_4  starting",
    ]


def test_the_table_keeps_within_the_terminal_and_shows_what_matters():
    rows = [Row(f"seed_{i}", "finished") for i in range(20)] + [Row("seed_20", "running")]
    lines = render(rows, 0, columns=12, height=6)
    assert len(lines) == 6 and max(map(len, lines)) <= 11
    assert [line.split()[0] for line in lines[2:]] == ["seed_0", "seed_1", "seed_20", "and"]


def test_in_a_terminal_the_table_is_drawn_over_the_last_one(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    rows = [Row("one")]
    table = Table(rows)
    table.draw()
    table.change(rows[0], "finished")
    table.draw()
    first, second = capsys.readouterr().out.split("\x1b[3A")
    assert "waiting" in first and "finished" in second and "finished" not in first
