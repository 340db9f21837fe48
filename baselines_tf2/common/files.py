"""Files that are whole or not there: written under a temporary name, then renamed."""

import csv
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np

from envs.errors import ConfigError


def write_atomically(path: str | os.PathLike, write: Callable[[IO[bytes]], object]) -> None:
    """Calls write(file) on a temporary file beside `path`, which it then becomes.

    Once it returns, a power cut loses nothing either. Raises OSError as the system does, the file
    named; the old file, if there was one, is then untouched.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(partial, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        with suppress(OSError):  # some network disks cannot; the file itself is there
            sync(path.parent)
    except OSError as error:
        if error.errno and not error.filename:  # a write knows no name
            error.filename = str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Puts on the disk what was written to a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial_files(folder: Path) -> None:
    """Removes what a killed process left of files it was writing into the folder."""
    for path in folder.glob(".*.partial"):
        path.unlink()


def write_bytes(path: str | os.PathLike, data: bytes) -> None:
    write_atomically(path, lambda file: file.write(data))


def write_text(path: str | os.PathLike, text: str) -> None:
    write_bytes(path, text.encode())


def write_json(path: str | os.PathLike, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


@contextmanager
def _reading(path: str | os.PathLike, damaged: str) -> Iterator[None]:
    """Raises ConfigError if the file is missing or damaged."""
    try:
        yield
    except FileNotFoundError:
        raise ConfigError(f"there is no file {path}") from None
    except (OSError, TypeError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{path} cannot be read{damaged}: {error}") from None


def read_json(path: str | os.PathLike) -> Any:
    """Reads a JSON file; raises ConfigError if it is missing or damaged."""
    with _reading(path, " as JSON"):
        return json.loads(Path(path).read_text())


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV; [] if there is no such file."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def table_text(columns: Iterable[str], rows: Iterable[Mapping], *, header: bool = True) -> str:
    """A CSV's text; what a row lacks stays empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(columns), restval="", lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def write_arrays(path: str | os.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an .npz; no array may hold objects."""
    # NumPy's types take any name for that of its own keyword.
    write_atomically(path, lambda file: np.savez(file, **arrays))  # type: ignore[arg-type]


def read_arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads an .npz without pickle; raises ConfigError if it is missing or damaged."""
    with _reading(path, ", it is damaged or no .npz"), np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
