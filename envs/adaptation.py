"""Moving an ensemble towards a target robot, from its transitions (EPOpt, 1610.01283)."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import gymnasium as gym
import numpy as np
from scipy.special import logsumexp

from envs.ensemble import Ensemble, TruncatedNormal
from envs.errors import ConfigError
from envs.wrappers import RobotEnsemble, find_robot

PROPOSAL_WIDTH = 2.0  # the proposal's std over the prior's: a wrong prior can still be left
MAX_NARROWING = 4.0  # of a std in one round: a single surviving sample must not end the search


class Transition(NamedTuple):
    """One step of a target robot."""

    state0: np.ndarray  # [S] Physics.get_state() before the step
    action: np.ndarray  # [A]; [] if the actions are discrete
    obs1: np.ndarray  # [O] the robot's observation afterwards, without noise and distractors


class Adaptation(NamedTuple):
    """The moved ensemble, and how many samples in effect carried the estimate."""

    ensemble: Ensemble
    effective_samples: float  # 1 / sum(w^2), from 1 (one sample has all weight) to num_samples


LogLikelihood = Callable[[Mapping[str, float], Sequence[Transition]], float]


def adapt(
    ensemble: Ensemble,
    transitions: Sequence[Transition],
    log_likelihood: LogLikelihood,
    num_samples: int,
    rng: np.random.Generator,
) -> Adaptation:
    """Moves `ensemble` to where robots explain `transitions` (EPOpt, 1610.01283).

    `num_samples` robots p_i come from a proposal: the ensemble with twice its stds. Each has the
    weight w_i = exp(log_likelihood(p_i, transitions)) * ensemble(p_i) / proposal(p_i), normalised.
    The answer's means and stds are the weighted samples'; each parameter keeps its range. Of the
    weighted covariance only the diagonal is kept: an Ensemble's parameters are independent, so
    that with several of them a ridge of equally likely robots becomes the box around it. One
    round narrows a std at most fourfold. Bring new transitions to each round: the same ones
    would count twice. Raises ConfigError if there is nothing to sample or to explain.
    """
    if not ensemble or not transitions or num_samples < 2:
        raise ConfigError("adapt needs an ensemble, transitions and at least 2 samples")
    proposal = Ensemble({name: _widened(one) for name, one in ensemble.items()})
    samples = [proposal.draw(rng) for _ in range(num_samples)]
    log_weights = np.array(
        [
            log_likelihood(values, transitions)
            + ensemble.log_density(values)
            - proposal.log_density(values)
            for values in samples
        ]
    )
    if not np.isfinite(log_weights).any():
        raise ConfigError("no sampled robot explains the transitions: widen the ensemble")
    weights = np.exp(log_weights - logsumexp(log_weights))
    moved = {
        name: _moved(one, np.array([values[name] for values in samples]), weights)
        for name, one in ensemble.items()
    }
    return Adaptation(Ensemble(moved), float(1 / np.sum(weights**2)))


def _widened(one: TruncatedNormal) -> TruncatedNormal:
    return TruncatedNormal(one.mean, one.std * PROPOSAL_WIDTH, one.low, one.high)


def _moved(one: TruncatedNormal, samples: np.ndarray, weights: np.ndarray) -> TruncatedNormal:
    """`samples` [N] of one parameter with `weights` [N] that sum to 1."""
    mean = float(np.clip(weights @ samples, one.low, one.high))
    std = float(np.sqrt(weights @ (samples - mean) ** 2))
    return TruncatedNormal(mean, max(std, one.std / MAX_NARROWING), one.low, one.high)


def record_transitions(
    env: gym.Env, policy: Callable[[np.ndarray], np.ndarray], steps: int, seed: int
) -> list[Transition]:
    """`steps` transitions of the target robot `env` under `policy`, obs [O] -> action [A]."""
    robot = find_robot(env)
    observation, _ = robot.reset(seed=seed)
    transitions = []
    for _ in range(steps):
        state0, action = robot.physics.get_state(), np.array(policy(observation))
        observation, _, terminated, _, _ = robot.step(action)
        transitions.append(Transition(state0, action, np.array(observation)))
        if terminated:
            observation, _ = robot.reset()
    return transitions


def simulator_log_likelihood(env: gym.Env, error: float) -> LogLikelihood:
    """The likelihood of transitions under `env`'s simulator with other parameters.

    Each transition is simulated for one step from its state0. The difference of the observations
    is Gaussian and independent in each dimension, with `error` times the std of the transitions'
    obs1 in that dimension. `env`'s episode is lost. Raises ConfigError unless error > 0.
    """
    if not error > 0:
        raise ConfigError(f"error must be positive; got {error}")
    robot = find_robot(env)
    robot.reset(seed=0)

    def log_likelihood(values: Mapping[str, float], transitions: Sequence[Transition]) -> float:
        observed = np.array([one.obs1 for one in transitions], dtype=np.float64)
        scale = error * (observed.std(axis=0) + 1e-8)  # an entry that never moves tells nothing
        robot.place(values)
        z = (np.array([_predict(robot, one) for one in transitions]) - observed) / scale
        return float(-0.5 * np.sum(z**2) - len(z) * np.sum(np.log(scale * np.sqrt(2 * np.pi))))

    return log_likelihood


def _predict(robot: RobotEnsemble, transition: Transition) -> np.ndarray:
    robot.physics.set_state(transition.state0)
    return robot.step(transition.action)[0]
