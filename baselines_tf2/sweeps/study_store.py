"""A study's numbers: a small CSV beside its file, the store of record, a row for each run done.

A run whose row is there is done, on whatever machine, though its folder is gone.
"""

import csv
import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock

from baselines_tf2.common.files import read_table, table_text, write_text
from baselines_tf2.report.runs import checked_config, read_run
from baselines_tf2.runs.experiment import defaults, flatten
from baselines_tf2.runs.folder import CONFIG, failure, is_finished, start_anew
from baselines_tf2.sweeps.study import Part, Study, StudyRun, fingerprint, words
from baselines_tf2.sweeps.study_outcomes import OUTCOMES, curves
from envs.errors import ConfigError

KEY = ("part", "arm", "level", "seed")
FACTS = (*KEY, "steps", "status", "settings", "commit", "seconds")
FINISHED = "finished"  # the status of a run that did not fail
CURVES = (*KEY, "curve", "x", "y")
Key = tuple[str, str, str, int]
Place = tuple[str, str]  # level, arm
Row = dict[str, str]


class Store:
    """The rows of a study's CSV, and the curves of NAME_curves.csv.

    judge: called with the folder of a run that ended and its outcomes, before they are read. Raises
    ConfigError if a CSV is damaged.
    """

    def __init__(
        self, study: Study, judge: Callable[[Path, Sequence[str]], None] = lambda *_: None
    ):
        self.study, self._judge = study, judge
        self._path = study.path.with_suffix(".csv")
        self._curves_path = study.path.with_name(f"{study.name}_curves.csv")
        self._lock = FileLock(study.path.with_name(f".{study.name}.lock"))
        self._read()

    def _read(self) -> None:
        self.rows: dict[Key, Row] = dict(_keyed(self._path, FACTS))
        self.curves: dict[Key, dict[str, tuple[np.ndarray, np.ndarray]]] = {}
        for key, row in _keyed(self._curves_path, CURVES):
            with _undamaged(self._curves_path):
                x, y = (np.array(row[name].split(), float) for name in ("x", "y"))
            self.curves.setdefault(key, {})[row["curve"]] = x, y

    def others(self, runs: Sequence[StudyRun]) -> list[StudyRun]:
        """The runs of which a row or a folder has other settings, or a config.json is damaged."""
        return [run for run in runs if self._is_other(run, if_damaged=True)]

    def drop(self, runs: Sequence[StudyRun]) -> None:
        """Removes what there is of these runs, rows and folders' contents."""
        with self._lock:
            self._read()
            for run in runs:
                self.rows.pop(run.key, None)
                self.curves.pop(run.key, None)
                if run.planned.folder.exists():
                    start_anew(run.planned)
            self._write()

    def collect(self, runs: Sequence[StudyRun], but: Collection[StudyRun] = ()) -> list[StudyRun]:
        """Adds the rows of runs that came to their end since; returns the runs that are left to do.

        Another process may do so with the same study. but: runs that are left whatever there is of
        them. Raises ConfigError if a row or a folder is of other settings than its run; a run whose
        tables are damaged is named, and left.
        """
        anew = {run.key for run in but}
        with self._lock:
            self._read()
            compared = (run for run in runs if run.key not in anew)
            if other := [run for run in compared if self._is_other(run, if_damaged=False)]:
                names = ", ".join(run.name for run in other[:2])
                names += ", ..." * (len(other) > 2)
                raise ConfigError(
                    f"{len(other)} runs were done with other settings than {self.study.path} has "
                    f"now ({names}): --overwrite does them anew, or name another study"
                )
            news = [run for run in runs if run.key not in anew and self._is_news(run)]
            for run in news:
                try:
                    self._add(run)
                except ConfigError as error:
                    print(f"warning: {run.name}: {error}", flush=True)
            if news:
                self._write()
        return [run for run in runs if run.key in anew or run.key not in self.rows]

    def _is_news(self, run: StudyRun) -> bool:
        """Whether its folder holds a run that ended, and the row lacks it, or one of its outcomes."""
        finished, row = is_finished(run.planned.folder), self.rows.get(run.key)
        why = failure(run.planned.folder)
        if not finished and why is None:
            return False
        done = row is not None and row["status"] == FINISHED
        if row is None or (not done and row["status"] != _status(why)):
            return True
        complete = all(row.get(name) for name in self.study.parts[run.key[0]].outcomes)
        return finished == done and not complete

    def _is_other(self, run: StudyRun, *, if_damaged: bool) -> bool:
        if run.key in self.rows:
            return self.rows[run.key]["settings"] != run.fingerprint
        if not (run.planned.folder / CONFIG).exists():
            return False
        try:
            config = checked_config(run.planned.folder)
        except ConfigError:
            return if_damaged
        usual = defaults(run.planned.settings)
        return fingerprint(config["exp"], flatten(config["settings"]), usual) != run.fingerprint

    def _add(self, run: StudyRun) -> None:
        outcomes = self.study.parts[run.key[0]].outcomes
        self._judge(run.planned.folder, outcomes)
        done = read_run(run.planned.folder)
        self.rows[run.key] = {
            **dict(zip(KEY, map(str, run.key), strict=True)),
            "steps": str(done.steps),
            "status": _status(done.failure),
            "settings": run.fingerprint,
            "commit": done.config.get("versions", {}).get("commit", ""),
            **{name: _short(OUTCOMES[name].of(done)) for name in ("seconds", *outcomes)},
        }
        found = curves(done).items()
        self.curves[run.key] = {name: (_rounded(x), _rounded(x.values())) for name, x in found}

    def _write(self) -> None:
        """Both files, rows sorted by their key."""
        columns = dict.fromkeys((*FACTS, *(name for row in self.rows.values() for name in row)))
        rows = [
            dict(zip(KEY, key, strict=True)) | {"curve": name, "x": _join(x), "y": _join(y)}
            for key in sorted(self.curves)
            for name, (x, y) in self.curves[key].items()
        ]
        # The curves first: a row says that all is there.
        write_text(self._curves_path, table_text(CURVES, rows))
        write_text(self._path, table_text(columns, [self.rows[key] for key in sorted(self.rows)]))

    def places(self, part: Part) -> dict[Place, list[Key]]:
        """The runs done at each place, by seed; an arm is at levels that mean nothing to it, too."""
        found = {}
        for level, (name, arm) in itertools.product(part.levels, part.arms.items()):
            keys = [(part.name, name, words(level, arm.without), seed) for seed in part.seeds]
            found[words(level), name] = [key for key in keys if key in self.rows]
        return found

    def keys(self, part: Part) -> list[Key]:
        """The part's runs done; that of an arm which a factor means nothing to counts once."""
        return list(dict.fromkeys(itertools.chain(*self.places(part).values())))

    def has_lost(self, key: Key, outcome: str) -> bool:
        """Whether the run, or its judging, failed, so that an outcome may lack for that."""
        row = self.rows[key]
        judged = OUTCOMES[outcome].judged_on is not None and bool(row.get(outcome))  # in vain
        return row["status"] != FINISHED or judged

    def number(self, key: Key, outcome: str) -> float:
        """An outcome of a run; NaN if it has none."""
        text = self.rows[key].get(outcome) or "nan"
        with _undamaged(self._path):
            return float(text)


def _keyed(path: Path, needed: Sequence[str]) -> list[tuple[Key, Row]]:
    """A CSV's rows with their keys."""
    with _undamaged(path):
        rows = read_table(path)
        if any(row.get(name) is None for row in rows for name in needed):
            raise ValueError("a row was cut")
        return [((row["part"], row["arm"], row["level"], int(row["seed"])), row) for row in rows]


@contextmanager
def _undamaged(path: Path) -> Iterator[None]:
    """ConfigError for what reading a damaged CSV raises."""
    try:
        yield
    except (KeyError, TypeError, ValueError, csv.Error):
        raise ConfigError(f"{path} is damaged: put back what was committed") from None


def _status(why: str | None) -> str:
    """Of a run that ended: what it failed of, if it did."""
    return FINISHED if why is None else f"failed: {why}"


def _short(x: float) -> str:
    """Five digits, or all whole ones: more than any other seed repeats."""
    return f"{x:.0f}" if 1e5 <= abs(x) < 1e15 else f"{x:.5g}"


def _rounded(values: Iterable[float]) -> np.ndarray:
    return np.array([float(_short(x)) for x in values])


def _join(values: np.ndarray) -> str:
    return " ".join(map(_short, values))
