"""What stops a run on purpose; a user's mistakes are `envs.errors.ConfigError`."""

from dataclasses import fields
from typing import Any

from envs.errors import ConfigError


def check_types(config: Any) -> None:
    """Raises ConfigError unless the dataclass's whole numbers and texts are such."""
    for field in fields(config):
        value = getattr(config, field.name)
        right = isinstance(value, field.type) and (field.type is bool) == isinstance(value, bool)
        if field.type in (int, bool, str) and not right:
            kind = field.type.__name__
            raise ConfigError(f"{field.name} must be of type {kind}, not {value!r}")


class TrainingError(RuntimeError):
    """Training cannot go on; the message names the quantity and the step in one line."""
