"""Keeps simulators' greetings off the terminal."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def silent_streams() -> Iterator[None]:
    """Sends file descriptors 1 and 2 to nowhere; exceptions pass, and nothing else is changed.

    Bullet prints from C, out of reach of contextlib.redirect_stdout. Not for use while other
    threads print.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(fd) for fd in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for fd in (1, 2):
            os.dup2(nowhere, fd)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for fd, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, fd)
            os.close(copy)
        os.close(nowhere)
