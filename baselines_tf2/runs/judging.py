"""Judging a policy on whole episodes without exploration, and what their returns say in words."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import gymnasium as gym
import numpy as np

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.rollout import PASSING, Episode, Policy, blaming, env_name
from baselines_tf2.common.spaces import actions_of
from baselines_tf2.common.state import Stateful
from baselines_tf2.common.train_loop import TrainConfig
from baselines_tf2.runs.video import EpisodeRecorder, video_env
from envs import Ensemble, EnvSpec, is_inside, make_env, robots_of, sweeps, training_ranges
from envs.ensemble import worst_episodes
from envs.grid import POINTS, Ranges

SIDES = {"inside": True, "outside": False}  # of the ranges trained on
PERCENTILES = (10, 50, 90)
WORST_SHARE = 0.1  # of the episodes, for the conditional value at risk
PHYSICS = "physics/"  # what a table's columns of parameters begin with

Robot = Mapping[str, float]
Returns = dict[frozenset, list[float]]  # a robot's items -> of its episodes


def run_episode(
    policy: Policy, env: gym.Env, *, seed: int, physics: Robot | None = None
) -> Episode:
    """Runs one episode; `physics` fixes the robot in an environment of `envs`.

    A policy that draws has `begin(seed)`, so that its draws are the episode's. Raises TrainingError
    if its return is not finite, or the environment raises.
    """
    # A video that cannot be written is no fault of the environment's.
    passing = (*PASSING, OSError) if isinstance(env, EpisodeRecorder) else PASSING
    name = env_name(env)

    def ask(call, *args, **kwargs):
        with blaming(name, call, " in an evaluation episode", passing):
            return getattr(env, call)(*args, **kwargs)

    actions = actions_of(env.action_space)
    if hasattr(policy, "begin"):
        policy.begin(seed)
    obs, info = ask("reset", seed=seed, options={"physics": physics} if physics else None)
    total, length, over = 0.0, 0, False
    while not over:
        obs, reward, terminal, truncation, _ = ask("step", actions.to_env(policy(obs[None]))[0])
        total += float(reward)
        length += 1
        over = terminal or truncation
    if not np.isfinite(total):
        raise TrainingError(f"an evaluation episode of {length} steps returned {total}")
    return Episode(total, length, info.get("physics", {}))


def evaluate(
    policy: Policy, env: gym.Env, rng: np.random.Generator, robots: Sequence[Robot | None]
) -> list[Episode]:
    """Runs one episode on each of the robots (None: the environment's own), from fresh seeds."""
    pairs = zip(rng.integers(2**31, size=len(robots)).tolist(), robots, strict=True)
    return [run_episode(policy, env, seed=seed, physics=robot) for seed, robot in pairs]


def percentiles(returns: Sequence[float]) -> np.ndarray:
    """The 10th, 50th and 90th percentile, [3]."""
    return np.percentile(returns, PERCENTILES)


def by_robot(robots: Sequence[Robot], returns: Sequence[float]) -> Returns:
    """Each robot's returns, by the set of its parameters' (name, value)."""
    groups: Returns = {}
    for robot, one in zip(robots, returns, strict=True):
        groups.setdefault(frozenset(robot.items()), []).append(one)
    return groups


def describe(name: str, robots: Sequence[Robot], returns: Sequence[float]) -> dict[str, float]:
    """`name`, the mean; name_p10, name_p50, name_p90; name_cvar10, the conditional value at risk,
    or mean of the worst tenth (of fewer than twenty the worst one); and of several robots
    name_worst_robot, the lowest of their means."""
    out = {name: float(np.mean(returns))}
    quantiles = zip(PERCENTILES, percentiles(returns), strict=True)
    out |= {f"{name}_p{percent}": float(value) for percent, value in quantiles}
    out[f"{name}_cvar10"] = float(np.mean(np.take(returns, worst_episodes(returns, WORST_SHARE))))
    if len(groups := by_robot(robots, returns)) > 1:
        out[f"{name}_worst_robot"] = float(min(np.mean(group) for group in groups.values()))
    return out


def summarise(
    episodes: Sequence[Episode], ranges: Ranges, robots: Sequence[Robot] | None = None
) -> dict[str, float]:
    """What `describe` says of the returns, and length_mean [steps].

    With ranges that robots were trained on also what it says of those inside and of those outside:
    return_inside, the mean, return_inside_p10 and so on. robots: what tells one from another where
    that is not all their parameters, since each episode draws the others.
    """
    robots = robots or [e.physics for e in episodes]
    out = describe("return", robots, [e.episode_return for e in episodes])
    out["return_mean"] = out.pop("return")
    for side, wanted in SIDES.items() if ranges else ():
        chosen = [i for i, e in enumerate(episodes) if is_inside(e.physics, ranges) == wanted]
        if chosen:
            returns = [episodes[i].episode_return for i in chosen]
            out |= describe(f"return_{side}", [robots[i] for i in chosen], returns)
    return out | {"length_mean": float(np.mean([e.length for e in episodes]))}


def verdict(summary: Mapping[str, float], ranges: Ranges, episodes: str) -> dict[str, str]:
    """A summary in words; episodes: on what, as in "18 episodes on 9 robots"."""
    returns = {"return": summary["return_mean"], **summary}
    trained = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in ranges.items())
    text = {"return": f"{_in_words('return', returns)}; {episodes}"}
    for side in SIDES:
        if f"return_{side}" in returns:
            text[side] = f"{_in_words(f'return_{side}', returns)}; {side} of {trained}"
    return text


