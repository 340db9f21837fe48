"""Videos of whole episodes, as mp4 and without a screen: what `--video` records.

Not Gymnasium's RecordVideo: it keeps an episode's pictures in memory (0.7 GB for MuJoCo's 1000
steps), writes at the reset after, under the final name, and its moviepy holds Pillow below 12.
Pictures go straight to the ffmpeg of imageio-ffmpeg, on which moviepy rests as well.
"""

import os
from collections import deque
from collections.abc import Generator, Iterable
from contextlib import closing, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gymnasium as gym
import numpy as np

from envs import EnvSpec, make_env
from envs.errors import ConfigError

Film = Generator[None, np.ndarray | None, None]


def video_env(spec: EnvSpec) -> "EpisodeRecorder":
    """The environment of `spec` to evaluate in, which can record its episodes.

    It gives the same rewards and observations as make_env(spec, training=False), to the bit, when
    each episode has a seed. Raises ConfigError if nothing can be drawn or written here, which
    would otherwise show at the first video, perhaps hours later.
    """
    try:
        from imageio_ffmpeg import get_ffmpeg_exe

        get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        message = f"--video needs ffmpeg ({_first_line(error)}): pip install -e '.[video]'"
        raise ConfigError(message) from error
    env = make_env(spec, training=False, render_mode="rgb_array")
    env.reset(seed=0)
    try:
        env.render()
    except Exception as error:  # each of the libraries that draw has its own
        env.close()
        message = f"--video: {spec.backend} cannot draw on this machine: {_first_line(error)}"
        raise ConfigError(message) from error
    return EpisodeRecorder(env)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


class EpisodeRecorder(gym.Wrapper):
    """Records chosen episodes of an environment with render_mode "rgb_array".

    A video holds a picture of the start and one of each step, at the environment's own frames per
    second. It gets its name when its episode has ended; an episode that is left before its end
    leaves no file. Episodes that are not recorded are not drawn.
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self._paths: deque[Path | None] = deque()
        self._video: Film | None = None

    def record(self, paths: Iterable[Path | None]) -> None:
        """Says where the coming episodes' videos go, in order; None, and no more paths: none."""
        self._paths = deque(paths)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode. Raises OSError if its video cannot be written; step does too."""
        self._leave()
        answer = super().reset(seed=seed, options=options)
        if path := self._paths.popleft() if self._paths else None:
            self._video = _film(path, self.metadata["render_fps"], np.asarray(self.render()))
            next(self._video)
        return answer

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        answer = super().step(action)
        if self._video:
            self._video.send(np.asarray(self.render()))
            _, _, terminated, truncated, _ = answer
            if terminated or truncated:
                with suppress(StopIteration):
                    self._video.send(None)
                self._video = None
        return answer

    def close(self) -> None:
        self._leave()
        super().close()

    def _leave(self):
        if self._video:
            self._video.close()
            self._video = None


def _film(path: Path, fps: float, first: np.ndarray) -> Film:
    """Takes pictures, then None for the end; closed before that it leaves no file.

    It grows in a temporary folder beside its path, which is gone with the interpreter.
    """
    from imageio_ffmpeg import count_frames_and_secs, write_frames

    picture: np.ndarray | None = first
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=".video-") as folder:
        partial, size = os.path.join(folder, path.name), first.shape[1::-1]
        # H.264 needs even sizes, not imageio's multiples of 16.
        how = {"fps": fps, "macro_block_size": 2, "ffmpeg_log_level": "fatal"}
        writer, count = write_frames(partial, size, **how), 0
        writer.send(None)  # starts ffmpeg
        with closing(writer), suppress(OSError):
            while picture is not None:
                count += 1
                writer.send(np.ascontiguousarray(picture))  # MuJoCo's are views, upside down
                picture = yield
        written = 0
        with suppress(RuntimeError):  # on a full disk ffmpeg may leave a stump, and not say so
            written, _ = count_frames_and_secs(partial)
        if picture is not None or written != count:
            raise OSError(f"ffmpeg could not write {path}; is the disk full?")
        os.replace(partial, path)
