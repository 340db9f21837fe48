"""Uncertainty sets of the robust-control literature: uniform boxes, and grids to judge on.

M2TD3 (arXiv 2211.03413) defines them, RRLS (arXiv 2406.08406) registers the same, but for the
half-cheetah's first: friction to 4 in M2TD3, to 3 in RRLS and here. Masses are theirs, in kg.
Their `worldfriction` is an absolute coefficient, and not the same thing for every robot: of all
geoms of the half-cheetah, which our `friction` says exactly as a scale of its nominal 0.4, since
its contacts know sliding friction alone; of the floor alone for hopper and walker, which is our
`floor_friction`. There a contact takes the larger of the two geoms' coefficients, so that nothing
below the foot's own (2.0 and 1.9) changes how these robots stand.
"""

import numpy as np

from envs.ensemble import Ensemble, Uniform
from envs.errors import ConfigError, unknown

CHEETAH_FRICTION = 0.4  # the nominal coefficient of all its geoms

# (name, low, high) in the sources' units; the set of n parameters takes the first n.
SETS = {
    "cheetah": (("friction", 0.1, 4.0), ("torso_mass", 0.1, 7.0), ("mass/bthigh", 0.1, 3.0)),
    "hopper": (("floor_friction", 0.1, 3.0), ("torso_mass", 0.1, 3.0), ("mass/thigh", 0.1, 4.0)),
    "walker": (("floor_friction", 0.1, 4.0), ("torso_mass", 0.1, 5.0), ("mass/thigh", 0.1, 6.0)),
}
CHEETAHS_FIRST = (("friction", 0.1, 3.0),)

VARIANTS = ("corrected", "as_published")


def uncertainty_set(task: str, count: int) -> Ensemble:
    """The uniform distribution over `task`'s set of `count` parameters, MuJoCo's robots only.

    Raises ConfigError if there is no such set.
    """
    box = _box(task, count)
    return Ensemble({name: Uniform(*_in_our_unit(name, [low, high])) for name, low, high in box})


def uncertainty_grid(
    task: str, count: int, variant: str, points: int = 10
) -> dict[str, tuple[float, ...]]:
    """The values of each parameter of `uncertainty_set(task, count)` whose product is judged on.

    `corrected` reaches both ends of each range, as M2TD3's grid does. `as_published` is RRLS's,
    `arange(low, high, (high - low) / points)`, which stops one step short of the upper end; to
    repeat RRLS's figures, step it on `EnvSpec(bare_mass=True)`. Raises ConfigError for an unknown
    set or variant, or points < 2.
    """
    if variant not in VARIANTS:
        raise unknown("variant of the grid", variant, VARIANTS)
    if points < 2:
        raise ConfigError(f"a grid needs at least 2 points for each parameter; got {points}")
    grid = {}
    for name, low, high in _box(task, count):
        if variant == "corrected":
            values = np.linspace(low, high, points)
        else:
            values = np.arange(low, high, (high - low) / points)
        grid[name] = _in_our_unit(name, values)
    return grid


def _box(task: str, count: int) -> tuple[tuple[str, float, float], ...]:
    if task not in SETS:
        raise unknown("robot with uncertainty sets", task, SETS)
    if count not in (1, 2, 3):
        raise ConfigError(f"uncertainty sets have 1, 2 or 3 parameters; got {count}")
    return CHEETAHS_FIRST if (task, count) == ("cheetah", 1) else SETS[task][:count]


def _in_our_unit(name: str, values) -> tuple[float, ...]:
    """Rounded, so that 3 / 0.4 is 7.5 and a command line can say every number."""
    scale = CHEETAH_FRICTION if name == "friction" else 1.0
    return tuple((np.asarray(values) / scale).round(9).tolist())
