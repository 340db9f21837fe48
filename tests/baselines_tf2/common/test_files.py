import csv
import os

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from baselines_tf2.common.files import read_arrays, write_arrays, write_atomically
from baselines_tf2.runs.logger import CsvTable, Logger
from envs import ConfigError


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_new_column_keeps_old_rows(tmp_path):
    table = CsvTable(tmp_path / "t.csv")
    table.append([{"step": 1, "a": 0.5}])
    table.append([{"step": 2, "b": 7}, {"step": 3, "a": 1e-20}])
    assert rows(tmp_path / "t.csv") == [
        {"step": "1", "a": "0.5", "b": ""},
        {"step": "2", "a": "", "b": "7"},
        {"step": "3", "a": "1e-20", "b": ""},
    ]


def test_the_logger_writes_tables_and_events(tmp_path):
    logger = Logger(tmp_path)
    logger.log(10, {"train/x": 1.5, "time/y": 2.0})
    logger.log_episodes(10, [{"episode": 0, "return": -1.0}])
    logger.close()
    assert rows(tmp_path / "metrics.csv") == [{"step": "10", "train/x": "1.5", "time/y": "2.0"}]
    assert (tmp_path / "metrics.csv").read_text().startswith("step,")
    assert rows(tmp_path / "eval.csv") == [{"step": "10", "episode": "0", "return": "-1.0"}]
    events = EventAccumulator(str(tmp_path)).Reload()
    (event,) = events.Scalars("train/x")
    assert (event.step, event.value) == (10, 1.5)


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "f"
    write_atomically(path, lambda file: file.write(b"old"))

    def fail(file):
        file.write(b"ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["f"]


def test_arrays_come_back(tmp_path):
    write_arrays(tmp_path / "a.npz", {"x/0": np.arange(3.0)})
    np.testing.assert_array_equal(read_arrays(tmp_path / "a.npz")["x/0"], [0, 1, 2])


@pytest.mark.parametrize("damage", ["missing", "empty", "truncated", "pickle", "text"])
def test_damaged_arrays_are_one_clear_line(tmp_path, damage):
    path = tmp_path / "a.npz"
    write_arrays(path, {"x": np.arange(1000.0)})
    if damage == "missing":
        path.unlink()
    elif damage == "pickle":
        np.savez(path, x=np.array([{}], object))
    else:
        data = path.read_bytes()
        path.write_bytes({"empty": b"", "truncated": data[:400], "text": b"hello"}[damage])
    with pytest.raises(ConfigError, match="a.npz"):
        read_arrays(path)


def test_who_logs_nothing_leaves_no_file(tmp_path):
    Logger(tmp_path).close()
    assert list(tmp_path.iterdir()) == []
