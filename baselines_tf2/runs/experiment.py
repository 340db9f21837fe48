"""Named experiments, and the overriding of their settings by text."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple

from baselines_tf2.runs.checkpoint import Checkpoints
from envs.errors import ConfigError, check_known

PRESETS = ("default", "original")
NAMED_BY_FLAGS = {"env.task": "--exp", "env.backend": "--backend"}
# Settings by their older names, as in the config.json of older runs -> where they are now.
MOVED = {f"agent.{name}": f"train.{name}" for name in (
    "random_steps", "num_envs", "overlap", "nb_epoch_cycles", "epopt_trajectories",
    "epopt_epsilon", "epopt_warmup",
)}  # fmt: skip


class Progress:
    """Where a run shows how far it is: this one shows nothing."""

    def start(self, total: int) -> None: ...  # the run will have so many steps

    def tell(self, text: str) -> None: ...  # a line for the user

    def update(self, step: int, episode_return: float | None) -> None: ...

    def resume(self, step: int) -> None: ...  # what comes goes on from this step


RunFunction = Callable[[Path, Progress, Checkpoints], dict[str, str]]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Something that can be run by name.

    settings(preset, backend) gives a tree of frozen dataclasses, every leaf of which can be
    overridden; its train.num_timesteps is the run's length in steps. prepare(settings, seed) does
    everything that can fail because of the settings, and returns the function that then fills a run
    folder, going on from its latest checkpoint if it has one, and returns a summary, {name: text}.
    """

    name: str
    description: str
    source: str
    backends: Sequence[str]  # the first is the default
    settings: Callable[[str, str], Any]
    prepare: Callable[..., RunFunction]  # (settings, seed); video=True records evaluations
    load: Callable[[Any, Path], Any] | None = None  # (settings, folder) -> the trained agent

    def prepared(self, settings: Any, seed: int, *, video: bool = False) -> RunFunction:
        """What `prepare` gives; ConfigError too if a video is asked for and there is nothing to see."""
        if video and self.load is None:
            raise ConfigError(f"--video: {self.name} evaluates no agent that could be seen")
        return self.prepare(settings, seed, **({"video": True} if video else {}))


def find_experiment(experiments: Mapping[str, Experiment], name: str) -> Experiment:
    """The experiment called `name`; ConfigError with the nearest name if there is none."""
    check_known("experiment", name, experiments)
    return experiments[name]


class Chosen(NamedTuple):
    """A run that is named by its experiment, overrides and seed."""

    experiment: Experiment
    folder: Path
    flags: Mapping[str, Any]  # for its config.json
    settings: Any


def choose(
    experiments: Mapping[str, Experiment],
    name: str,
    overrides: Sequence[str],
    logdir: str,
    seed: int,
    backend: str | None = None,
    *,
    preset: str = "default",
    eager: bool = False,
) -> Chosen:
    """A run's settings and folder, <logdir>/<exp>/<backend>/seed_<n>; ConfigError if there is none."""
    experiment = find_experiment(experiments, name)
    settings = make_settings(experiment, preset, backend, overrides)
    backend = experiment.backends[0] if backend is None else backend
    values = {"exp": name, "backend": backend, "seed": seed, "preset": preset, "eager": eager}
    folder = Path(logdir) / name / backend / f"seed_{seed}"  # no time, so as to be found again
    return Chosen(experiment, folder, values | {"set": list(overrides)}, settings)


