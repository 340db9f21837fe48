"""A Ray cluster on this machine for tests, whose nodes can be killed."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

RAY = Path(sys.executable).with_name("ray")
SETTINGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": secrets.token_hex(32),  # one for all: a process reads it once
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # it is 15: beside other tests they would starve
    "RAY_prestart_worker_first_driver": "0",  # processes without a task's variables serve none
    # Nodes on one machine do not lag: one that is silent for two seconds is dead.
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_failure_threshold": "4",
}


@contextmanager
def cluster() -> Iterator[str]:
    """Starts a node with one CPU and gives the address; the tests' token is their own."""
    folder, port = tempfile.mkdtemp(dir="/tmp"), _free_port()  # a short path: it holds sockets
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (SETTINGS).items():
            patch.setenv(name, value)
        head = _start_node(
            "--head",
            "--include-dashboard=false",
            "--node-ip-address=127.0.0.1",
            f"--port={port}",
            f"--ray-client-server-port={_free_port()}",
            f"--temp-dir={folder}",
        )
        try:
            _wait_until(lambda: _answers(port))
            yield f"127.0.0.1:{port}"
        finally:
            kill_node(head)
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def second_node(address: str) -> Iterator[subprocess.Popen]:
    """Adds a node with one CPU to the cluster; `kill_node` kills it with all its workers."""
    import ray

    node = _start_node(f"--address={address}", "--node-ip-address=127.0.0.2")
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        _wait_until(lambda: sum(node["Alive"] for node in ray.nodes()) == 2)
        ray.shutdown()
        yield node
    finally:
        kill_node(node)
        ray.shutdown()


def kill_node(node: subprocess.Popen) -> None:
    if node.poll() is None:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()


def _start_node(*flags):
    command = [RAY, "start", "--block", "--num-cpus=1", "--object-store-memory=80000000", *flags]
    command += ["--no-monitor", "--include-log-monitor=false"]  # nobody reads them
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(command, start_new_session=True, **quiet)


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _wait_until(holds, seconds=60):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "Ray did not start"
        time.sleep(0.1)
