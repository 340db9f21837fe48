"""Many runs at once on Ray: each a task in a worker process of its own, here or on a cluster."""

import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pkgutil import resolve_name
from typing import Any, NamedTuple

from baselines_tf2.common.errors import TrainingError
from baselines_tf2.common.threads import set_threads, threads
from baselines_tf2.sweeps.table import Report, Row, Table
from envs.display import silent_streams
from envs.errors import ConfigError

# Runs that share a GPU must not take all of its memory. Ray sets OMP_NUM_THREADS to a task's CPUs.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
RAY_VARIABLES = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # it is 15; a run here should not differ
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # what a lost worker means the table says
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # no line of a raylet's among the table's
}
STORE_BYTES = 100 * 2**20  # nearly nothing goes through Ray's object store; it asks for 75 MB
LOOK_SECONDS = 1.0  # between two looks at the tasks
REPORT_SECONDS = 0.5  # between two reports of a run
SAVE_SECONDS = 60.0  # that interrupted runs have to write their checkpoints
MAX_LOSSES = 5  # of workers without a step in between; a run that always kills its worker must end


class Progress:
    """What an entry point tells of its run; it reaches the table at most twice a second."""

    def __init__(self, send: Callable[[Report], None]):
        self._send, self._sent = send, time.monotonic()
        # Step and time of the first update; a resumed run's is not step 0.
        self._first: tuple[int, float] | None = None
        self.report = Report()
        send(self.report)

    def start(self, total: int) -> None:
        """Says how many steps the run will have."""
        self.report = self.report._replace(total=total)

    def update(self, step: int, episode_return: float | None = None) -> None:
        """Says how far the run is, and the latest episode's return if there is one."""
        now = time.monotonic()
        self._first = self._first or (step, now)
        speed = (step - self._first[0]) / max(now - self._first[1], 1e-9)
        latest = self.report.episode_return if episode_return is None else episode_return
        self.report = self.report._replace(step=step, episode_return=latest, speed=speed or None)
        if now - self._sent >= REPORT_SECONDS:
            self._sent = now
            self._send(self.report)

    resume = update

    def tell(self, text: str) -> None:
        """Shows the user a line."""
        self.report = self.report._replace(notes=(*self.report.notes, text))
        self._send(self.report)


class Outcome(NamedTuple):
    """How a task ended: with an error, interrupted from outside, or with neither."""

    report: Report
    error: str | None = None
    interrupted: bool = False


Attempt = tuple[str, int]  # name of the task, and how many processes it had lost


class Board:
    """Takes the runs' reports and hands them to the driver: an actor beside it, without a CPU."""

    def __init__(self):
        self._reports: dict[Attempt, Report] = {}

    def put(self, attempt: Attempt, report: Report) -> None:
        self._reports[attempt] = report

    def take(self) -> dict[Attempt, Report]:
        """The latest report of each attempt that sent one since the last call."""
        reports, self._reports = self._reports, {}
        return reports


