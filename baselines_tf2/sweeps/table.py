"""The live table of many runs; in a file, a line for each change of state."""

import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import NamedTuple

STATES = ("running", "retried", "failed", "waiting", "finished")  # the first are shown first


class Report(NamedTuple):
    """How far a run is; None is not known."""

    step: int | None = None
    total: int | None = None
    episode_return: float | None = None
    speed: float | None = None  # [steps/s]
    notes: tuple[str, ...] = ()  # all that the user is to be told


@dataclass
class Row:
    """What the driver knows of a run."""

    name: str
    state: str = "waiting"
    losses: int = 0  # of the processes it ran in
    report: Report = field(default_factory=Report)
    error: str = ""
    idle_losses: int = 0  # since a loss before which the run had come further than ever
    furthest: int = 0  # step


class Table:
    """Shows rows on stdout, redrawn in place if that is a terminal."""

    def __init__(self, rows: Sequence[Row]):
        self._rows, self._start = rows, time.monotonic()
        self._live, self._height = sys.stdout.isatty(), 0

    def change(self, row: Row, state: str, why: str = "") -> None:
        """Puts a row into another state, and says so where there is no table to show it."""
        row.state, row.error = state, why if state == "failed" else ""
        if not self._live:
            detail = why or (_facts(row.report) if state in ("running", "finished") else "")
            print(f"{row.name}: {state}" + (f", {detail}" if detail else ""), flush=True)

    def note(self, row: Row, text: str) -> None:
        """Shows a line for good; a table is drawn anew below it."""
        if self._live and self._height:
            print(f"\x1b[{self._height}A\r\x1b[J", end="")
            self._height = 0
        print(f"{row.name}: {text}", flush=True)

    def draw(self) -> None:
        """Draws the table over the last one."""
        if self._live:
            columns, height = shutil.get_terminal_size()
            # The last line stays empty, for the cursor.
            lines = render(self._rows, time.monotonic() - self._start, columns, height - 1)
            up = f"\x1b[{self._height}A" if self._height else ""
            print(f"{up}\r\x1b[J" + "\n".join(lines), flush=True)
            self._height = len(lines)


def render(rows: Sequence[Row], seconds: float, columns: int, height: int) -> list[str]:
    """The table, `seconds` after the start, cut to the terminal: what runs or failed goes first."""
    counts = [(state, sum(row.state == state for row in rows)) for state in STATES]
    title = f"{len(rows)} runs: " + ", ".join(f"{n} {state}" for state, n in counts if n)
    shown = list(rows)
    room = max(height - 2, 1)  # beside the title and the names of the columns
    if len(rows) > room:
        urgent = sorted(range(len(rows)), key=lambda i: (STATES.index(rows[i].state), i))
        shown = [rows[i] for i in sorted(urgent[: room - 1])]
    cells = [("run", "state", "steps", "episode return", "steps/s", "left"), *map(_cells, shown)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [f"{title}; {_clock(seconds)}"]
    for (name, state, *numbers), error in zip(cells, ["", *(r.error for r in shown)], strict=True):
        right = (text.rjust(width) for text, width in zip(numbers, widths[2:], strict=True))
        rest = (error,) if error else right
        lines.append("  ".join((name.ljust(widths[0]), state.ljust(widths[1]), *rest)).rstrip())
    if len(shown) < len(rows):
        lines.append(f"and {len(rows) - len(shown)} more")
    return [line[: max(columns - 1, 1)] for line in lines[: max(height, 1)]]


def _cells(row: Row) -> tuple[str, ...]:
    step, total, episode_return, speed, _ = row.report
    steps = "" if step is None else f"{step:,}"
    left = ""
    if row.state == "running" and step is not None and total and speed:
        left = _clock(max(total - step, 0) / speed)
    # What a process does before its first step: load libraries, compile.
    state = "starting" if row.state == "running" and step is None else row.state
    steps = f"{steps}/{total:,}" if total else steps
    latest = "" if episode_return is None else f"{episode_return:.1f}"
    return row.name, state, steps, latest, f"{speed:,.0f}" if speed else "", left


def _facts(report: Report) -> str:
    parts = [] if report.step is None else [f"{report.step:,} steps"]
    if report.episode_return is not None:
        parts.append(f"latest episode's return {report.episode_return:.1f}")
    return ", ".join(parts)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))
