"""Many runs on Ray: two nodes on this machine, whose workers and nodes are killed."""

import json
import os
import signal
import sys
import threading

import pytest

from baselines_tf2.sweeps import launch as launch_module
from baselines_tf2.sweeps.launch import launch
from baselines_tf2.sweeps.table import Report, Row, Table, render
from envs import ConfigError
from tests.launch_toys import DyingBoard, wait_for
from tests.ray_nodes import cluster, kill_node, second_node


@pytest.fixture(scope="module")
def address():
    with cluster() as address:
        yield address


def run(tasks, entry, address, cpus=1.0):
    return launch(tasks, f"tests.launch_toys:{entry}", address=address, cpus=cpus, gpus=0.0)


def counters(folder, extras=(), steps=20):
    names = ("first", "second")
    arguments = {name: (str(folder / name), steps, 0.02) for name in names}
    return {name: arguments[name] + (extras if name == "first" else ()) for name in names}


def results(folder):
    return [json.loads((folder / name).read_text()) for name in ("first", "second")]


def test_a_failed_task_is_named_and_fails_no_other(address, tmp_path, capsys):
    tasks = {"bad": ("a",)} | counters(tmp_path)
    assert run(tasks, "count_or_fail", address, cpus=0.5) == {"bad": "ValueError: no luck with a"}
    assert results(tmp_path) == [[20, 190], [20, 190]]
    lines = capsys.readouterr().out.splitlines()
    assert "bad: failed, ValueError: no luck with a" in lines
    assert {
        f"{name}: finished, 20 steps, latest episode's return 190.0" for name in ("first", "second")
    } < set(lines)


def test_a_running_task_is_seen_as_such(address, tmp_path, monkeypatch, capsys):
    class Watched(Table):
        def change(self, row, state, why=""):
            super().change(row, state, why)
            (tmp_path / state).touch()

    monkeypatch.setattr(launch_module, "Table", Watched)
    assert run({"one": (str(tmp_path / "running"),)}, "linger", address) == {}
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("one: running") and last.startswith("one: finished, ")


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_worker_is_replaced_and_the_results_are_equal(address, tmp_path, capsys, kill):
    tasks = counters(tmp_path, extras=(int(kill), 7))
    assert run(tasks, "count", address, cpus=0.5) == {}
    assert results(tmp_path) == [[20, 190], [20, 190]]
    lines = capsys.readouterr().out.splitlines()
    (retried,) = (line for line in lines if "retried" in line)
    assert retried.startswith("first: retried, its worker ")


def test_a_task_that_always_kills_its_worker_ends(address, monkeypatch):
    monkeypatch.setattr(launch_module, "MAX_LOSSES", 1)
    failed = run({"deadly": ()}, "die", address)
    assert failed["deadly"].startswith("its worker or node died, after 1 other losses: once the")


def test_an_exit_is_a_failure_and_so_is_an_entry_that_is_not_there(address):
    assert run({"one": ()}, "leave", address) == {"one": "error: enough"}
    (error,) = run({"one": ()}, "nothing", address).values()
    assert "AttributeError" in error and "nothing" in error


def test_without_the_board_runs_go_on(address, tmp_path, monkeypatch):
    monkeypatch.setattr(launch_module, "Board", DyingBoard)
    assert run(counters(tmp_path, steps=60), "count", address, cpus=0.5) == {}
    assert results(tmp_path) == [[60, 1770], [60, 1770]]


def meeting(folder, seconds):
    paths = [str(folder / name) for name in ("first", "second")]
    return {"first": (*paths, seconds), "second": (*paths[::-1], seconds)}


def starts(folder):
    return [(folder / name).read_text().split() for name in ("first", "second")]


def test_two_nodes_share_the_tasks(address, tmp_path):
    with second_node(address):
        assert run(meeting(tmp_path, 0), "meet", address) == {}  # each node has one CPU
    (first,), (second,) = starts(tmp_path)
    assert first != second


def test_the_tasks_of_a_dead_node_are_run_on_another(address, tmp_path):
    def kill_when_both_run():
        wait_for(tmp_path / "first")
        wait_for(tmp_path / "second")
        kill_node(node)
        (tmp_path / "killed").touch()

    tasks = {
        name: (str(tmp_path / name), str(tmp_path / "killed"), 4.0)  # a worker dies later
        for name in ("first", "second")
    }
    with second_node(address) as node:
        thread = threading.Thread(target=kill_when_both_run)
        thread.start()
        assert run(tasks, "meet", address) == {}
        thread.join()
    once, twice = sorted(starts(tmp_path), key=len)
    assert len(once) == 1 and len(twice) == 2
    assert twice[0] != once[0] == twice[1]


def test_ctrl_c_lets_the_runs_save(address, tmp_path):
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
        run(tasks, "save_when_told", address)
    thread.join()
    signal.signal(signal.SIGINT, before)
    assert path.read_text() == "saved at stop" and not (tmp_path / "never").exists()


def test_on_this_machine_each_task_has_a_process_like_any_run_s(address, tmp_path):
    handler = signal.getsignal(signal.SIGTERM)
    paths = [tmp_path / str(i) for i in range(3)]
    assert run({path.name: (str(path),) for path in paths}, "describe", None) == {}
    facts = [json.loads(path.read_text()) for path in paths]
    assert len({fact["pid"] for fact in facts}) == 3
    assert all(f["threads"] == ["1", "1", "1"] and f["nice"] == os.nice(0) for f in facts)
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.parametrize("wrong", ["127.0.0.1:1", "nonsense", "auto", "host.invalid:6379", ":", ""])
def test_an_address_where_no_cluster_answers(wrong):
    with pytest.raises(ConfigError, match="no Ray cluster answers at"):
        run({"one": ()}, "die", wrong)


def test_a_request_that_no_node_can_serve(address):
    with pytest.raises(ConfigError, match="no node has the 500 CPUs and 0 GPUs .* have 1 and 0"):
        run({"one": ()}, "die", address, cpus=500.0)


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
        Row("seed_0", "finished", report=Report(0, 1000, 1000, 12.34, 50.0)),
        Row("seed_1", "running", report=Report(0, 400, 1000, None, 5.0)),
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
