"""The one exception type for a user's mistakes."""

import difflib
from collections.abc import Collection, Iterable


class ConfigError(ValueError):
    """A user's mistake: its message is one line that says what was wrong and what to do."""


def unknown(kind: str, name: str, choices: Iterable[str]) -> ConfigError:
    """The error for a name that is none of `choices`, with the nearest one suggested.

    >>> raise unknown("parameter", "torso_mas", ["torso_mass", "friction"])
    ConfigError: unknown parameter 'torso_mas'; did you mean 'torso_mass'? known: torso_mass, ...
    """
    name, choices = str(name), sorted(choices)
    nearest = difflib.get_close_matches(name, choices, n=1)
    hint = f" did you mean '{nearest[0]}'?" if nearest else ""
    return ConfigError(f"unknown {kind} '{name}';{hint} known: {', '.join(choices)}")


def check_known(kind: str, name: str, choices: Collection[str]) -> None:
    """Raises what `unknown` gives for a name that is none of `choices`."""
    if name not in choices:
        raise unknown(kind, name, choices)
