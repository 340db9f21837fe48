"""Judging a policy on whole episodes without exploration."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.returns import describe, in_words
from baselines_tf2.common.rollout import Episode, Policy, blame, env_name
from baselines_tf2.common.spaces import actions_of
from baselines_tf2.common.train_loop import TrainConfig
from baselines_tf2.runs.video import EpisodeRecorder, video_env
from envs import Ensemble, EnvSpec, is_inside, make_env, robots_of, sweeps, training_ranges
from envs.grid import POINTS, Ranges

SIDES = {"inside": True, "outside": False}  # of the ranges trained on


def run_episode(
    policy: Policy, env: gym.Env, *, seed: int, physics: dict[str, float] | None = None
) -> Episode:
    """Runs one episode; `physics` fixes the robot in an environment of `envs`.

    A policy that draws has `begin(seed)`, so that its draws are the episode's. Raises TrainingError
    if its return is not finite, or the environment raises.
    """
    actions = actions_of(env.action_space)
    options = {"physics": physics} if physics else None
    if hasattr(policy, "begin"):
        policy.begin(seed)
    try:
        obs, info = env.reset(seed=seed, options=options)
    except Exception as error:
        _blame(env, "reset", error)
        raise
    total, length, over = 0.0, 0, False
    while not over:
        action = actions.to_env(policy(obs[None]))[0]
        try:
            obs, reward, terminal, truncation, _ = env.step(action)
        except Exception as error:
            _blame(env, "step", error)
            raise
        total += float(reward)
        length += 1
        over = terminal or truncation
    if not np.isfinite(total):
        raise TrainingError(f"an evaluation episode of {length} steps returned {total}")
    return Episode(total, length, info.get("physics", {}))


def _blame(env, call, error):
    """A video that cannot be written is no fault of the environment's."""
    if not (isinstance(error, OSError) and isinstance(env, EpisodeRecorder)):
        blame(env_name(env), call, error, " in an evaluation episode")


def evaluate(
    policy: Policy,
    env: gym.Env,
    rng: np.random.Generator,
    robots: Sequence[dict[str, float] | None],
) -> list[Episode]:
    """Runs one episode on each of the robots (None: the environment's own), from fresh seeds."""
    pairs = zip(rng.integers(2**31, size=len(robots)).tolist(), robots, strict=True)
    return [run_episode(policy, env, seed=seed, physics=robot) for seed, robot in pairs]


def summarise(
    episodes: Sequence[Episode], ranges: Ranges, robots: Sequence[dict[str, float]] | None = None
) -> dict[str, float]:
    """What `describe` says of the returns, and length_mean [steps].

    With ranges that robots were trained on also what it says of those inside and of those outside:
    return_inside, the mean, return_inside_p10 and so on. robots: what tells one from another where
    that is not all their parameters, since each episode draws the others.
    """
    pairs = list(zip(robots or [e.physics for e in episodes], episodes, strict=True))
    out = _described("return", pairs)
    out["return_mean"] = out.pop("return")
    for side, wanted in SIDES.items() if ranges else ():
        if chosen := [x for x in pairs if is_inside(x[1].physics, ranges) == wanted]:
            out |= _described(f"return_{side}", chosen)
    return out | {"length_mean": float(np.mean([episode.length for episode in episodes]))}


def _described(name: str, pairs: Sequence[tuple[dict, Episode]]) -> dict[str, float]:
    return describe(name, [robot for robot, _ in pairs], [e.episode_return for _, e in pairs])


def verdict(summary: Mapping[str, float], ranges: Ranges, episodes: str) -> dict[str, str]:
    """A summary in words; episodes: on what, as in "18 episodes on 9 robots"."""
    returns = {"return": summary["return_mean"], **summary}
    trained = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in ranges.items())
    text = {"return": f"{in_words('return', returns)}; {episodes}"}
    for side in SIDES:
        if f"return_{side}" in returns:
            text[side] = f"{in_words(f'return_{side}', returns)}; {side} of {trained}"
    return text


class Judge:
    """Evaluates on whole episodes; an ensemble on a grid of robots inside and outside of it.

    With `video` one episode of each evaluation is recorded, on the grid's first parameter's middle.
    """

    def __init__(self, spec: EnvSpec, config: TrainConfig, seed: int, *, video: bool = False):
        self._interval = config.eval_interval
        self._total = config.num_timesteps
        self.at_start = config.eval_at_start
        self._last, self._rng = 0, np.random.default_rng(seed)
        self._env = video_env(spec) if video else make_env(spec, training=False)
        self._summary: dict[str, float] = {}
        ensemble = Ensemble.parse(spec.ensemble)
        self.training_ranges = training_ranges(ensemble)
        robots: list[dict[str, float] | None] = [*robots_of(sweeps(ensemble))] or [None]
        self._middle = min(len(robots), POINTS) // 2
        self._robots = robots * config.eval_episodes

    def due(self, step: int) -> bool:
        """Whether an evaluation is due at this step: each interval, at both ends."""
        due = step // self._interval > self._last // self._interval or step == 0
        due |= step >= self._total
        self._last = step
        return due

    def get_state(self) -> dict:
        """What coming evaluations depend on."""
        rng = self._rng.bit_generator.state
        return {"last": self._last, "rng": rng, "summary": self._summary}

    def set_state(self, state: dict) -> None:
        """Puts back what `get_state` gave."""
        self._last, self._rng.bit_generator.state = state["last"], state["rng"]
        self._summary = state["summary"]

    def episodes(self, policy: Policy, video: Path | None = None) -> list[Episode]:
        """One episode on each robot, as often as asked for; video: where one is recorded, if any."""
        if isinstance(self._env, EpisodeRecorder):
            self._env.record([None] * self._middle + [video])
        return evaluate(policy, self._env, self._rng, self._robots)

    def summary(self, episodes: list[Episode]) -> dict[str, float]:
        """What `summarise` says, inside and outside of the training ranges too."""
        self._summary = summarise(episodes, self.training_ranges)
        return {f"eval/{name}": value for name, value in self._summary.items()}

    def verdict(self) -> dict[str, str]:
        """The last evaluation in words."""
        return verdict(self._summary, self.training_ranges, f"{len(self._robots)} episodes")
