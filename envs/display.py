"""The terminal and the screen, which simulators take for granted."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from glob import glob

# Mesa's software renderer, in its older and newer packaging.
MESA_DRIVERS = (
    "/usr/lib/*/dri/swrast_dri.so",
    "/usr/lib64/dri/swrast_dri.so",
    "/usr/lib/*/libgallium-*.so",
    "/usr/lib64/libgallium-*.so",
)


@contextmanager
def silent_streams() -> Iterator[None]:
    """Sends file descriptors 1 and 2 to nowhere; exceptions pass, and nothing else is changed.

    Bullet prints from C, out of reach of contextlib.redirect_stdout. Not for use while other
    threads print.
    """
    with open(os.devnull, "wb") as nowhere, ExitStack() as after:  # calls back in reverse
        for fd, stream in ((1, sys.stdout), (2, sys.stderr)):
            stream.flush()
            saved = os.dup(fd)
            after.callback(os.close, saved)
            after.callback(os.dup2, saved, fd)
            after.callback(stream.flush)
            os.dup2(nowhere.fileno(), fd)
        yield


def has_screen() -> bool:
    """Whether a window could be opened."""
    return sys.platform != "linux" or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def prepare_drawing_without_screen() -> None:
    """Makes MuJoCo draw through EGL, also beside TensorFlow; nothing if there is a screen.

    MuJoCo's default, GLFW, needs a screen. TensorFlow exports its LLVM symbols to every library
    that is loaded after it, and Mesa's software renderer crashes on them
    (tensorflow/tensorflow#109933); so its driver is loaded here to prefer its own.
    """
    if has_screen():
        return
    os.environ.setdefault("MUJOCO_GL", "egl")
    for path in (path for pattern in MESA_DRIVERS for path in glob(pattern)):
        with suppress(OSError):  # another architecture's
            ctypes.CDLL(path, mode=os.RTLD_NOW | os.RTLD_LOCAL | os.RTLD_DEEPBIND)
