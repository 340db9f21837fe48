"""The one exception type for a user's mistakes, and what a setting may be."""

import difflib
import math
from collections.abc import Collection
from dataclasses import fields
from numbers import Integral, Real
from types import NoneType
from typing import Annotated, Any, get_args

RANGES = {  # what a setting must do -> whether it does
    "be at least 0": lambda x: 0 <= x < math.inf,
    "be at least 1": lambda x: 1 <= x < math.inf,
    "be positive and finite": lambda x: 0 < x < math.inf,
    "be positive and finite, or none": lambda x: x is None or 0 < x < math.inf,
    "lie in [0, 1]": lambda x: 0 <= x <= 1,
    "lie in [0, 1)": lambda x: 0 <= x < 1,
    "lie in (0, 1]": lambda x: 0 < x <= 1,
}
MAX_KNOWN = 12  # names that a message lists: the nearest
NUMBERS: dict[type, type] = {float: Real, int: Integral}  # what does for one
Natural = Annotated[int, "be at least 0"]
Count = Annotated[int, "be at least 1"]
NonNegative = Annotated[float, "be at least 0"]
Positive = Annotated[float, "be positive and finite"]
PositiveOrNone = Annotated[float | None, "be positive and finite, or none"]
Share = Annotated[float, "lie in [0, 1]"]
PositiveShare = Annotated[float, "lie in (0, 1]"]


class ConfigError(ValueError):
    """A user's mistake: its message is one line that says what was wrong and what to do."""


def check_known(kind: str, name: str, choices: Collection[str]) -> None:
    """Raises ConfigError for a name that is none of `choices`, with the nearest one suggested."""
    if name not in choices:
        known = sorted(choices)
        nearest = difflib.get_close_matches(str(name), known, n=1)
        hint = f" did you mean '{nearest[0]}'?" if nearest else ""
        if more := len(known[MAX_KNOWN:]):
            known = sorted(difflib.get_close_matches(str(name), known, n=MAX_KNOWN, cutoff=0))
            known[-1] += f" and {more} more"
        raise ConfigError(f"unknown {kind} '{name}';{hint} known: {', '.join(known) or 'none'}")


def check_at_least(least: int, **named: float) -> None:
    """Raises ConfigError for a number below `least`."""
    for name, value in named.items():
        if value < least:
            raise ConfigError(f"{name} must be at least {least}, not {value}")


def check_fields(config: Any) -> None:
    """Raises ConfigError unless every field of the dataclass holds what its annotation says.

    Annotated[type, range] holds one of `RANGES`, Annotated[str, choices] one of these. Where a
    real number is asked for, a whole one does; a truth value is no number.
    """
    for field in fields(config):
        name, value = field.name, getattr(config, field.name)
        kind = getattr(field.type, "__origin__", field.type)
        kinds = get_args(kind) or (kind,)
        is_one = isinstance(value, tuple(NUMBERS.get(kind, kind) for kind in kinds))
        if not is_one or (isinstance(value, bool) and bool not in kinds):
            text = " or ".join("none" if k is NoneType else k.__name__ for k in kinds)
            raise ConfigError(f"{name} must be of type {text}, not {value!r}")
        for allowed in getattr(field.type, "__metadata__", ()):
            if not isinstance(allowed, str):
                check_known(name, value, allowed)
            elif not RANGES[allowed](value):
                raise ConfigError(f"{name} must {allowed}, not {value}")
