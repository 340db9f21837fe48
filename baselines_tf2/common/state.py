"""The state of a run's parts: what a checkpoint keeps of them."""

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any, ClassVar, Protocol

import numpy as np

# Nested dicts and lists of arrays, numbers, texts, truth values and None.
State = Any


class Part(Protocol):
    """Something with a state of its own."""

    def get_state(self) -> State: ...

    def set_state(self, state: State) -> Any: ...


class Stateful:
    """A part whose state is that of the attributes it names in `STATE`, each without its `_`.

    Of a generator that is its bit generator's state, of another part what its `get_state` gives.
    """

    STATE: ClassVar[Sequence[str]] = ()

    def get_state(self) -> dict[str, State]:
        """What its future depends on."""
        return {name.lstrip("_"): _get_state(getattr(self, name)) for name in self.STATE}

    def set_state(self, state: Mapping[str, State]) -> Any:
        """Puts back what `get_state` gave."""
        for name in self.STATE:
            value, saved = getattr(self, name), state[name.lstrip("_")]
            if isinstance(value, np.random.Generator):
                value.bit_generator.state = saved
            elif hasattr(value, "set_state"):
                value.set_state(saved)
            else:
                setattr(self, name, saved)


def state_of(parts: Mapping[str, Part]) -> State:
    """All parts' states by name, as `Checkpoints.resume` puts them back."""
    return {name: part.get_state() for name, part in parts.items()}


def _get_state(value: Any) -> State:
    if isinstance(value, np.random.Generator):
        return value.bit_generator.state
    return value.get_state() if hasattr(value, "get_state") else copy(value)
