"""Ensembles of robots: where each episode's physical parameters come from (EPOpt, 1610.01283)."""

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from envs.errors import ConfigError
from envs.physics import read_parameters

SYNTAX = "'name:mean,std,low,high' or 'name:low,high'"


def _numbers(one: Any) -> str:
    """A dataclass's numbers, as the shortest text that reads back as the same ones."""
    return ",".join(repr(float(x)).removesuffix(".0") for x in astuple(one))


@dataclass(frozen=True)
class TruncatedNormal:
    """A normal(mean, std) conditioned on [low, high], all four in the parameter's own unit.

    `mean` and `std` are the untruncated normal's, as in EPOpt's tables. Raises ConfigError
    unless all are finite, std > 0 and low <= mean <= high with low < high.
    """

    mean: float
    std: float
    low: float
    high: float
    __str__ = _numbers

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, astuple(self))) or self.std <= 0:
            raise ConfigError(f"truncated normal {self}: needs finite numbers, std > 0")
        if not (self.low < self.high and self.low <= self.mean <= self.high):
            raise ConfigError(f"truncated normal {self}: needs low <= mean <= high and low < high")

    def quantile(self, share: Any) -> Any:
        """The value below which `share` of the probability lies; of shares [N] the values [N]."""
        low, high = ndtr((np.array([self.low, self.high]) - self.mean) / self.std)
        value = self.mean + self.std * ndtri(low + (high - low) * share)
        return np.clip(value, self.low, self.high)  # rounding may step over an end


@dataclass(frozen=True)
class Uniform:
    """Every value in [low, high] alike; ConfigError unless both are finite and low < high."""

    low: float
    high: float
    __str__ = _numbers

    def __post_init__(self) -> None:
        if not -math.inf < self.low < self.high < math.inf:
            raise ConfigError(f"uniform {self}: needs finite numbers, low < high")

    def quantile(self, share: float) -> float:
        """The value below which `share` of the probability lies."""
        return min(self.low + (self.high - self.low) * share, self.high)


class Ensemble(dict[str, TruncatedNormal | Uniform]):
    """Independent distributions by parameter name; empty for the nominal robot."""

    @classmethod
    def parse(cls, text: str) -> "Ensemble":
        """Reads "torso_mass:6,1.5,3,9;friction:0.5,1.5"; "" is the empty ensemble.

        Four numbers are a TruncatedNormal's, two a Uniform's. Raises ConfigError for a malformed
        entry, an invalid distribution or a repeated name.
        """
        return cls(read_parameters(text, "ensemble", {2: Uniform, 4: TruncatedNormal}, SYNTAX))

    def draw(self, rng: np.random.Generator) -> dict[str, float]:
        """One robot: for each parameter, in the order of the names, the quantile of one number."""
        return {name: float(one.quantile(rng.random())) for name, one in self.items()}

    def ends(self) -> tuple[dict[str, float], dict[str, float]]:
        """The robots with every parameter at its low and at its high: the limits of any draw."""
        return {k: one.low for k, one in self.items()}, {k: one.high for k, one in self.items()}

    def __str__(self) -> str:
        return ";".join(f"{name}:{one}" for name, one in self.items())


def worst_episodes(returns: Sequence[float] | np.ndarray, epsilon: float) -> np.ndarray:
    """Indices of the worst epsilon-quantile of the episodes, worst first (EPOpt, 1610.01283).

    `returns` [N] are one batch's undiscounted returns. floor(epsilon * N) episodes, at least one,
    ties by order of collection. Raises ConfigError for an empty or non-finite `returns`, or
    epsilon outside (0, 1].
    """
    returns = np.asarray(returns, dtype=np.float64)
    if returns.ndim != 1 or returns.size == 0 or not np.isfinite(returns).all():
        raise ConfigError(f"returns must be finite numbers, shape [N], N > 0; got {returns}")
    if not 0 < epsilon <= 1:
        raise ConfigError(f"epsilon must be in (0, 1]; got {epsilon}")
    count = max(1, math.floor(epsilon * returns.size + 1e-9))  # 0.29 * 100 is 28.999999999999996
    return np.argsort(returns, kind="stable")[:count]
