"""A study is a file: docs/studies/NAME.toml says what is compared, and here its runs are planned."""

import hashlib
import itertools
import json
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from baselines_tf2.runs.experiment import Chosen, Experiment, choose, defaults, flatten
from baselines_tf2.sweeps.study_outcomes import OUTCOMES
from baselines_tf2.sweeps.sweep import folder_name, parse_seeds
from envs.errors import ConfigError, check_known

WORDS = {str: "a text", int: "a whole number", bool: "true or false", dict: "a table"}
WORDS |= {list: "a list of texts"}
# Keys of a part that the file may say once for all parts. `set` adds up, the others are replaced.
SHARED = {"primary": str, "outcomes": list, "seeds": str, "steps": int, "backend": str, "set": list}
STUDY = {"question": str, "hypotheses": list, "tuning": str, "arm": dict, "part": dict} | SHARED
PART = {"title": str, "baseline": str, "arms": list, "arm": dict, "factor": dict} | SHARED
PART |= {"tunes": bool}
ARM = {"exp": str, "set": list, "without": list}
OPTIONAL = {"backend", "set", "tuning", "arms", "arm", "factor", "tunes", "without", "baseline"}


class Arm(NamedTuple):
    """What is compared: an experiment and the overrides of its settings."""

    exp: str
    overrides: tuple[str, ...]
    without: tuple[str, ...]  # factors that mean nothing to it: one run serves all their levels


def words(level: Mapping[str, str], without: Sequence[str] = ()) -> str:
    """A level as text, but for some factors."""
    return ", ".join(f"{factor}={x}" for factor, x in level.items() if factor not in without)


@dataclass(frozen=True)
class Part:
    """Arms, each at every combination of the factors' levels."""

    name: str
    title: str
    baseline: str  # the arm that the others are compared with; "": they are not
    arms: Mapping[str, Arm]
    factors: Mapping[str, Mapping[str, list[str]]]  # factor -> level -> overrides
    seeds: Sequence[int]
    primary: str  # the outcome that decides
    outcomes: tuple[str, ...]  # all that the tables show, the primary one first
    overrides: tuple[str, ...]  # of all its runs
    backend: str | None
    tunes: bool  # chooses settings: no other part may report its seeds

    @property
    def levels(self) -> list[dict[str, str]]:
        """Every combination of levels, {factor: level}; one without entries if there is no factor."""
        every = itertools.product(*self.factors.values())
        return [dict(zip(self.factors, levels, strict=True)) for levels in every]

    def cells(self) -> dict[tuple[str, str], tuple[str, ...]]:
        """(arm, level of its runs) -> all overrides; of two for one setting the more special counts."""
        cells = {}
        for level, (name, arm) in itertools.product(self.levels, self.arms.items()):
            given = (self.factors[f][x] for f, x in level.items() if f not in arm.without)
            texts = (*self.overrides, *itertools.chain(*given), *arm.overrides)
            by_path = {text.partition("=")[0]: text for text in texts}
            cells[name, words(level, arm.without)] = tuple(by_path.values())
        return cells


@dataclass(frozen=True)
class Study:
    """A question, and the parts that answer it."""

    path: Path
    question: str
    hypotheses: Sequence[str]
    tuning: str  # how the arms' settings were chosen, and on which seeds
    parts: Mapping[str, Part]

    @property
    def name(self) -> str:
        return self.path.stem


def read_study(path: Path) -> Study:
    """Reads a study's file; ConfigError names the key that is wrong."""
    try:
        table = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{path} cannot be read as TOML: {error}") from None
    try:
        shared = {name: value for name, value in table.items() if name in SHARED}
        _check("the study", table, STUDY, {*OPTIONAL, *SHARED})
        arms = table.get("arm", {})
        parts = {name: _part(name, part, shared, arms) for name, part in table["part"].items()}
        _check_seeds(parts.values())
        for part in parts.values():
            _check_levels(part)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return Study(path, table["question"], table["hypotheses"], table.get("tuning", ""), parts)


def _check(
    where: str, table: Any, kinds: Mapping[str, type], optional: set[str] = OPTIONAL
) -> None:
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table, not {table!r}")
    for name, value in table.items():
        check_known(f"key of {where}", name, kinds)
        is_list = isinstance(value, list) and all(isinstance(text, str) for text in value)
        if type(value) is not kinds[name] or (kinds[name] is list and not is_list):
            raise ConfigError(f"'{name}' of {where} must be {WORDS[kinds[name]]}, not {value!r}")
    for name in kinds:
        if name not in table and name not in optional:
            raise ConfigError(f"{where} lacks '{name}', {WORDS[kinds[name]]}")