def launch(
    tasks: Mapping[str, Sequence],
    entry: str,
    *,
    address: str | None,
    cpus: float,
    gpus: float,
    calls: int = 1,
    before: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
) -> dict[str, str]:
    """Runs `entry` on each task's arguments, as many at a time as there are CPUs and GPUs.

    tasks: {name: JSON-like arguments}. entry: "module:function"; called in a process that does
    `calls` tasks, one after the other, as function(arguments, progress), with a `Progress`, in the
    main thread, so that it may install signal handlers. cpus, gpus: of each task; fractions of a GPU
    share it. address: "host:port" of a Ray cluster (`ray start --head`), of which this machine must
    be a node; None starts Ray here, and ends it again. before() is called once Ray is there and has
    room; after() whenever a task has come to its end.

    A task whose process or node dies, or is told to end (SIGTERM), is run again, `MAX_LOSSES`
    times without a step in between: resuming is the entry's part. An exception in the entry fails
    that task only. Nodes of a cluster must have the project installed, and in common the folders
    that the arguments name, by absolute paths. A cluster that wants a token wants
    RAY_AUTH_MODE=token here too.

    A terminal shows a live table of the tasks, a file a line for each change of state. Returns
    {name: error in one line} of the tasks that failed. KeyboardInterrupt (Ctrl-C) is raised in the
    running entries too, and again here, at most `SAVE_SECONDS` later. Raises ConfigError if Ray is
    missing, the cluster cannot be joined, or no node has room for a task.
    """
    if not cpus > 0:
        raise ConfigError(f"cpus_per_run must be above 0, not {cpus:g}")
    if not gpus >= 0 or (gpus > 1 and gpus % 1):
        allowed = "0, a part of one GPU, or a whole number"
        raise ConfigError(f"gpus_per_run must be {allowed}, not {gpus:g}")
    with _session(address) as ray:
        _check_room(ray, cpus, gpus)
        before()
        # max_calls: TensorFlow keeps memory and global state.
        each = {"num_cpus": cpus, "num_gpus": gpus, "max_calls": calls}
        return _Sweep(ray, tasks, entry, each).run(after)


@contextmanager
def _session(address: str | None) -> Iterator[Any]:
    """The module ray, connected; the handler of SIGTERM, which Ray replaces, is kept."""
    for name, value in RAY_VARIABLES.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError:
        message = "running several runs at once needs Ray: pip install -e '.[sweep]'"
        raise ConfigError(message) from None
    set_threads()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _connect(ray, address)
        signal.signal(signal.SIGTERM, handler)
        yield ray
    finally:
        ray.shutdown()
        signal.signal(signal.SIGTERM, handler)


