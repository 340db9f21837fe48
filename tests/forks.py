"""The driver without the seconds of its imports: in forks of a process that has them, or here."""

import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from multiprocessing.process import BaseProcess
from pathlib import Path

import tensorflow as tf
from absl import app

import run_experiments

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["run_experiments"])
SIGNALS = signal.SIGINT, signal.SIGTERM


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
    os.environ.pop("XLA_FLAGS", None)  # compiles as a user's process does
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(output / name, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["run_experiments.py", *flags]
    if fault is not None:
        fault()
    app.run(run_experiments.main, flags_parser=run_experiments._parse_flags)


def here(arguments: Sequence[str]) -> tuple[int, str, str]:
    """The driver's main in this process, left as it was: exit status, stdout and stderr."""
    for flag in run_experiments.FLAGS.flags_by_module_dict()["run_experiments"]:
        flag.unparse()
    others = run_experiments.FLAGS(["run_experiments.py", *arguments])
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    out, err, status = io.StringIO(), io.StringIO(), 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            run_experiments.main(others)
    except SystemExit as error:  # a text, which Python prints
        status = 1
        err.write(f"{error.code}\n")
    finally:
        tf.config.run_functions_eagerly(False)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return status, out.getvalue(), err.getvalue()