def _part(name: str, own: Any, shared: Mapping[str, Any], known: Mapping[str, Any]) -> Part:
    where = f"part.{name}"
    part = {**shared, **own} if isinstance(own, dict) else own
    _check(where, part, PART)
    for arm in part.get("arms", ()):
        check_known(f"arm of {where}", arm, known)
    factors, outcomes = part.get("factor", {}), (part["primary"], *part["outcomes"])
    tables = {arm: known[arm] for arm in part.get("arms", ())} | part.get("arm", {})
    arms = {arm: _arm(f"{where}.arm.{arm}", table, factors) for arm, table in tables.items()}
    if not arms:
        raise ConfigError(f"{where} has no arm: name some in 'arms', or write [{where}.arm]")
    if baseline := part.get("baseline", ""):
        check_known(f"baseline of {where}", baseline, arms)
    for factor, levels in factors.items():
        kinds = dict.fromkeys(levels, list) if isinstance(levels, dict) else {}
        _check(f"{where}.factor.{factor}", levels, kinds)
        if not levels:
            raise ConfigError(f"{where}.factor.{factor} has no level")
    for outcome in outcomes:
        check_known(f"outcome of {where}", outcome, OUTCOMES)
    return Part(
        name=name,
        title=part["title"],
        baseline=baseline,
        arms=arms,
        factors=factors,
        seeds=parse_seeds(part["seeds"]),
        primary=part["primary"],
        outcomes=tuple(dict.fromkeys(outcomes)),
        overrides=(
            f"train.num_timesteps={part['steps']}", *shared.get("set", ()), *own.get("set", ())
        ),
        backend=part.get("backend"),
        tunes=part.get("tunes", False),
    )  # fmt: skip


def _arm(where: str, table: Any, factors: Mapping[str, Any]) -> Arm:
    _check(where, table, ARM)
    for factor in table.get("without", ()):
        check_known(f"factor in 'without' of {where}", factor, factors)
    return Arm(table["exp"], tuple(table.get("set", ())), tuple(table.get("without", ())))


def _check_seeds(parts: Collection[Part]) -> None:
    """A number is no evidence where its settings were chosen on its seed."""
    tuned = {seed for part in parts if part.tunes for seed in part.seeds}
    for part in parts:
        if not part.tunes and (shared := tuned & set(part.seeds)):
            raise ConfigError(f"part.{part.name} reports seed {min(shared)}, which a part tunes on")


def _check_levels(part: Part) -> None:
    """What an arm sets itself, a level cannot: it would be reported as a run of its own."""
    known: dict[tuple, str] = {}
    for (arm, level), texts in part.cells().items():
        if (same := known.setdefault((arm, *sorted(texts)), level)) != level:
            raise ConfigError(
                f"part.{part.name}.arm.{arm} is one run at '{same}' and at '{level}': these are equal, "
                "or the arm sets what they set (take it out, or name the factor in its 'without')"
            )


class StudyRun(NamedTuple):
    """One run of a study."""

    key: tuple[str, str, str, int]  # part, arm, level in words, seed
    planned: Chosen

    @property
    def name(self) -> str:
        """The key in words."""
        *texts, seed = self.key
        return " ".join((*filter(None, texts), f"seed {seed}"))

    @property
    def fingerprint(self) -> str:
        """Of its settings."""
        settings = self.planned.settings
        return fingerprint(self.planned.flags["exp"], flatten(settings), defaults(settings))


def plan(
    study: Study, experiments: Mapping[str, Experiment], logdir: str, parts: Sequence[str] = ()
) -> list[StudyRun]:
    """The runs of these parts (none: all), one part after the other, seeds varying slowest.

    So a part that is cut short has every arm at its first seeds. Raises ConfigError, which names
    the arm, for settings that cannot be.
    """
    for name in parts:
        check_known(f"part of {study.path}", name, study.parts)
    runs = []
    for part in (study.parts[name] for name in parts or study.parts):
        for seed, ((arm, level), texts) in itertools.product(part.seeds, part.cells().items()):
            inner, exp = [text for text in (part.name, arm, level) if text], part.arms[arm].exp
            folder = Path(logdir, *(folder_name([text]) for text in (study.name, *inner))).resolve()
            try:
                chosen = choose(experiments, exp, texts, str(folder), seed, part.backend)
            except ConfigError as error:
                where = f"part.{part.name}.arm.{arm}" + f" at {level}" * bool(level)
                raise ConfigError(f"{study.path}: {where}: {error}") from None
            runs.append(StudyRun((part.name, arm, level, seed), chosen))
    return runs


def fingerprint(exp: str, leaves: Mapping[str, Any], usual: Mapping[str, Any]) -> str:
    """A short hash of the experiment and of all settings that are not as their class has them.

    leaves, usual: dotted path -> value. So a setting that a later version adds, at a default which
    changes nothing, leaves the hash as it was.
    """
    special = {path: x for path, x in leaves.items() if path not in usual or x != usual[path]}
    text = json.dumps([exp, special], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:10]