def make_settings(
    experiment: Experiment, preset: str, backend: str | None, overrides: Sequence[str]
) -> Any:
    """The experiment's settings after `overrides`, "path.to.field=value" each, all at once.

    A group whose kind says `RESET_BY` a field starts from its `reset(value)` when that field is
    given, be it the same: a solver that is named does not inherit the default's options.
    """
    check_known("preset", preset, PRESETS)
    backend = experiment.backends[0] if backend is None else backend
    check_known(f"backend of {experiment.name}", backend, experiment.backends)
    settings = experiment.settings(preset, backend)
    leaves, values, changes = flatten(settings), dataclasses.asdict(settings), {}
    for text in overrides:
        path, separator, value = text.partition("=")
        if not separator:
            raise ConfigError(f"cannot read override '{text}': write --set=name=value")
        if path in changes:
            raise ConfigError(f"override '{path}' is given twice: leave one out")
        flag = "--exp" if path.endswith(".agent") else NAMED_BY_FLAGS.get(path)
        if flag:
            raise ConfigError(f"'{path}' follows from {flag}: use that flag")
        if path not in leaves:
            raise _unknown_override(path, leaves)
        *parents, name = path.split(".")
        group, table = reduce(getattr, parents, settings), reduce(getitem, parents, values)
        parsed = _parse(path, value, typing.get_type_hints(type(group))[name])
        changes[path] = table, name, parsed
        if name == getattr(group, "RESET_BY", None):
            table |= dataclasses.asdict(group.reset(parsed))
    for table, name, parsed in changes.values():
        table[name] = parsed
    return settings_from(type(settings), values)


def flatten(tree: Any, path: str = "") -> dict[str, Any]:
    """Every leaf of settings, or of nested tables, by its dotted path."""
    if dataclasses.is_dataclass(tree):
        tree = {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree)}
    if not isinstance(tree, Mapping):
        return {path: tree}
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        leaves |= flatten(value, f"{path}.{name}" if path else name)
    return leaves


def defaults(settings: Any, prefix: str = "") -> dict[str, Any]:
    """The leaves of the settings by dotted path, as their classes have them; none where they must be given."""
    leaves: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        value, path = getattr(settings, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            leaves |= defaults(value, f"{path}.")
        elif field.default is not dataclasses.MISSING:
            leaves[path] = field.default
    return leaves


def _unknown_override(path: str, leaves: Mapping[str, Any]) -> ConfigError:
    """Suggests by the whole path, else by its last part: `gamma` for `agent.gamma`."""
    if MOVED.get(path) in leaves:
        return ConfigError(f"'{path}' is '{MOVED[path]}' now: use that name")
    inner = [leaf for leaf in leaves if leaf.startswith(path + ".")]
    if inner:
        return ConfigError(f"'{path}' is a group of settings: set {' or '.join(inner)}")
    by_name = {leaf.rpartition(".")[2]: leaf for leaf in leaves}
    near = difflib.get_close_matches(path, leaves, n=1, cutoff=0.8) or [
        by_name[name] for name in difflib.get_close_matches(path.rpartition(".")[2], by_name, n=1)
    ]
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(leaves)}"
    return ConfigError(f"unknown override '{path}'; {hint}")


def _parse(path: str, text: str, kind: Any) -> Any:
    kinds = typing.get_args(kind) or (kind,)
    if types.NoneType in kinds and text.lower() == "none":
        return None
    read, expected = READ[next(k for k in kinds if k in READ)]
    try:
        return read(text)
    except (ValueError, KeyError):
        raise ConfigError(f"override '{path}={text}': the value must be {expected}") from None


def whole_number(text: str) -> int:
    """Reads 1000000 or 1e6; ValueError for what is no whole number."""
    with suppress(ValueError, OverflowError):
        number = int(text) if text.lstrip("+-").isdigit() else float(text)
        if number == int(number):
            return int(number)
    raise ValueError("it must be a whole number")


READ: Mapping[type, tuple[Callable[[str], Any], str]] = {  # how a type is read, what it must be
    bool: (lambda text: {"true": True, "false": False}[text.lower()], "true or false"),
    int: (whole_number, "a whole number"),
    float: (float, "a number"),
    str: (str, "a text"),
}


def settings_from(kind: type, values: Mapping[str, Any]) -> Any:
    """Rebuilds a tree of frozen dataclasses from what `dataclasses.asdict` made of it.

    What is not among the values, as older runs lack it, is as its class has it. Raises TypeError
    where that is to be given.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"settings of {kind.__name__} must be a table, not {values!r}")
    hints, fields = typing.get_type_hints(kind), [x.name for x in dataclasses.fields(kind)]
    for name in sorted(values):
        check_known(f"setting of {kind.__name__}", name, fields)
    groups = [name for name in values if dataclasses.is_dataclass(hints[name])]
    return kind(**{**values, **{name: settings_from(hints[name], values[name]) for name in groups}})
