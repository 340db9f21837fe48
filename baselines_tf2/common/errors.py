"""What stops a run on purpose; a user's mistakes are `envs.errors.ConfigError`."""

import math
from collections.abc import Mapping
from dataclasses import fields
from numbers import Integral, Real
from types import NoneType
from typing import Any, get_args

from envs.errors import ConfigError

DIVERGED = "learning diverged (try smaller learning rates)"


def check_types(config: Any) -> None:
    """Raises ConfigError unless every field of the dataclass holds what its type says.

    Where a real number is asked for, a whole one does; a truth value is no number.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        kinds = get_args(field.type) or (field.type,)
        if not any(_is_a(value, kind) for kind in kinds):
            kind = " or ".join("none" if k is NoneType else k.__name__ for k in kinds)
            raise ConfigError(f"{field.name} must be of type {kind}, not {value!r}")


def _is_a(value: Any, kind: type) -> bool:
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, Real if kind is float else Integral if kind is int else kind)


class TrainingError(RuntimeError):
    """Training cannot go on; the message names the quantity and the step in one line."""


def check_finite(metrics: Mapping[str, float]) -> None:
    """Raises TrainingError, naming the first metric that is not finite."""
    for name, value in metrics.items():
        if not math.isfinite(value):
            raise TrainingError(f"{DIVERGED}: {name} is {value}")


class Interrupted(KeyboardInterrupt):
    """The user stopped the run, whose state was saved first."""
