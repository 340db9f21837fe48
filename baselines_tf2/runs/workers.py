"""Evaluation episodes on all cores, in processes that load neither TensorFlow nor the driver.

Not multiprocessing's: those import the main program first, and live on when it is killed. Not
threads: of a step of HalfCheetah half is Python, which one thread at a time can run.
"""

import os
import signal
import subprocess
import sys
from bdb import BdbQuit
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import Connection, Pipe
from pathlib import Path

import numpy as np

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.rollout import Episode, Policy
from baselines_tf2.runs.judging import Robot, run_episode
from baselines_tf2.runs.video import EpisodeRecorder, video_env
from envs import ConfigError, EnvSpec, make_env

# What an episode may raise; anything else is a bug, and ends the worker with a traceback.
ANSWERED = (ConfigError, TrainingError, MemoryError, OSError, BdbQuit)

Job = tuple[int, Robot | None, Path | None]  # an episode: its seed, robot and video


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
        robots: Sequence[Robot | None],
        videos: Sequence[Path | None] | None = None,
    ) -> list[Episode]:
        """What `evaluate` gives in an environment of `spec`, to the bit; to be called once.

        policy: of what can be pickled and loaded without TensorFlow. videos: where each episode is
        recorded, if it is. Raises ConfigError and TrainingError as `video_env` and `run_episode`
        do, and TrainingError if another process dies.
        """
        seeds = rng.integers(2**31, size=len(robots)).tolist()
        videos = videos or [None] * len(robots)
        jobs = list(zip(seeds, robots, videos, strict=True))
        # Dealt in turn: those that are recorded, which take longest, first.
        order = sorted(range(len(jobs)), key=lambda k: videos[k] is None)
        *shares, own = (order[i :: len(self._workers) + 1] for i in range(len(self._workers) + 1))
        for worker, share in zip(self._workers, shares, strict=True):
            worker.send((policy, spec, [jobs[k] for k in share]))
        done = dict(zip(own, run_jobs(policy, spec, [jobs[k] for k in own]), strict=True))
        for worker, share in zip(self._workers, shares, strict=True):
            done |= zip(share, worker.receive(), strict=True)
        return [done[k] for k in range(len(jobs))]

    def close(self) -> None:
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.wait()


def run_jobs(
    policy: Policy, spec: EnvSpec, jobs: Sequence[Job], stopped: Callable[[], bool] = lambda: False
) -> list[Episode]:
    """One process's share; stopped() is asked before each episode, whether any is still wanted."""
    videos = [video for *_, video in jobs]
    with closing(video_env(spec) if any(videos) else make_env(spec, training=False)) as env:
        if isinstance(env, EpisodeRecorder):
            env.record(videos)
        return [
            run_episode(policy, env, seed=seed, physics=robot)
            for seed, robot, _ in jobs
            if not stopped()
        ]


class _Worker:
    """Another process, which ends with this one, however that ends."""

    def __init__(self):
        self._connection, theirs = Pipe()
        code = f"from {__name__} import serve; serve({theirs.fileno()})"
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-c", code],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for this process, which then ends the others
        )
        theirs.close()

    def send(self, share: tuple[Policy, EnvSpec, list[Job]]) -> None:
        with suppress(OSError):  # it has died, as `receive` will say
            self._connection.send(share)

    def receive(self) -> list[Episode]:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError):
            status = self.process.wait()
            end = f"ended by itself, with status {status}"
            if status < 0:
                end = f"was ended by {signal.Signals(-status).name}; if memory was short, free some"
            raise TrainingError(f"a process that stepped evaluations {end}") from None
        if isinstance(answer, Exception):
            raise answer
        return answer


def serve(handle: int) -> None:
    """A worker's main program: answers with its share's episodes, or with what one raised."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # half a video is then removed
    connection = Connection(handle)
    with suppress(EOFError, ConnectionError, KeyboardInterrupt):
        policy, spec, jobs = connection.recv()
        try:  # nothing more comes but the end, if the other process dies
            answer: list[Episode] | Exception = run_jobs(policy, spec, jobs, connection.poll)
        except ANSWERED as error:
            answer = error
        connection.send(answer)
