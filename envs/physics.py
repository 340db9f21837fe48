"""What can be changed about a robot: named physical parameters, on any simulator.

| parameter           | unit             | meaning                                               |
|---------------------|------------------|-------------------------------------------------------|
| `torso_mass`        | kg               | the torso's mass; its inertia scales along            |
| `mass/<body>`       | kg               | the same for any named body                           |
| `friction`          | scale of nominal | every contact's friction                              |
| `floor_friction`    | coefficient      | the floor's alone (MuJoCo only); the larger one counts |
| `damping`           | scale of nominal | joint damping (MuJoCo only)                           |
| `armature`          | scale of nominal | the joints' rotor inertia (MuJoCo only)               |
| `actuator_strength` | scale of nominal | torque for the same action                            |
| `slope`             | degrees          | the ground rises ahead (+x): gravity is tilted        |
| `head_wind`         | m/s              | air blowing against +x; 0 is no air at all            |
| `mass`, `length`    | kg, m            | the pendulum's                                        |
| `cart_mass`         | kg               | cartpole's cart                                       |
| `pole_mass`         | kg               | cartpole's pole, a uniform rod                        |
| `pole_length`       | m                | its whole length; Gymnasium's `length` is half of it  |
| `reward_offset`     | reward per step  | added in training only; no physics, any task          |
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

import numpy as np

from envs.errors import ConfigError, check_known

T = TypeVar("T")

REWARD_OFFSET = "reward_offset"
SCALES = ("friction", "damping", "armature", "actuator_strength")
MAY_BE_ZERO = (*SCALES, "floor_friction")
MASSES_AND_LENGTHS = ("torso_mass", "mass", "length", "cart_mass", "pole_mass", "pole_length")
AIR_DENSITY = 1.2  # [kg/m^3] at sea level and 20 C
AIR_VISCOSITY = 1.8e-5  # [Pa s]

# By simulator, or of Gymnasium's classics by task. Bullet reads neither damping nor armature from
# the robots' files: there is no nominal to scale.
PARAMETERS = {
    "mujoco": ("torso_mass", *MAY_BE_ZERO, "slope", "head_wind"),
    "pybullet": ("torso_mass", "friction", "actuator_strength", "slope", "head_wind"),
    "pendulum": ("mass", "length"),
    "cartpole": ("cart_mass", "pole_mass", "pole_length"),
}


class Physics(Protocol):
    """One simulated robot's parameters and state; each simulator's class fills in the rest."""

    exact_state: bool = True  # whether another one goes on from `get_state` with the same bits
    names: tuple[str, ...]  # its parameters, `mass/<body>` for each of its bodies included

    def read(self, name: str) -> float:
        """The parameter's value as the simulator holds it now; ConfigError if unknown."""
        check_known("parameter of this robot", name, self.names)
        return self._read(name)

    def read_all(self) -> dict[str, float]:
        """Every parameter, by name."""
        return {name: self._read(name) for name in self.names}

    def set(self, values: Mapping[str, float]) -> None:
        """Makes the robot the nominal one but for `values`; what is not named turns nominal.

        Raises ConfigError for an unknown name or an impossible value; then nothing has changed.
        """
        check_values(values, self.names, "this robot")
        self._set(values)

    def get_state(self) -> np.ndarray:
        """The simulation's state [S], from which another simulator of the robot can go on."""

    def set_state(self, state: np.ndarray) -> None:
        """Puts the simulation into a state that `get_state` returned."""

    def before_step(self) -> None:
        """To be called before each step, for forces that a simulator forgets after one."""
        return  # most have none

    def _read(self, name: str) -> float: ...

    def _set(self, values: Mapping[str, float]) -> None: ...


def read_parameters(
    text: str, what: str, kinds: Mapping[int, Callable[..., T]], syntax: str
) -> dict[str, T]:
    """Reads "torso_mass:6,1.5,3,9;friction:0.5,1.5", the one way to write parameters; "" is {}.

    kinds: by how many numbers an entry has what is made of them; 0: of any other number of them.
    A "=" in place of ":" and a "," before a name in place of ";" are read as well. Raises
    ConfigError, which names `what` and the syntax, for a malformed entry or a repeated name.
    """
    found: dict[str, T] = {}
    for entry in filter(None, map(str.strip, re.split(r";|,(?=\s*[A-Za-z_])", text))):
        name, *numbers = map(str.strip, re.split("[:=]", entry, maxsplit=1))
        if name in found:
            raise ConfigError(f"{what} names '{name}' twice: leave one out")
        try:
            values = [float(number) for number in numbers[0].split(",")]
            kind = kinds[len(values)] if len(values) in kinds else kinds[0]
        except (ValueError, IndexError, KeyError):
            raise ConfigError(
                f"cannot read {what} entry '{entry}': write {syntax}, with ';' between several"
            ) from None
        try:
            found[name] = kind(*values)
        except ConfigError as error:
            raise ConfigError(f"{what} entry '{entry}': {error}") from None
    return found


def parse_physics(text: str, field: str = "physics") -> dict[str, float]:
    """Reads "torso_mass:7.5;friction:0.8"; ConfigError for malformed entries, repeated names."""
    return read_parameters(text, field, {1: float}, "'name:value'")


def check_value(name: str, value: float) -> None:
    """Raises ConfigError unless `value` is possible for the parameter `name`."""
    if not isinstance(value, int | float | np.number) or isinstance(value, bool):
        raise ConfigError(f"{name} must be a number; got {value!r}")
    if not math.isfinite(value):
        raise ConfigError(f"{name} must be finite; got {value}")
    low, high = limits(name)
    if name == "slope" and not low < value < high:
        raise ConfigError(f"slope is in degrees and must be between -90 and 90; got {value}")
    if value < low and name in MAY_BE_ZERO:
        kind = "is a scale of the nominal and " if name in SCALES else ""
        raise ConfigError(f"{name} {kind}must be >= 0; got {value}")
    if value <= low and name not in MAY_BE_ZERO:
        raise ConfigError(f"{name} must be positive; got {value}")


def limits(name: str) -> tuple[float, float]:
    """The ends of what is possible for the parameter `name`; of a mass or length 0 is not."""
    if name == "slope":
        return -90.0, 90.0
    unsigned = name in (*MAY_BE_ZERO, *MASSES_AND_LENGTHS) or name.startswith("mass/")
    return 0.0 if unsigned else -math.inf, math.inf


def check_values(values: Mapping[str, float], known: tuple[str, ...], owner: str) -> None:
    """Raises ConfigError unless every name is known and every value possible."""
    for name, value in values.items():
        check_known(f"parameter of {owner}", name, known)
        check_value(name, value)
    if "torso_mass" in values and "mass/torso" in values:
        raise ConfigError("torso_mass and mass/torso are the same body's: set one of them")
    if "floor_friction" in values and "friction" in values:
        raise ConfigError("friction scales the floor's too: set it or floor_friction, not both")
