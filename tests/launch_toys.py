"""Entry points for the tests of the launcher: (arguments, progress), without TensorFlow."""

import json
import os
import signal
import time
from pathlib import Path

from baselines_tf2.sweeps.launch import Board


def count(arguments, progress):
    """Counts to `steps` in a file, resuming from what it finds there; the sum is its result."""
    path, steps, seconds = Path(arguments[0]), arguments[1], arguments[2]
    step, total = json.loads(path.read_text()) if path.exists() else (0, 0)
    progress.start(steps)
    while step < steps:
        step, total = step + 1, total + step
        time.sleep(seconds)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps((step, total)))
        partial.rename(path)
        progress.update(step, float(total))
        send_itself_a_signal(arguments[3:], path, step)


def send_itself_a_signal(extras, path, step):
    """extras: the signal, and at which step; on the first attempt only."""
    if extras and step == extras[1]:
        marker = path.with_suffix(".signalled")
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), extras[0])
            time.sleep(5)


def linger(arguments, progress):
    """Goes on until the file is there that says it was seen."""
    for step in range(1, 600):
        progress.update(step)
        time.sleep(0.05)
        if Path(arguments[0]).exists():
            return


def fail(arguments, progress):
    progress.update(3)
    raise ValueError(f"no luck\nwith {arguments[0]}")


def leave(arguments, progress):
    raise SystemExit("error: enough")


def play(arguments, progress):
    """Any of these, by the name that comes first."""
    globals()[arguments[0]](arguments[1:], progress)


def die(arguments, progress):
    os.kill(os.getpid(), signal.SIGKILL)


def describe(arguments, progress):
    """Writes down the process it finds itself in."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    facts = {"pid": os.getpid(), "nice": os.nice(0), "threads": [os.environ[n] for n in names]}
    Path(arguments[0]).write_text(json.dumps(facts))


def outlive(arguments, progress):
    """Waits until a node was killed; each start leaves a line with its own node."""
    import ray

    mine, killed = map(Path, arguments)
    node = os.getppid()
    with open(mine, "a") as file:
        file.write(ray.get_runtime_context().get_node_id() + "\n")
    wait_for(killed)
    time.sleep(0.2)
    if os.getppid() != node:  # the node is dead, which kills this process soon
        time.sleep(60)


def save_when_told(arguments, progress):
    """Takes a while to save, from a handler that only the entry can have installed."""

    def stop(*_):
        raise KeyboardInterrupt("stop")

    signal.signal(signal.SIGINT, stop)
    path = Path(arguments[0])
    try:
        path.touch()
        for _ in range(600):  # Ray's Ctrl-C is noticed between steps, it does not break a sleep
            time.sleep(0.1)
    except KeyboardInterrupt as error:
        time.sleep(1)
        path.write_text(f"saved at {error}")
        raise


def wait_for(path, seconds=30):
    end = time.monotonic() + seconds
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert path.exists()


class DyingBoard(Board):
    def put(self, key, report):
        os._exit(1)
