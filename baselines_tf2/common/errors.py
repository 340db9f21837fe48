"""What stops a run on purpose; a user's mistakes are `envs.errors.ConfigError`."""

import math
from collections.abc import Mapping

DIVERGED = "learning diverged (try smaller learning rates)"


class TrainingError(RuntimeError):
    """Training cannot go on; the message names the quantity and the step in one line."""


def check_finite(metrics: Mapping[str, float]) -> None:
    """Raises TrainingError, naming the first metric that is not finite."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise TrainingError(f"{DIVERGED}: {name} is {value}")


class Interrupted(KeyboardInterrupt):
    """The user stopped what ran; the message says how to go on."""
