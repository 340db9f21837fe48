"""Processes of the driver, forked from one that has imported it, for the six seconds that this takes."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from absl import app

import run_experiments

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["run_experiments"])


def fork(
    output: Path, flags: Sequence[str], fault: Callable[[], None] | None = None
) -> BaseProcess:
    """Starts `python run_experiments.py` with these flags, which writes to the files out and err.

    fault: called in the process before the driver's main.
    """
    process = FORKS.Process(target=_drive, args=(output, flags, fault))
    process.start()
    return process


def _drive(output, flags, fault):
    """A forked process's whole life."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(output / name, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["run_experiments.py", *flags]
    if fault is not None:
        fault()
    app.run(run_experiments.main, flags_parser=run_experiments._parse_flags)
