"""What a command line needs beside its flags: counts, errors in one line, tables, bar, signals."""

import bdb
import errno
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import tensorflow as tf
from absl import flags
from tqdm import tqdm

from baselines_tf2.common.errors import Interrupted, TrainingError
from baselines_tf2.runs.experiment import Experiment, whole_number
from envs.errors import ConfigError


class Count(flags.ArgumentParser):
    """A whole number, also as 2e4."""

    def parse(self, argument: str | int) -> int:
        return whole_number(str(argument))


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
        cure = "choose another folder"
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


class StopRequest:
    """What Ctrl-C and SIGTERM ask for: the first time to stop when the state is whole."""

    def __init__(self):
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def __call__(self) -> bool:
        return self.asked

    def _ask(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this cycle; once more stops at once", file=sys.stderr)


class Bar(AbstractContextManager):
    """A tqdm bar of steps, steps per second, time left and return; closed with its `with` block."""

    def __init__(self):
        self._bar: Any = None  # tqdm's, once it starts
        self._began = time.perf_counter()
        self._first = self._step = 0  # where this process began, and where it is

    def start(self, total: int) -> None:
        self._bar = tqdm(total=total, unit="step", unit_scale=True, disable=None, mininterval=0.5)

    def update(self, step: int, episode_return: float | None) -> None:
        if episode_return is not None:
            self._bar.set_postfix({"return": f"{episode_return:.1f}"}, refresh=False)
        self._bar.update(step - self._step)
        self._step = step

    def resume(self, step: int) -> None:
        self._first = self._step = step
        # last_print_n: from where tqdm measures its speed.
        self._bar.initial = self._bar.n = self._bar.last_print_n = step
        self._bar.refresh()

    def tell(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr)

    def __exit__(self, error, *_) -> None:
        """Says how fast the steps were, unless the run ended with an error."""
        if self._bar is not None:
            self._bar.close()
        seconds, done = time.perf_counter() - self._began, self._step - self._first
        if done and error is None:
            print(f"\n{done:,} steps in {seconds:.0f} s, {done / seconds:,.0f} per second")
