"""Tables and TensorBoard events of one run."""

import csv
import io
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from baselines_tf2.common.files import write_atomically


class CsvTable:
    """A CSV that grows by whole lines; a new column rewrites it, old rows leaving it empty."""

    def __init__(self, path: Path):
        self._path, self._columns = path, []

    def append(self, rows: Sequence[Mapping[str, float | int | str]]) -> None:
        new = [name for row in rows for name in row if name not in self._columns]
        if new:
            self._widen(list(dict.fromkeys(new)))
        with open(self._path, "a", newline="") as file:
            file.write(self._text(rows))  # in one write, so that no line is ever half there

    def _widen(self, new):
        old = []
        if self._columns:
            with open(self._path, newline="") as file:
                old = list(csv.DictReader(file))
        self._columns += new
        text = self._text([dict(zip(self._columns, self._columns, strict=True)), *old])
        write_atomically(self._path, lambda file: file.write(text.encode()))

    def _text(self, rows):
        out = io.StringIO()
        csv.DictWriter(out, self._columns, restval="", lineterminator="\n").writerows(rows)
        return out.getvalue()


def print_metrics(step: int, metrics: Mapping[str, float]) -> None:
    """Prints one row of the log as a table of names and values."""
    width = max(map(len, metrics), default=0)
    lines = [f"{name:{width}}  {value:.4g}" for name, value in sorted(metrics.items())]
    print(f"step {step:,}", *lines, "", sep="\n")


class Logger:
    """Writes `metrics.csv` (first column `step`), `eval.csv` and TensorBoard events to a folder."""

    def __init__(self, folder: Path):
        self._metrics = CsvTable(folder / "metrics.csv")
        self._evaluations = CsvTable(folder / "eval.csv")
        self._events = EventFileWriter(str(folder))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds a row: metrics by `group/name`; wall-clock ones belong under `time/`."""
        self._metrics.append([{"step": step, **metrics}])
        # One event for all scalars: a tf.summary call for each costs 50 times more.
        values = [Summary.Value(tag=name, simple_value=x) for name, x in metrics.items()]
        summary = Summary(value=values)
        self._events.add_event(Event(wall_time=time.time(), step=step, summary=summary))

    def log_episodes(self, step: int, rows: Sequence[Mapping[str, float]]) -> None:
        """Adds the episodes of an evaluation to `eval.csv`."""
        self._evaluations.append([{"step": step, **row} for row in rows])

    def close(self) -> None:
        self._events.close()
