"""Checkpoints: all that a run needs to go on as if it had never stopped.

A checkpoint is a manifest, `step_<n>.json`, that names its files and their SHA-256: `step_<n>.npz`,
a tree of states, and the files that together hold the replay's rows. A row is written once, however
many checkpoints share its file; a checkpoint counts only once its manifest is there.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from baselines_tf2.common import files
from baselines_tf2.common.errors import Interrupted
from baselines_tf2.common.replay import Replay
from baselines_tf2.common.state import Part, State
from envs.errors import ConfigError, check_at_least

DEFAULT_EVERY, DEFAULT_KEEP = 10_000, 2
TREE = "tree"  # the entry of the .npz that says where each array belongs


class Checkpoints:
    """The checkpoints of one run's folder: when they are due, how they are saved and found again.

    every: steps between two; keep: how many stay. interrupted() is asked after each cycle: once
    true the state is saved and Interrupted raised. tell(text) reaches the user.
    """

    def __init__(
        self,
        folder: Path,
        *,
        every: int = DEFAULT_EVERY,
        keep: int = DEFAULT_KEEP,
        interrupted: Callable[[], bool] = lambda: False,
        tell: Callable[[str], None] = print,
    ):
        check_at_least(1, checkpoint_every=every, keep_checkpoints=keep)
        self._folder, self._every, self._keep = folder / "checkpoints", every, keep
        self._interrupted, self.tell = interrupted, tell
        self.step = 0  # of the latest checkpoint, or of the start
        self._rows: dict[str, str] = {}  # the replay's files -> SHA-256
        self._next_row = 0  # the replay's first row that no file holds

    def exist(self) -> bool:
        """Whether there is any, sound or not."""
        return bool(self._manifests())

    def after_cycle(
        self, step: int, state: Callable[[], State], replay: Replay | None = None
    ) -> None:
        """Saves if a checkpoint is due; saves and raises Interrupted if the user stops the run."""
        interrupted = self._interrupted()
        if interrupted or step // self._every > self.step // self._every:
            self.save(step, state(), replay)
        if interrupted:
            raise Interrupted(f"interrupted at step {step:,}: --resume goes on from there")

    def save(self, step: int, state: State, replay: Replay | None = None) -> None:
        """Writes a checkpoint, then removes what only older ones needed.

        Raises OSError as the system does; the checkpoints before it are then untouched.
        """
        self._folder.mkdir(exist_ok=True)
        name = f"step_{step:012d}"
        if replay is not None:
            self._save_rows(replay)
        digests = {f"{name}.npz": self._write(f"{name}.npz", pack(state))} | self._rows
        files.write_json(self._folder / f"{name}.json", {"step": step, "files": digests})
        self.step = step
        self._remove(self._manifests()[self._keep :])

    def load(self, replay: Replay | None = None) -> State:
        """The latest sound checkpoint's state, the replay filled; None where there is none.

        Damaged ones are named to the user and removed. Raises ConfigError if none is sound.
        """
        found = self._manifests()
        for i, path in enumerate(found):
            try:
                state, rows = self._read(path)
            except ConfigError as error:
                what = f"checkpoint {path.stem} is damaged, trying the one before"
                self.tell(f"warning: {what}: {error}")
                continue
            if replay is not None:
                for saved in rows:
                    replay.put_rows(saved)
            self._remove(found[:i])
            return state
        if not found:
            return None
        raise ConfigError(f"no checkpoint in {self._folder} is sound: start again with --overwrite")

    def resume(self, parts: Mapping[str, Part], replay: Replay | None = None) -> dict | None:
        """Puts each part, in this order, back to where the latest checkpoint has it, and says so.

        Returns what their set_state returned, by name; None, and nothing is done, where there is no
        checkpoint. Raises ConfigError as `load` and the parts do.
        """
        saved = self.load(replay)
        if saved is None:
            return None
        returned = {name: part.set_state(saved[name]) for name, part in parts.items()}
        self.tell(f"going on from step {self.step:,}")
        return returned

    def remove(self) -> None:
        """Removes all: a finished run needs none."""
        self._remove(self._manifests())
        with suppress(OSError):  # there is none, or a file in it that is not ours
            self._folder.rmdir()

    def _save_rows(self, replay):
        if replay.next_row > self._next_row:
            name = f"replay_{self._next_row:012d}_{replay.next_row:012d}.npz"
            self._rows[name] = self._write(name, replay.get_rows(self._next_row))
            self._next_row = replay.next_row
        self._rows = {x: sha for x, sha in self._rows.items() if _stop(x) > replay.first_row}

    def _write(self, name, arrays):
        """The file's SHA-256."""
        files.write_arrays(self._folder / name, arrays)
        return _digest(self._folder / name)

    def _read(self, path):
        """The state, and the replay's rows in order; ConfigError unless every file is sound."""
        try:
            manifest = json.loads(path.read_text())
            step, digests = int(path.stem.removeprefix("step_")), dict(manifest["files"])
            if manifest["step"] != step:
                raise ConfigError(f"it says that its step is {manifest['step']}")
            for name, digest in digests.items():
                if _digest(self._folder / name) != digest:
                    raise ConfigError(f"{name} is not as it was written")
            name, *rows = digests
            state = unpack(files.read_arrays(self._folder / name))
        except (KeyError, TypeError, ValueError, AttributeError, FileNotFoundError) as error:
            raise ConfigError(f"{path.name} cannot be used: {error}") from None
        self.step, self._rows = step, {name: digests[name] for name in rows}
        # Of what was saved the last row may still change: where no simulator goes on within an
        # episode, it becomes the episode's end.
        self._next_row = max(map(_stop, rows), default=1) - 1
        return state, (files.read_arrays(self._folder / name) for name in rows)

    def _manifests(self):
        """Newest first."""
        return sorted(self._folder.glob("step_*.json"), reverse=True)

    def _remove(self, manifests):
        """Manifests first: what dies in between leaves files too many, never too few."""
        for path in manifests:
            path.unlink()
        files.remove_partial_files(self._folder)
        with suppress(ConfigError, KeyError, TypeError):  # in doubt nothing goes; later it will
            used = {name for path in self._manifests() for name in files.read_json(path)["files"]}
            for path in self._folder.glob("*.npz"):
                if path.name not in used and path.name.startswith(("step_", "replay_")):
                    path.unlink()


def _stop(name: str) -> int:
    """The row after the last one of a file of rows."""
    return int(name.removesuffix(".npz").rpartition("_")[2])


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pack(tree: State) -> dict[str, np.ndarray]:
    """Arrays for an .npz: those of the tree, and the tree itself as JSON with their names in it."""
    arrays: dict[str, np.ndarray] = {}

    def encode(node):
        if isinstance(node, np.ndarray):
            name = f"array_{len(arrays)}"
            arrays[name] = node
            return {"array": name}
        if isinstance(node, Mapping):
            return {"table": {name: encode(value) for name, value in node.items()}}
        if isinstance(node, list | tuple):
            return [encode(value) for value in node]
        return node.item() if isinstance(node, np.generic) else node

    text = json.dumps(encode(tree))
    return arrays | {TREE: np.array(text)}


def unpack(arrays: Mapping[str, np.ndarray]) -> State:
    """The tree that `pack` took; its tuples come back as lists."""

    def decode(node):
        if isinstance(node, list):
            return [decode(value) for value in node]
        if not isinstance(node, dict):
            return node
        if "array" in node:
            return arrays[node["array"]]
        return {name: decode(value) for name, value in node["table"].items()}

    return decode(json.loads(str(arrays[TREE])))
