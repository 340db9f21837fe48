"""Moving an ensemble towards a target robot, from its transitions (EPOpt, 1610.01283)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import gymnasium as gym
import numpy as np
from scipy.special import logsumexp

from envs.ensemble import Ensemble, TruncatedNormal
from envs.errors import ConfigError
from envs.physics import limits
from envs.wrappers import find_robot

PROPOSAL_WIDTH = 2.0  # the proposal's std over the prior's: a wrong prior can still be left
MAX_NARROWING = 4.0  # of a std in one round: a single surviving sample must not end the search
REACH = 8.0  # [stds] how far from the mean robots are proposed
NEAREST = 0.1  # to an impossible value, over the mean's own distance from it
ROUNDING = 1e-6  # [stds] outside its range: no mean that has left it
TEMPERING, LEAST_POWER = 0.8, 1e-12  # a step of the likelihood's power, and its end
HALF_RANGE = 2.0  # [stds] around a mean that has left its range, as in EPOpt's [3, 9] kg


class TargetStep(NamedTuple):
    """One step of a target robot."""

    state0: np.ndarray  # [S] Physics.get_state() before the step
    action: np.ndarray  # [A]; [] if the actions are discrete
    obs1: np.ndarray  # [O] the robot's observation afterwards, without noise and distractors


LogLikelihood = Callable[[Mapping[str, float], Sequence[TargetStep]], float]


def adapt(
    ensemble: Ensemble,
    transitions: Sequence[TargetStep],
    log_likelihood: LogLikelihood,
    num_samples: int,
    rng: np.random.Generator,
    least_effective: float = 1.0,
) -> tuple[Ensemble, float]:
    """Moves `ensemble` to where robots explain `transitions` (EPOpt, 1610.01283).

    What moves is each parameter's normal(mean, std), not cut at [low, high]: the target may lie
    outside. `num_samples` robots p_i come from a proposal, that normal with twice its std on
    possible values. Each has the weight w_i = exp(log_likelihood(p_i, transitions)) * prior(p_i) /
    proposal(p_i), normalised. With M, S the weighted samples' mean and std, and M0, S0 the same
    without the likelihood, the answer has

        std' = std S / S0,   mean' = M - (M0 - mean) S / S0:

    transitions that say nothing leave it as it was. Where fewer than `least_effective` samples, or
    half of those that carry the prior, would carry all weight, the likelihood is raised to a power
    below 1: what one lucky sample has by chance is not mistaken for known. One round narrows a std
    at most to a quarter, nor below a quarter of the mean's move. A range stays, unless its mean
    leaves it: then it grows to two stds beyond. Of the weighted covariance only the diagonal is
    kept, as an Ensemble's parameters are independent. Bring new transitions to each round: the same
    ones would count twice.

    Returns the moved ensemble, and how many samples in effect carried the estimate: 1 / sum(w^2),
    from 1 (one sample has all weight) to `num_samples`. Raises ConfigError if there is nothing to
    sample or to explain, or for a uniform parameter.
    """
    if not ensemble or not transitions or num_samples < 2:
        raise ConfigError("adapt needs an ensemble, transitions and at least 2 samples")
    normals = {name: one for name, one in ensemble.items() if isinstance(one, TruncatedNormal)}
    for name in [name for name in ensemble if name not in normals]:
        raise ConfigError(f"a uniform {name} cannot be adapted: write {name}:mean,std,low,high")
    drawn, ratio = {}, np.zeros(num_samples)  # of prior and proposal, its logarithm
    for name, one in normals.items():
        ends = _within_limits(name, one.mean, REACH * one.std)
        proposal = TruncatedNormal(one.mean, PROPOSAL_WIDTH * one.std, *ends)
        # A Latin hypercube: one robot of each of N equally likely parts.
        shares = (rng.permutation(num_samples) + rng.random(num_samples)) / num_samples
        drawn[name] = proposal.quantile(shares)
        # But for a constant: both are normals of one mean, cut at the same ends.
        z = (drawn[name] - one.mean) / one.std
        ratio -= 0.5 * (1 - PROPOSAL_WIDTH**-2) * z**2
    robots = np.transpose([*drawn.values()]).tolist()
    log_likelihoods = np.array(
        [log_likelihood(dict(zip(drawn, robot, strict=True)), transitions) for robot in robots]
    )
    if not np.isfinite(log_likelihoods).any():
        raise ConfigError("no sampled robot explains the transitions: widen the ensemble")
    before, weights, power = _normalised(ratio), _normalised(ratio + log_likelihoods), 1.0
    least = min(least_effective, _effective(before) / 2)
    while _effective(weights) < least and power > LEAST_POWER:
        power *= TEMPERING
        weights = _normalised(ratio + power * log_likelihoods)
    moved = {name: _moved(name, one, drawn[name], before, weights) for name, one in normals.items()}
    return Ensemble(moved), _effective(weights)


def _within_limits(name: str, mean: float, reach: float) -> tuple[float, float]:
    """[mean - reach, mean + reach], if need be less, a distance from what is impossible."""
    low, high = limits(name)
    share = 1 - NEAREST
    return mean - min(reach, share * (mean - low)), mean + min(reach, share * (high - mean))


def _normalised(log_weights: np.ndarray) -> np.ndarray:
    """Weights [N] that sum to 1; none for a robot whose simulation failed."""
    log_weights = np.where(np.isfinite(log_weights), log_weights, -np.inf)
    return np.exp(log_weights - logsumexp(log_weights))


def _effective(weights: np.ndarray) -> float:
    """How many samples carry the weight [N]."""
    return float(1 / np.sum(weights**2))


def _moved(
    name: str, one: TruncatedNormal, samples: np.ndarray, before: np.ndarray, weights: np.ndarray
) -> TruncatedNormal:
    """`samples` [N] of one parameter, their weights [N] before and after the transitions."""
    mean0, mean = before @ samples, weights @ samples
    std0, std = np.sqrt(before @ (samples - mean0) ** 2), np.sqrt(weights @ (samples - mean) ** 2)
    possible = _within_limits(name, one.mean, REACH * one.std)
    mean = np.clip(mean - (mean0 - one.mean) * std / std0, *possible)
    std = max(one.std * std / std0, max(one.std, abs(mean - one.mean)) / MAX_NARROWING)
    low, high = one.low, one.high
    if not low - ROUNDING * std <= mean <= high + ROUNDING * std:
        nearest = _within_limits(name, mean, HALF_RANGE * std)
        low, high = min(low, nearest[0]), max(high, nearest[1])
    return TruncatedNormal(*map(float, (min(max(mean, low), high), std, low, high)))


@contextmanager
def recorded(env: gym.Env) -> Iterator[list[TargetStep]]:
    """The list to which `env`, from make_env, adds its steps meanwhile.

    They are recorded at the robot, below noise and distractors: its action is the noisy one.
    """
    robot = find_robot(env)
    step, transitions = robot.step, list[TargetStep]()

    def recording(action: np.ndarray) -> tuple:
        state0, action = robot.physics.get_state(), np.array(action)
        answer = step(action)
        transitions.append(TargetStep(state0, action, np.array(answer[0])))
        return answer

    robot.step = recording  # type: ignore[method-assign]  # this one robot's alone
    try:
        yield transitions
    finally:
        del robot.step


def simulator_log_likelihood(env: gym.Env, error: float) -> LogLikelihood:
    """The likelihood of transitions under `env`'s simulator with other parameters.

    `env` is of one robot; what a sample does not name stays as it is there. Each transition is
    simulated for one step from its state0. The difference of the observations is Gaussian and
    independent in each dimension, with `error` times the std of the transitions' obs1 in that
    dimension. `env`'s episode is lost. Raises ConfigError unless error > 0.
    """
    if not error > 0:
        raise ConfigError(f"error must be positive; got {error}")
    robot = find_robot(env)
    robot.reset(seed=0)
    fixed = robot.placed

    def log_likelihood(values: Mapping[str, float], transitions: Sequence[TargetStep]) -> float:
        observed = np.array([one.obs1 for one in transitions], dtype=np.float64)
        scale = error * (observed.std(axis=0) + 1e-8)  # an entry that never moves tells nothing
        robot.place({**fixed, **values})
        predicted = []
        for one in transitions:
            robot.physics.set_state(one.state0)
            predicted.append(robot.step(one.action)[0])
        z = (np.array(predicted) - observed) / scale
        return float(-0.5 * np.sum(z**2) - len(z) * np.sum(np.log(scale * np.sqrt(2 * np.pi))))

    return log_likelihood
