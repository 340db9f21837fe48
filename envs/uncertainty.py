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
from envs.errors import ConfigError, check_known

# (name, low, high); the set of n parameters takes the first n.
SETS = {  # 0.25 to 10 of the half-cheetah's friction is a coefficient of 0.1 to 4
    "cheetah": (("friction", 0.25, 10.0), ("torso_mass", 0.1, 7.0), ("mass/bthigh", 0.1, 3.0)),
    "hopper": (("floor_friction", 0.1, 3.0), ("torso_mass", 0.1, 3.0), ("mass/thigh", 0.1, 4.0)),
    "walker": (("floor_friction", 0.1, 4.0), ("torso_mass", 0.1, 5.0), ("mass/thigh", 0.1, 6.0)),
}
CHEETAHS_FIRST = (("friction", 0.25, 7.5),)

POINTS = 10  # values of each parameter
VARIANTS = ("corrected", "as_published")


def uncertainty_set(task: str, count: int) -> Ensemble:
    """The uniform distribution over `task`'s set of `count` parameters, MuJoCo's robots only.

    Raises ConfigError if there is no such set.
    """
    check_known("robot with uncertainty sets", task, SETS)
    if count not in (1, 2, 3):
        raise ConfigError(f"uncertainty sets have 1, 2 or 3 parameters; got {count}")
    box = CHEETAHS_FIRST if (task, count) == ("cheetah", 1) else SETS[task][:count]
    return Ensemble({name: Uniform(low, high) for name, low, high in box})


def uncertainty_grid(task: str, count: int, variant: str) -> dict[str, tuple[float, ...]]:
    """The ten values of each parameter of `uncertainty_set(task, count)` whose product is judged on.

    `corrected` reaches both ends of each range, as M2TD3's grid does. `as_published` is RRLS's,
    `arange(low, high, (high - low) / 10)`, which stops one step short of the upper end; to
    repeat RRLS's figures, step it on `EnvSpec(bare_mass=True)`. Raises ConfigError for an unknown
    set or variant.
    """
    check_known("variant of the grid", variant, VARIANTS)
    grid = {}
    for name, one in uncertainty_set(task, count).items():
        values = np.linspace(one.low, one.high, POINTS, endpoint=variant == "corrected")
        grid[name] = tuple(values.round(9).tolist())  # a command line can say every number
    return grid
