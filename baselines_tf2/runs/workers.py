"""Evaluation episodes on all cores, in processes that load neither TensorFlow nor the driver.

Not multiprocessing's: those import the main program first, and live on when it is killed. Not
threads: of a step of HalfCheetah half is Python, which one thread at a time can run.
"""

import os
import signal
import subprocess
import sys
from bdb import BdbQuit
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from functools import partial
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import NamedTuple

import numpy as np

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.rollout import Episode, Policy
from baselines_tf2.runs.judging import run_episode
from baselines_tf2.runs.video import EpisodeRecorder, video_env
from envs import ConfigError, EnvSpec, make_env

# What an episode may raise; anything else is a bug, and ends the worker with a traceback.
ANSWERED = (ConfigError, TrainingError, MemoryError, OSError, BdbQuit)


class Job(NamedTuple):
    """One episode."""

    seed: int
    robot: dict[str, float] | None
    video: Path | None


def usable_cores() -> int:
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Workers:
    """The other processes of an evaluation: started at once, to load while the caller does.

    cores: on how many to step, this process's included; None: all.
    """

    def __init__(self, cores: int | None = None):
        self._workers = [_Worker() for _ in range((cores or usable_cores()) - 1)]

    def evaluate(
        self,
        policy: Policy,
        spec: EnvSpec,
        rng: np.random.Generator,
        robots: Sequence[dict[str, float] | None],
        videos: Sequence[Path | None] | None = None,
    ) -> list[Episode]:
        """What `evaluate` gives in an environment of `spec`, to the bit; to be called once.

        policy: of what can be pickled and loaded without TensorFlow. videos: where each episode is
        recorded, if it is. Raises ConfigError and TrainingError as `video_env` and `run_episode`
        do, and TrainingError if another process dies.
        """
        start = policy, spec, videos is not None
        seeds = rng.integers(2**31, size=len(robots)).tolist()
        jobs = map(Job, seeds, robots, videos or [None] * len(robots))
        todo, done = iter(list(enumerate(jobs))), {}

        def work(run: Callable[[Job], Episode]) -> None:
            try:
                for k, job in todo:  # shared by the threads: each takes the next one
                    done[k] = run(job)
            finally:
                deque(todo, maxlen=0)  # after an error nobody begins another one

        with closing(_Stage(*start)) as own, ThreadPoolExecutor(len(self._workers) + 1) as pool:
            try:
                others = [pool.submit(work, partial(x.run, start)) for x in self._workers]
                work(own.run)
                for other in others:
                    other.result()
            except BaseException:
                self.close()  # or the pool would wait for episodes that nobody wants
                raise
        return [done[k] for k in range(len(robots))]

    def close(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.wait()


class _Stage:
    """An environment and who acts in it: what all of a worker's episodes have in common."""

    def __init__(self, policy: Policy, spec: EnvSpec, video: bool):
        self._policy = policy
        self._env = video_env(spec) if video else make_env(spec, training=False)

    def run(self, job: Job) -> Episode:
        if isinstance(self._env, EpisodeRecorder):
            self._env.record([job.video])
        return run_episode(self._policy, self._env, seed=job.seed, physics=job.robot)

    def close(self) -> None:
        self._env.close()


class _Worker:
    """Another process with a stage of its own, which ends with this one, however that ends."""

    def __init__(self):
        self._started, (self._connection, theirs) = False, Pipe()
        code = f"from {__name__} import serve; serve({theirs.fileno()})"
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for this process, which then ends the others
        )
        theirs.close()

    def run(self, start: tuple[Policy, EnvSpec, bool], job: Job) -> Episode:
        try:
            self._connection.send((None if self._started else start, job))
            self._started = True
            answer = self._connection.recv()
        except (EOFError, OSError):
            raise TrainingError(f"a process that stepped evaluations {self._end()}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _end(self) -> str:
        status = self.process.wait()
        if status >= 0:
            return f"ended by itself, with status {status}"
        return f"was ended by {signal.Signals(-status).name}; if memory was short, free some"


def serve(handle: int) -> None:
    """A worker's main program: answers each job with its episode, or with what it raised."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # half a video is then removed
    connection = Connection(handle)
    with suppress(EOFError, ConnectionError, KeyboardInterrupt), ExitStack() as stack:
        while True:
            start, job = connection.recv()
            try:
                if start:
                    stage = stack.enter_context(closing(_Stage(*start)))
                answer: Episode | Exception = stage.run(job)
            except ANSWERED as error:
                answer = error
            connection.send(answer)
