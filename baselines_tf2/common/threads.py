"""Threads of the numeric libraries, to be set before these are imported.

Pools would fight with the thread that steps, and with another number of threads sums round to other
bits: a run's are part of its record.
"""

import os

VARIABLES = ("OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")


def set_threads() -> None:
    """One thread an operation, unless the user's environment says otherwise."""
    for name in VARIABLES:
        os.environ.setdefault(name, "1")


def threads() -> dict[str, str]:
    """What is set, by environment variable."""
    return {name: os.environ.get(name, "not set") for name in VARIABLES}