def _in_words(name: str, described: Mapping[str, float]) -> str:
    low, middle, high = (described[f"{name}_p{percent}"] for percent in PERCENTILES)
    text = f"{described[name]:.1f} mean, percentiles 10, 50, 90: "
    text += f"{low:.1f}, {middle:.1f}, {high:.1f}, worst tenth {described[f'{name}_cvar10']:.1f}"
    worst = described.get(f"{name}_worst_robot")
    return text if worst is None else f"{text}, worst robot {worst:.1f}"


def sweep_of(rows: Sequence[Mapping], column: str) -> dict[float, list[float]]:
    """The returns in an evaluation's table by a parameter, from its least value to its greatest.

    Where each of several parameters was swept in turn, at least half of the episodes are at any
    other one's median, and only those count; where robots were drawn at random all do.
    """
    at = [(value, row) for row in rows if (value := _value(row, column)) is not None]
    rows, centre = [row for _, row in at], {}
    for other in {name for row in rows for name in row if name.startswith(PHYSICS)} - {column}:
        common, count = Counter(_value(row, other) for row in rows).most_common(1)[0]
        if 2 * count >= len(rows):
            centre[other] = common
    returns: dict[float, list[float]] = {}
    for value, row in at:
        if all(_value(row, other) == common for other, common in centre.items()):
            returns.setdefault(value, []).append(float(row["return"]))
    return dict(sorted(returns.items()))


def _value(row: Mapping, name: str) -> float | None:
    """Rounded, as simulators round what they read back; None where there is none."""
    return None if row.get(name) in (None, "") else round(float(row[name]), 4)


class Judge(Stateful):
    """Evaluates on whole episodes; an ensemble on a grid of robots inside and outside of it.

    With `video` one episode of each evaluation is recorded, on the grid's first parameter's middle.
    """

    STATE = ("_last", "_rng", "_summary")

    def __init__(self, spec: EnvSpec, config: TrainConfig, seed: int, *, video: bool = False):
        self._interval, self._total = config.eval_interval, config.num_timesteps
        self.at_start = config.eval_at_start
        self._last, self._rng = 0, np.random.default_rng(seed)
        self._env = video_env(spec) if video else make_env(spec, training=False)
        self._summary: dict[str, float] = {}
        ensemble = Ensemble.parse(spec.ensemble)
        self.training_ranges = training_ranges(ensemble)
        robots: list[Robot | None] = [*robots_of(sweeps(ensemble))] or [None]
        self._middle = min(len(robots), POINTS) // 2
        self._robots = robots * config.eval_episodes

    def due(self, step: int) -> bool:
        """Whether an evaluation is due at this step: each interval, at both ends."""
        due = step // self._interval > self._last // self._interval
        self._last = step
        return due or step == 0 or step >= self._total

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
