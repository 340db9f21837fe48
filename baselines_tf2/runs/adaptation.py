"""Adapting the robots that are trained on to a target robot, while training goes on."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import gymnasium as gym
import numpy as np

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.rollout import Policy, failing_at
from baselines_tf2.common.state import Stateful
from baselines_tf2.runs.judging import run_episode
from envs import Ensemble, EnvSpec, TruncatedNormal, adapt, find_robot, make_env
from envs.adaptation import recorded, simulator_log_likelihood
from envs.errors import ConfigError
from envs.physics import REWARD_OFFSET

# Each adaptation: whole episodes of the target, this many of their transitions, this many robots
# that are asked to explain them, how well these can [the observations' stds], and how many of
# them must have a say.
EPISODES, TRANSITIONS, ROBOTS, ERROR, LEAST = 2, 100, 64, 0.03, 8


class TargetAdaptation(Stateful):
    """Every so many steps moves the ensemble of `envs` to where it explains the target robot.

    EPOpt (arXiv 1610.01283), section 3.2, with whole episodes of the policy without exploration.
    Their steps are neither counted nor stored: the agent learns in simulation alone. What the
    target shows of itself is its observations, so that `reward_offset` stays as it is. Raises
    ConfigError as `make_env` does.
    """

    STATE = ("_last", "_rounds", "_steps", "_latest", "_rng")

    def __init__(self, envs: Sequence[gym.Env], spec: EnvSpec, every: int, seed: int):
        self._envs, self._every, self._last = envs, every, 0
        self._rng = np.random.default_rng(seed)
        one = replace(spec, ensemble="", target="")
        both = ",".join(filter(None, (spec.physics, spec.target)))
        self._target = make_env(replace(one, physics=both), training=False)
        self._explains = simulator_log_likelihood(make_env(one, training=False), ERROR)
        self._rounds = self._steps = 0
        self._latest: dict[str, float] = {}

    def after_cycle(self, step: int, policy: Callable[[], Policy]) -> None:
        """Adapts where another interval of steps is over; raises TrainingError as episodes do."""
        before, self._last = self._last, step
        if step // self._every == before // self._every:
            return
        with failing_at(step):
            self._adapt(policy)

    def _adapt(self, policy):
        with recorded(self._target) as transitions:
            greedy, seeds = policy(), self._rng.integers(2**31, size=EPISODES)
            episodes = [run_episode(greedy, self._target, seed=int(seed)) for seed in seeds]
        some = self._rng.permutation(len(transitions))[:TRANSITIONS]
        seen = Ensemble({k: one for k, one in self._normals().items() if k != REWARD_OFFSET})
        chosen = [transitions[i] for i in some]
        try:
            moved, effective = adapt(seen, chosen, self._explains, ROBOTS, self._rng, LEAST)
        except ConfigError as error:  # of the settings nothing is wrong
            raise TrainingError(str(error)) from None
        for env in self._envs:
            find_robot(env).move(Ensemble({**find_robot(env).ensemble, **moved}))
        self._rounds, self._steps = self._rounds + 1, self._steps + len(transitions)
        self._latest = {
            "ensemble/effective_samples": effective,
            "ensemble/target_return": float(np.mean([e.episode_return for e in episodes])),
            "ensemble/target_steps": self._steps,
        }

    def metrics(self) -> dict[str, float]:
        """Where the ensemble is; how many samples carried it there, the target's mean return in
        the latest episodes, without exploration, and its steps so far."""
        moments: dict[str, float] = {}
        for name, one in self._normals().items():
            moments |= {f"ensemble/{name}_mean": one.mean, f"ensemble/{name}_std": one.std}
        return moments | self._latest

    def verdict(self) -> str:
        """Where the ensemble is, in words."""
        parts = (f"{name} {x.mean:.4g} +- {x.std:.2g}" for name, x in self._normals().items())
        return f"{', '.join(parts)} after {self._rounds} adaptations, {self._steps:,} target steps"

    def _normals(self) -> dict[str, TruncatedNormal]:
        """As the environments keep them, and put them back at a resume; `adapt` takes no others."""
        return cast(dict[str, TruncatedNormal], find_robot(self._envs[0]).ensemble)
