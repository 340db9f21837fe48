"""What a command line needs beside its flags: counts, errors in one line, and tables of text."""

import bdb
import errno
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import tensorflow as tf
from absl import flags

from baselines_tf2.common.errors import Interrupted, TrainingError
from baselines_tf2.common.experiment import Experiment, whole_number
from envs.errors import ConfigError


class Count(flags.ArgumentParser):
    """A whole number, also as 2e4."""

    def flag_type(self) -> str:
        return "whole number"

    def parse(self, argument: str | int) -> int:
        try:
            return whole_number(str(argument))
        except (ValueError, OverflowError):
            raise ValueError("it must be a whole number") from None


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Ends the process with a line that says what is wrong, where it is not the program."""
    try:
        yield
    except (ConfigError, TrainingError, Interrupted) as error:
        sys.exit(f"error: {error}")
    except (MemoryError, tf.errors.ResourceExhaustedError):
        sys.exit("error: not enough memory: make agent.replay_size or the networks smaller")
    except (KeyboardInterrupt, bdb.BdbQuit):
        sys.exit("error: interrupted")
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        cure = "choose another --logdir or --out"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            cure = "make room; --resume then goes on from the latest checkpoint"
        sys.exit(f"error: {error.strerror or error}{where}: {cure}")


def print_table(experiments: Mapping[str, Experiment]) -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--list | head` is no mistake
    rows = [(x.name, x.description, " ".join(x.backends), x.source) for x in experiments.values()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True))
        print(line.rstrip())


def print_summary(summary: dict[str, str]) -> None:
    for name, text in summary.items():
        print(f"{name}\n{text}" if "\n" in text else f"{name:9}{text}")