def _connect(ray, address: str | None) -> None:
    where = {"address": "local", "include_dashboard": False, "object_store_memory": STORE_BYTES}
    if address is not None:
        _check_reachable(address)
        where = {"address": address}
    env = {"env_vars": ENVIRONMENT | threads()}
    try:
        with silent_streams():
            ray.init(**where, runtime_env=env, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        wants_token = "AuthenticationError" in str(error.__cause__)
        hint = "; it wants a token: export RAY_AUTH_MODE=token" * wants_token
        raise ConfigError(f"Ray cannot start: {_in_one_line(error)}{hint}") from None


def _check_reachable(address: str) -> None:
    """Ray itself would try for two minutes, and fill the terminal meanwhile."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except (OSError, OverflowError, ValueError):
        raise ConfigError(
            f"no Ray cluster answers at '{address}': write host:port of one that "
            "`ray start --head` has started"
        ) from None


def _check_room(ray, cpus: float, gpus: float) -> None:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    room = [(node.get("CPU", 0), node.get("GPU", 0)) for node in nodes]
    if not any(cpus <= its_cpus and gpus <= its_gpus for its_cpus, its_gpus in room):
        has = ", ".join(sorted({f"{c:g} and {g:g}" for c, g in room}))
        raise ConfigError(
            f"no node has the {cpus:g} CPUs and {gpus:g} GPUs that a run asks for: they have {has}; "
            "lower --cpus_per_run or --gpus_per_run"
        )


class _Sweep:
    """The driver's side: submits the tasks, and the lost ones again; Ray would do so untold."""

    def __init__(self, ray, tasks: Mapping[str, Sequence], entry: str, each: dict[str, Any]):
        self._ray, self._tasks, self._entry = ray, tasks, entry
        node = ray.get_runtime_context().get_node_id()
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=True)
        # Few pending calls: were the board out of reach, the runs' memory would fill with them.
        options = {"num_cpus": 0, "max_restarts": -1, "max_pending_calls": 10}
        self._board = ray.remote(Board).options(**options, scheduling_strategy=here).remote()
        self._remote = ray.remote(max_retries=0, **each)(_run)
        self._rows = {name: Row(name) for name in tasks}
        self._table = Table([*self._rows.values()])
        self._pending: dict[Any, Row] = {}  # by the reference

    def run(self, after: Callable[[], None]) -> dict[str, str]:
        try:
            for row in self._rows.values():
                self._submit(row)
            while self._pending:
                done = self._wait(LOOK_SECONDS)
                self._read_board()
                for reference in done:
                    self._settle(self._pending.pop(reference), reference)
                if done:
                    after()
                self._table.draw()
        except KeyboardInterrupt:
            for reference in reversed(self._pending):  # the waiting ones first, lest they start
                self._ray.cancel(reference)
            print("interrupted: waiting for the running runs to save", flush=True)
            self._wait(SAVE_SECONDS)
            raise
        return {name: row.error for name, row in self._rows.items() if row.state == "failed"}

    def _wait(self, seconds: float) -> list:
        """The tasks that are done, once all are or the time is over."""
        references = list(self._pending)
        return self._ray.wait(references, num_returns=len(references), timeout=seconds)[0]

    def _submit(self, row: Row) -> None:
        given = self._entry, self._tasks[row.name], self._board, (row.name, row.losses)
        self._pending[self._remote.remote(*given)] = row

    def _read_board(self) -> None:
        reports = {}
        with suppress(self._ray.exceptions.RayError):  # without it the table stands still
            reports = self._ray.get(self._board.take.remote(), timeout=LOOK_SECONDS)
        for (name, losses), report in reports.items():
            row = self._rows[name]
            if losses == row.losses and row.state not in ("failed", "finished"):
                self._take(row, report)
                if row.state != "running":
                    self._table.change(row, "running")

    def _take(self, row: Row, report: Report) -> None:
        for text in report.notes[len(row.report.notes) :]:
            self._table.note(row, text)
        row.report = report

    def _settle(self, row: Row, reference) -> None:
        errors = self._ray.exceptions
        try:
            outcome = self._ray.get(reference)
        except (errors.RayTaskError, errors.RuntimeEnvSetupError) as error:  # before the entry
            text = _in_one_line(getattr(error, "cause", None) or error)
            self._table.change(row, "failed", text)
        except errors.OutOfMemoryError:
            self._lose(row, "its node ran out of memory")
        except errors.RayError:
            self._lose(row, "its worker or node died")
        else:
            self._take(row, outcome.report)
            if outcome.interrupted:
                self._lose(row, "its worker was told to end")
            elif outcome.error is not None:
                self._table.change(row, "failed", outcome.error)
            else:
                self._table.change(row, "finished")

    def _lose(self, row: Row, reason: str) -> None:
        row.losses, step = row.losses + 1, row.report.step or 0
        row.report = row.report._replace(notes=())
        row.idle_losses = 1 if step > row.furthest else row.idle_losses + 1
        row.furthest = max(row.furthest, step)
        if row.idle_losses > MAX_LOSSES:
            reason += f", after {MAX_LOSSES} other losses: "
            reason += "once the machine is well the same command goes on"
            self._table.change(row, "failed", reason)
        else:
            self._table.change(row, "retried", reason)
            self._submit(row)


def _run(entry: str, arguments: tuple, board, attempt: Attempt) -> Outcome:
    """What a worker does; exceptions become text, since an entry's types may not be importable."""

    def send(report: Report) -> None:
        with suppress(Exception):  # no report is worth a run
            board.put.remote(attempt, report)

    progress = Progress(send)
    for number in (signal.SIGINT, signal.SIGTERM):  # not the last task's; Ray's looks like an error
        signal.signal(number, signal.default_int_handler)
    try:
        resolve_name(entry)(arguments, progress)
    except KeyboardInterrupt:
        return Outcome(progress.report, interrupted=True)
    except (Exception, SystemExit) as error:
        logging.getLogger(__name__).exception(entry)  # into Ray's log of this worker
        return Outcome(progress.report, error=_in_one_line(error))
    return Outcome(progress.report)


def _in_one_line(error: BaseException) -> str:
    """An error's type and message; the message alone where it was written for the user."""
    text = " ".join(str(error).split())
    if isinstance(error, (ConfigError, TrainingError, SystemExit)) and text:
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
