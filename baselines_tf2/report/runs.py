"""Finished and unfinished runs as a report reads them: from the files in their folders alone."""

import csv
import glob
import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from baselines_tf2.runs.experiment import flatten
from baselines_tf2.runs.folder import CONFIG, failure, read_config
from envs.ensemble import Ensemble
from envs.errors import ConfigError
from envs.grid import training_ranges

Row = dict[str, float]
# What a configuration need not share: the seed, and `set`, which the settings already hold.
NOT_COMPARED = ("seed", "set")
NOTHING = "–"
MAX_VALUE = 30  # characters of a setting's value in a name
MAX_IN_NAME = 3  # settings that tell groups of one experiment apart by name


@dataclass(frozen=True)
class Run:
    """What a run folder holds."""

    folder: Path
    config: dict[str, Any]
    metrics: list[Row]  # of metrics.csv; a row lacks the columns that were empty
    evaluations: dict[int, list[Row]]  # step -> its episodes, of eval.csv
    has_results: bool  # an analysis' results.csv
    failure: str | None = None  # why it could not go on, if so

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def is_empty(self) -> bool:
        return not (self.metrics or self.evaluations or self.has_results)

    @cached_property
    def steps(self) -> int:
        """Environment steps up to the last row of any table."""
        logged = [int(row["step"]) for row in self.metrics]
        return max([*logged, *self.evaluations], default=0)

    @property
    def planned(self) -> int:
        """How many steps it was to make; 0 if it does not say."""
        return self.config["settings"].get("train", {}).get("num_timesteps", 0)

    @property
    def training_ranges(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest value of each physical parameter of the robots trained on."""
        ensemble = self.config["settings"].get("env", {}).get("ensemble", "")
        return training_ranges(Ensemble.parse(str(ensemble)))

    @property
    def pictures(self) -> list[tuple[Path, bytes]]:
        """The PNGs in its folder, but for those of a report."""
        paths = [p for p in sorted(self.folder.glob("*.png")) if not p.name.startswith("report_")]
        pictures = [(path, path.read_bytes()) for path in paths]
        return [(path, png) for path, png in pictures if png.startswith(b"\x89PNG\r\n\x1a\n")]

    @property
    def last_evaluation(self) -> list[Row]:
        return self.evaluations[max(self.evaluations)]

    def series(self, column: str) -> dict[int, float]:
        """Step -> value of a column of metrics.csv, where it was logged."""
        return {int(row["step"]): row[column] for row in self.metrics if column in row}


@dataclass(frozen=True)
class Line:
    """What is drawn as one line, and has a place in the legend."""

    index: int  # place on the page, which gives the colour
    name: str


@dataclass(frozen=True)
class Group(Line):
    """Runs that differ in nothing but the seed, by seed."""

    runs: list[Run] = field(repr=False)

    @property
    def config(self) -> dict[str, Any]:
        return self.runs[0].config

    @property
    def evaluated(self) -> list[Run]:
        return [run for run in self.runs if run.evaluations]

    @property
    def environment(self) -> str:
        """What must be equal for two returns to share an axis: task, simulator and robots."""
        env = self.config["settings"].get("env", {})
        parts = [str(env.get("task", self.config["exp"])), self.config["backend"]]
        parts += [f"{name} {env[name]}" for name in ("ensemble", "physics") if env.get(name)]
        return ", ".join(parts)


def find_runs(patterns: Sequence[str] | str) -> list[Path]:
    """The run folders at and below what the patterns match, each once, in the order of names.

    Raises ConfigError if a pattern matches nothing, or nothing that holds a run.
    """
    folders: dict[Path, Path] = {}
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        matches = [*map(Path, glob.glob(os.path.expanduser(pattern), recursive=True))]
        if not matches:
            raise ConfigError(f"--runs={pattern} matches nothing: name run folders or parents")
        paths = [path for match in matches for path in (match, *match.rglob(CONFIG))]
        configs = sorted(path for path in paths if path.name == CONFIG)
        if not configs:
            raise ConfigError(f"--runs={pattern} matches no run: none of it holds a config.json")
        folders |= {path.parent.resolve(): path.parent for path in configs}
    if not folders:
        raise ConfigError("name the runs to report on with --runs=GLOB")
    return sorted(folders.values())


def read_run(folder: Path) -> Run:
    """Reads a run's tables; ConfigError names the file and the line that cannot be read."""
    config = checked_config(folder)
    metrics = _read_numbers(folder / "metrics.csv", ("step",))
    episodes = _read_numbers(folder / "eval.csv", ("step", "return"))
    evaluations = defaultdict(list)
    for row in episodes:
        evaluations[int(row["step"])].append(row)
    by_step, has_results = dict(sorted(evaluations.items())), (folder / "results.csv").exists()
    return Run(folder, config, metrics, by_step, has_results, failure(folder))


def checked_config(folder: Path) -> dict[str, Any]:
    """What its config.json holds; ConfigError if that is missing, damaged or no run's."""
    path, config = folder / CONFIG, read_config(folder)
    for name, kind in {"exp": str, "backend": str, "seed": int, "settings": dict}.items():
        if not isinstance(config, dict) or not isinstance(config.get(name), kind):
            raise ConfigError(f"{path} is damaged or no run's: its '{name}' is missing or wrong")
    for name in ("env", "train"):
        if not isinstance(config["settings"].get(name, {}), dict):
            raise ConfigError(f"{path} is damaged: its settings' '{name}' is wrong")
    return config


def _read_numbers(path: Path, required: Sequence[str]) -> list[Row]:
    """The rows of a CSV, none if there is none yet."""
    if not path.exists():
        return []
    # Without a line that is being written. A cell that lacks is no number, as what cannot be read.
    whole, _, _ = path.read_text(errors="replace").rpartition("\n")
    table, rows = csv.DictReader(whole.split("\n"), restval="no cell", strict=True), []
    try:
        for cells in table:
            row = {name: float(x) for name, x in cells.items() if x}
            if missing := [name for name in required if name not in row]:
                raise ValueError(f"no '{missing[0]}'")
            rows.append(row)
    except (TypeError, ValueError, csv.Error) as error:
        raise ConfigError(f"{path} is damaged, line {table.line_num}: {error}") from None
    return rows


def group_runs(runs: Sequence[Run]) -> tuple[list[Group], list[Run]]:
    """Groups of runs equal but for the seed, and the runs left out because their seed is repeated.

    Of two runs with one configuration and one seed, the one that is further counts.
    """
    alike = defaultdict(list)
    for run in runs:
        compared = {k: v for k, v in run.config.items() if k not in NOT_COMPARED}
        alike[json.dumps(compared, sort_keys=True)].append(run)
    repeated, members = [], []
    for same in alike.values():
        by_seed: dict[int, Run] = {}
        for run in sorted(same, key=lambda run: -run.steps):  # stable: then by folder
            if by_seed.setdefault(run.seed, run) is not run:
                repeated.append(run)
        members.append([by_seed[seed] for seed in sorted(by_seed)])
    names = _names([group[0].config for group in members])
    groups = [Group(i, *pair) for i, pair in enumerate(zip(names, members, strict=True))]
    return groups, sorted(repeated, key=lambda run: run.folder)


def settings_of(config: Mapping[str, Any]) -> dict[str, str]:
    """A configuration's leaves as texts: settings by their own paths, the rest as `versions.numpy`.

    None and an empty text are a dash, as is what another configuration does not have.
    """
    rest = {k: v for k, v in config.items() if k not in (*NOT_COMPARED, "settings")}
    leaves = flatten(config["settings"]) | flatten(rest)
    if leaves.get("env.backend") == config["backend"]:
        del leaves["env.backend"]
    return {path: _text(value) for path, value in leaves.items()}


def _text(value: Any) -> str:
    if value is None or value == "":
        return NOTHING
    return str(value).lower() if isinstance(value, bool) else str(value)


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The leaves that are not the same in all configurations, in order of appearance."""
    leaves = [settings_of(config) for config in configs]
    paths = dict.fromkeys(path for one in leaves for path in one)
    return [path for path in paths if len({one.get(path, NOTHING) for one in leaves}) > 1]


def _names(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Unique names: experiment, backend, and what tells it from the others of that experiment."""
    seen: Counter[str] = Counter()
    names = []
    for config in configs:
        which = config["exp"], config["backend"]
        marks = _marks(config, [one for one in configs if (one["exp"], one["backend"]) == which])
        name = ", ".join(which) + f": {marks}" * bool(marks)
        seen[name] += 1
        names.append(name + f" ({seen[name]})" * (seen[name] > 1))
    return names


def _marks(config: Mapping[str, Any], same: Sequence[Mapping[str, Any]]) -> str:
    """All differing settings if they are few, else those in which this one is not as most are."""
    own, paths = settings_of(config), differing(same)
    if len(paths) > MAX_IN_NAME:
        leaves = [settings_of(one) for one in same]
        values = {path: Counter(one.get(path, NOTHING) for one in leaves) for path in paths}
        usual = {path: counter.most_common(1)[0][0] for path, counter in values.items()}
        paths = [path for path in paths if own.get(path, NOTHING) != usual[path]]
    texts = []
    for path in paths[:MAX_IN_NAME]:
        value = own.get(path, NOTHING)
        value = value if len(value) <= MAX_VALUE else f"{value[: MAX_VALUE - 1]}…"
        texts.append(f"{path.partition('.')[2] or path}={value}")
    if (more := len(paths) - MAX_IN_NAME) > 0:
        texts.append(f"{more} more")
    return ", ".join(texts)
