"""Tables and TensorBoard events of one run."""

import csv
import errno
import os
import socket
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import IO

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from baselines_tf2.common.files import read_table, sync, table_text, write_text
from baselines_tf2.common.state import state_of
from envs.errors import ConfigError


def write_whole(file: IO[bytes], data: bytes) -> None:
    """Adds to an unbuffered file at its end, in one write: all of it or, with an OSError, nothing."""
    size = file.tell()
    try:
        if file.write(data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        file.truncate(size)
        file.seek(size)
        error.filename = file.name
        raise


class CsvTable:
    """A CSV that grows by whole lines; a new column rewrites it, old rows leaving it empty."""

    def __init__(self, path: Path):
        self.path, self._count = path, 0
        self._columns: list[str] = []

    def append(self, rows: Sequence[Mapping[str, float | int | str]]) -> None:
        new = [name for row in rows for name in row if name not in self._columns]
        if new:
            old = read_table(self.path) if self._columns else []
            self._columns += dict.fromkeys(new)
            self._write(old)
        with open(self.path, "ab", buffering=0) as file:
            write_whole(file, table_text(self._columns, rows, header=False).encode())
        self._count += len(rows)

    def get_state(self) -> dict:
        """How far the table is. What it has so far is on disk afterwards, power cut or not."""
        self.sync()
        return {"columns": self._columns, "count": self._count}

    def sync(self) -> None:
        """Puts every row on the disk."""
        if self._columns:
            sync(self.path)

    def set_state(self, state: dict) -> None:
        """Takes the file back to what it was at `get_state`; ConfigError if it has less."""
        columns, count = list(state["columns"]), state["count"]
        if not columns:
            self.path.unlink(missing_ok=True)
            self._columns, self._count = [], 0
            return
        try:
            kept = [{x: row[x] for x in columns} for row in read_table(self.path)[:count]]
            whole = len(kept) == count and not any(None in row.values() for row in kept)
        except (KeyError, ValueError, csv.Error):
            whole = False
        if not whole:
            raise ConfigError(f"{self.path} lacks rows or is damaged: start again with --overwrite")
        self._columns, self._count = columns, count  # not before: `close` syncs what there is
        self._write(kept)  # in one go: a kill or a full disk loses no row

    def _write(self, rows):
        write_text(self.path, table_text(self._columns, rows))


def print_metrics(step: int, metrics: Mapping[str, float]) -> None:
    """Prints one row of the log as a table of names and values."""
    width = max(map(len, metrics), default=0)
    lines = [f"{name:{width}}  {value:.4g}" for name, value in sorted(metrics.items())]
    print(f"step {step:,}", *lines, "", sep="\n")


class Events:
    """TensorBoard's event file, written at once: its own writer's thread would die on a full disk."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._file: IO[bytes] | None = None

    def _open(self):
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        self._file = file = (self._folder / name).open("wb", buffering=0)
        self._records = RecordWriter(SimpleNamespace(write=partial(write_whole, file)))
        self.add(file_version="brain.Event:2")

    def add(self, **fields) -> None:
        """Writes one event, of now, into a file that the first one opens: a refused run leaves none."""
        if self._file is None:
            self._open()
        event = Event(wall_time=time.time(), **fields)
        self._records.write(event.SerializeToString())

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


class Logger:
    """Writes `metrics.csv` (first column `step`), `eval.csv` and TensorBoard events to a folder."""

    def __init__(self, folder: Path):
        self._tables = {name: CsvTable(folder / f"{name}.csv") for name in ("metrics", "eval")}
        self._events = Events(folder)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds a row: metrics by `group/name`; wall-clock ones belong under `time/`."""
        self._tables["metrics"].append([{"step": step, **metrics}])
        # One event for all scalars: a tf.summary call for each costs 50 times more.
        values = [Summary.Value(tag=name, simple_value=x) for name, x in metrics.items()]
        self._events.add(step=step, summary=Summary(value=values))

    def log_episodes(self, step: int, rows: Sequence[Mapping[str, float]]) -> None:
        """Adds the episodes of an evaluation to `eval.csv`."""
        self._tables["eval"].append([{"step": step, **row} for row in rows])

    def get_state(self) -> dict:
        """How far the tables are."""
        return state_of(self._tables)

    def set_state(self, state: dict) -> None:
        """Takes the tables back to where `get_state` saw them; TensorBoard drops what came after."""
        for name, table in self._tables.items():
            table.set_state(state[name])
        rows = read_table(self._tables["metrics"].path)
        step = int(rows[-1]["step"]) + 1 if rows else 0
        self._events.add(step=step, session_log=SessionLog(status=SessionLog.START))

    def close(self) -> None:
        """Puts every row on the disk."""
        for table in self._tables.values():
            table.sync()
        self._events.close()
