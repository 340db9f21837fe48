"""Which runs a sweep consists of: seeds, and every combination of settings given more than once."""

import hashlib
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

from envs.errors import ConfigError

MAX_SEED = 2**31 - 1
MAX_NAME = 150  # characters of a folder; file systems take 255


class Variant(NamedTuple):
    """One combination of overrides."""

    name: str  # of its folder: what tells it from the others; "" if there are none
    overrides: tuple[str, ...]


def parse_seeds(text: str) -> list[int]:
    """Reads "0-9" or "0,3,5-7"; ConfigError for what is no seed, or is named twice."""
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match:
            raise ConfigError(f"cannot read seeds '{text}': write --seeds=0-9 or --seeds=0,3,5-7")
        low, high = int(match[1]), int(match[2] or match[1])
        if not low <= high <= MAX_SEED:
            raise ConfigError(f"seeds {part.strip()} must rise, and end at {MAX_SEED} at most")
        seeds += range(low, high + 1)
    if len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds '{text}' name one twice: leave it out")
    return seeds


def variants(overrides: Sequence[str]) -> list[Variant]:
    """Every combination of the values of settings that are given more than once.

    overrides: "path.to.field=value" each. Raises ConfigError where a value is given twice.
    """
    values: dict[str, list[str]] = {}
    for text in overrides:
        given = values.setdefault(text.partition("=")[0], [])
        if text in given:
            raise ConfigError(f"override '{text}' is given twice: leave one out")
        given.append(text)
    fixed = {given[0] for given in values.values() if len(given) == 1}
    return [
        Variant(_folder_name([text for text in chosen if text not in fixed]), chosen)
        for chosen in itertools.product(*values.values())
    ]


def _folder_name(overrides: Sequence[str]) -> str:
    text = ",".join(overrides)
    name = re.sub(r"[^\w.=,+-]", "_", text)
    if len(name) <= MAX_NAME:
        return name
    return f"{name[:MAX_NAME]}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
