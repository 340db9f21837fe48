"""Runs any experiment of the project: `python run_experiments.py --exp=diffcritic_cheetah`."""

import bdb
import errno
import os
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

from baselines_tf2.common.threads import set_threads

if __name__ == "__main__":  # Ctrl-C while libraries load ends the process without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
set_threads()

from absl import app, flags, logging
from tqdm import tqdm

from envs import ConfigError, unknown
from envs.display import silent_streams

with silent_streams():  # some of TensorFlow's notices of missing CUDA heed no log level
    import tensorflow as tf

    tf.config.list_physical_devices()
# Three digits are too few for the linear solvers.
tf.config.experimental.enable_tensor_float_32_execution(False)

from baselines_tf2.common.checkpoint import DEFAULT_EVERY, DEFAULT_KEEP, Checkpoints
from baselines_tf2.common.errors import Interrupted, TrainingError
from baselines_tf2.common.evaluate_run import evaluate_run, load_agent, unfinished
from baselines_tf2.common.experiment import FAILED, whole_number
from baselines_tf2.common.launch import Task, launch
from baselines_tf2.common.plan import (
    Chosen,
    PlannedRun,
    Variant,
    check_apart,
    choose,
    left_to_do,
    parse_seeds,
    variants,
)
from baselines_tf2.common.report import write_report
from baselines_tf2.common.run_folder import (
    carry_out,
    finished_summary,
    is_finished,
    locked,
    open_folder,
)
from baselines_tf2.common.study import plan, read_study
from baselines_tf2.common.study_page import write_page
from baselines_tf2.common.study_smoke import smoke
from baselines_tf2.common.study_store import Store
from baselines_tf2.ddpg import experiments as ddpg
from omd_tf2.cartpole import experiments as cartpole
from omd_tf2.cartpole import sweeps
from omd_tf2.halfcheetah import experiments as halfcheetah
from omd_tf2.tabular import experiments as tabular

EXPERIMENTS = (
    ddpg.EXPERIMENTS
    | tabular.EXPERIMENTS
    | cartpole.EXPERIMENTS
    | sweeps.EXPERIMENTS
    | halfcheetah.EXPERIMENTS
)

RUNS_PER_PROCESS = 20  # of a study: loading the libraries takes as long as a tenth of a short run
PATIENCE = 60.0  # [s] that a sweep's run waits for its dead predecessor to leave the folder
# Of one run, and what a sweep hands on to each of its runs.
RUN_FLAGS = (
    "exp", "backend", "num_timesteps", "preset", "eager", "video",
    "checkpoint_every", "keep_checkpoints",
)  # fmt: skip
SWEEP_FLAGS = ("seeds", "ray_address", "cpus_per_run", "gpus_per_run")
# What each mode reads; any other flag beside it is a mistake.
FLAGS_OF = {
    "train": (*RUN_FLAGS, *SWEEP_FLAGS, "set", "seed", "logdir", "overwrite", "resume"),
    "evaluate": ("run", "grid", "protocol", "variant", "episodes", "seed", "video", "overwrite"),
    "report": ("runs", "out"),
    "study": (
        "study", "parts", "smoke", "collect", "logdir", "overwrite", "ray_address", "cpus_per_run",
        "gpus_per_run",
    ),
}  # fmt: skip


class _Count(flags.ArgumentParser):
    """A whole number, also as 2e4."""

    def flag_type(self) -> str:
        return "whole number"

    def parse(self, argument: str | int) -> int:
        try:
            return whole_number(str(argument))
        except (ValueError, OverflowError):
            raise ValueError("it must be a whole number") from None


FLAGS = flags.FLAGS
flags.DEFINE_string("exp", None, "Which experiment to run; --list shows them.")
flags.DEFINE_string(
    "mode",
    "train",
    "train; evaluate a finished --run; report, a page on the runs of --runs; or do a --study.",
)
flags.DEFINE_string("run", None, "For --mode=evaluate: the run's folder.")
flags.DEFINE_string(
    "grid",
    "",
    "For --mode=evaluate: torso_mass=3,6,9;friction=0.5,1; default: what the ensemble varies.",
)
flags.DEFINE_string(
    "protocol", None, "For --mode=evaluate: rrls1, rrls2, rrls3, an uncertainty set of the robot's."
)
flags.DEFINE_string("variant", None, "Of --protocol: corrected, the default, or as_published.")
flags.DEFINE_integer("episodes", 10, "For --mode=evaluate: episodes on each robot of the grid.")
flags.DEFINE_multi_string("runs", [], "For --mode=report: run folders or their parents, a glob.")
flags.DEFINE_string("out", "report", "For --mode=report: the folder of the page and its pictures.")
flags.DEFINE_string("study", None, "For --mode=study: its file, docs/studies/NAME.toml.")
flags.DEFINE_list(
    "parts", [], "For --mode=study: its parts, in the order to do them; default: all."
)
flags.DEFINE_bool("collect", False, "For --mode=study: start no run, take in those that ended.")
flags.DEFINE_bool(
    "smoke", False, "For --mode=study: try it out with tiny runs, in a minute or two."
)
flags.DEFINE_bool("list", False, "Print the table of experiments and stop.")
flags.DEFINE_string("backend", None, "mujoco or pybullet; default: the experiment's first.")
flags.DEFINE_integer("seed", 0, "Seed of everything random in the run.", 0, 2**31 - 1)
flags.DEFINE(
    _Count(),
    "num_timesteps",
    None,
    "Environment steps, as in 200000 or 2e5; default: the experiment's.",
    serializer=flags.ArgumentSerializer(),
)
flags.DEFINE_string("logdir", "runs", "Where run folders go: <logdir>/<exp>/<backend>/seed_<n>.")
flags.DEFINE_bool("eager", False, "Run every update uncompiled, to step through it.")
flags.DEFINE_string(
    "preset", "default", "default, what learns best here, or original, the source's settings."
)
flags.DEFINE_multi_string(
    "set", [], "Override a setting, as in --set=agent.gamma=0.98; one given again is swept."
)
flags.DEFINE_string("seeds", None, "A sweep on Ray over seeds, as in 0-9 or 0,3,5-7.")
flags.DEFINE_string("ray_address", None, "Sweep on this Ray cluster, host:port; default: here.")
flags.DEFINE_float(
    "cpus_per_run", 1.0, "Of a sweep, which it makes of a single run too: CPUs that a run takes."
)
flags.DEFINE_float("gpus_per_run", 0.0, "Of a sweep: GPUs that each run takes; 0.5: two share one.")
flags.DEFINE_bool("video", False, "Record an episode of each evaluation, or of each robot.")
flags.DEFINE_bool("overwrite", False, "Replace the run, or the evaluation, that the folder holds.")
flags.DEFINE_bool(
    "resume",
    False,
    "Go on with the run that the folder holds; start it if none. A sweep does so unasked.",
)
flags.DEFINE(
    _Count(),
    "checkpoint_every",
    DEFAULT_EVERY,
    "Steps between checkpoints, as in 5000 or 5e3.",
    serializer=flags.ArgumentSerializer(),
)
flags.DEFINE_integer(
    "keep_checkpoints", DEFAULT_KEEP, "How many checkpoints to keep until the end."
)


def load_run(folder: str | Path):
    """The trained agent of a run, any experiment's; `agent.predict(obs)` acts.

    Warns if the run is not finished. Raises ConfigError if a file of it is missing or damaged.
    """
    agent, _ = load_agent(EXPERIMENTS, Path(folder))
    if text := unfinished(Path(folder)):
        warnings.warn(text, stacklevel=2)
    return agent


class StopRequest:
    """What Ctrl-C and SIGTERM ask for: the first time to stop when the state is whole."""

    def __init__(self):
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def __call__(self) -> bool:
        return self.asked

    def _ask(self, number, frame):
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("\nstopping after this cycle; once more stops at once", file=sys.stderr)


class Bar:
    """A tqdm bar of steps, steps per second, time left and return."""

    def __init__(self):
        self.done = 0  # steps of this process
        self._step, self._bar = 0, None

    def start(self, total: int) -> None:
        self._bar = tqdm(total=total, unit="step", unit_scale=True, disable=None, mininterval=0.5)

    def update(self, step: int, episode_return: float | None) -> None:
        if episode_return is not None:
            self._bar.set_postfix({"return": f"{episode_return:.1f}"}, refresh=False)
        self._bar.update(step - self._step)
        self.done += step - self._step
        self._step = step

    def resume(self, step: int) -> None:
        self._bar.initial = self._bar.n = self._step = step
        self._bar.refresh()

    def tell(self, text: str) -> None:
        tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return FLAGS(argv)
    except flags.Error as error:
        sys.exit(f"error: {' '.join(str(error).split())}; --help lists the flags")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGTERM ends a run as Ctrl-C does
        signal.signal(number, signal.default_int_handler)
    try:
        if argv[1:]:
            raise ConfigError(f"unexpected argument '{argv[1]}': flags are written --name=value")
        if FLAGS.mode not in FLAGS_OF:
            raise unknown("mode", FLAGS.mode, FLAGS_OF)
        _check_flags()
        if FLAGS.list:
            _print_table()
        elif FLAGS.mode == "report":
            _print_summary(write_report(FLAGS.runs, Path(FLAGS.out)))
        elif FLAGS.mode == "evaluate":
            _evaluate()
        elif FLAGS.mode == "study":
            _study()
        else:
            combinations = variants(FLAGS.set)
            asked = any(FLAGS[name].present for name in SWEEP_FLAGS)
            if asked or len(combinations) > 1:
                _sweep(combinations)
            else:
                _run()
    except (ConfigError, TrainingError, Interrupted) as error:
        sys.exit(f"error: {error}")
    except (MemoryError, tf.errors.ResourceExhaustedError):
        sys.exit("error: not enough memory: make agent.replay_size or the networks smaller")
    except (KeyboardInterrupt, bdb.BdbQuit):
        sys.exit("error: interrupted")
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        cure = "choose another --logdir or --out"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            cure = "make room; --resume then goes on from the latest checkpoint"
        sys.exit(f"error: {error.strerror or error}{where}: {cure}")


def _check_flags() -> None:
    """ConfigError if a flag was given that the mode does not read."""
    mode, read = ("--list", ()) if FLAGS.list else (f"--mode={FLAGS.mode}", FLAGS_OF[FLAGS.mode])
    for name in dict.fromkeys(name for names in FLAGS_OF.values() for name in names):
        if FLAGS[name].present and name not in read:
            others = " and ".join(f"--mode={m}" for m, names in FLAGS_OF.items() if name in names)
            raise ConfigError(
                f"--{name} does nothing with {mode}, it is for {others}: leave it out"
            )


def _print_table() -> None:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--list | head` is no mistake
    rows = [(x.name, x.description, " ".join(x.backends), x.source) for x in EXPERIMENTS.values()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        line = "  ".join(f"{text:{width}}" for text, width in zip(row, widths, strict=True))
        print(line.rstrip())


def _evaluate() -> None:
    if not FLAGS.run:
        raise ConfigError("name the finished run's folder with --run=...")
    folder = Path(FLAGS.run)
    summary = evaluate_run(
        EXPERIMENTS,
        folder,
        FLAGS.grid,
        protocol=FLAGS.protocol,
        variant=FLAGS.variant,
        episodes=FLAGS.episodes,
        seed=FLAGS.seed,
        overwrite=FLAGS.overwrite,
        video=FLAGS.video,
    )
    _print_summary(summary)


def _run() -> None:
    bar = Bar()
    try:
        start = time.perf_counter()
        summary = run_once(bar)
    finally:
        bar.close()
    seconds = time.perf_counter() - start
    if bar.done:
        print(f"\n{bar.done:,} steps in {seconds:.0f} s, {bar.done / seconds:,.0f} per second")
    _print_summary(summary)
    if FAILED in summary:
        sys.exit(
            "error: not every run of the sweep came to its end: results.csv says which, and why; "
            "remove a run's folder and add --resume to try it again"
        )


def run_once(progress, patience: float = 0.0) -> dict[str, str]:
    """Does the run that the flags describe; returns its summary, {name: text}.

    progress: what `Progress` asks for, start(total) and tell(text). patience: seconds to wait for
    another process to leave the folder. Raises ConfigError, TrainingError, Interrupted and OSError.
    """
    chosen = _choose(FLAGS.set, FLAGS.logdir, FLAGS.seed)
    tf.config.run_functions_eagerly(FLAGS.eager)
    checkpoints = Checkpoints(
        chosen.folder,
        every=FLAGS.checkpoint_every,
        keep=FLAGS.keep_checkpoints,
        interrupted=StopRequest(),
        tell=progress.tell,
    )
    run = chosen.experiment.prepare(chosen.settings, FLAGS.seed, **_video(chosen.experiment))
    folder, flag_values = chosen.folder, chosen.flags
    with locked(folder, patience=patience):
        differing = open_folder(
            folder, flag_values, chosen.settings, overwrite=FLAGS.overwrite, resume=FLAGS.resume
        )
        for text in differing:
            checkpoints.tell(f"warning: {text}")
        if is_finished(folder) and finished_summary(folder):
            checkpoints.tell(f"{folder} is finished: nothing is left to do")
        progress.start(chosen.experiment.num_timesteps(chosen.settings))
        try:
            return carry_out(run, folder, progress, checkpoints) | {"folder": str(folder)}
        except Interrupted:
            raise
        except (KeyboardInterrupt, bdb.BdbQuit):
            raise _stopped_at_once(checkpoints) from None


def _stopped_at_once(checkpoints: Checkpoints) -> Interrupted:
    if checkpoints.exist():
        return Interrupted("interrupted: --resume goes on from the latest checkpoint")
    return Interrupted(
        "interrupted before the first checkpoint: what was logged is kept, --overwrite starts anew"
    )


def _choose(overrides: Sequence[str], logdir: str, seed: int) -> Chosen:
    if FLAGS.exp is None:
        raise ConfigError("name an experiment with --exp=...; --list shows them")
    if not logdir:
        raise ConfigError("--logdir is empty: name a folder for the runs")
    everything = list(overrides)
    if FLAGS.num_timesteps is not None:
        everything.append(f"train.num_timesteps={FLAGS.num_timesteps}")
    return choose(
        EXPERIMENTS,
        FLAGS.exp,
        everything,
        logdir,
        seed,
        FLAGS.backend,
        preset=FLAGS.preset,
        eager=FLAGS.eager,
    )


def _sweep(combinations: Sequence[Variant]) -> None:
    """Every combination with every seed, each a Ray task that resumes what it finds."""
    if FLAGS.seeds and FLAGS["seed"].present:
        raise ConfigError("give --seed or --seeds, not both")
    if FLAGS.overwrite and FLAGS.resume:
        raise ConfigError("a sweep resumes unasked: --overwrite starts anew, leave --resume out")
    seeds = parse_seeds(FLAGS.seeds) if FLAGS.seeds is not None else [FLAGS.seed]
    runs = [_plan(variant, seed) for variant in combinations for seed in seeds]
    check_apart(runs)
    left, failed = (runs, {}) if FLAGS.overwrite else left_to_do(runs)
    if finished := len(runs) - len(left) - len(failed):
        print(f"finished before: {finished} of {len(runs)}")
    _print_outcome(runs, failed | _launch(left))


def _plan(variant: Variant, seed: int) -> PlannedRun:
    logdir = str((Path(FLAGS.logdir) / variant.name).resolve()) if FLAGS.logdir else ""
    chosen = _choose(variant.overrides, logdir, seed)
    _video(chosen.experiment)
    given = [FLAGS[name].serialize() for name in RUN_FLAGS if FLAGS[name].present]
    sets = [f"--set={text}" for text in variant.overrides]
    arguments = (*given, f"--logdir={logdir}", f"--seed={seed}", "--resume", *sets)
    name = f"{variant.name} seed {seed}".strip()
    return PlannedRun(name, chosen.folder, chosen.flags, chosen.settings, arguments)


def _launch(runs: Sequence[PlannedRun], **others) -> dict[str, str]:
    """Does the runs; returns the errors of those that failed. others: of `launch`."""

    def empty_folders():  # once nothing that is asked for can be refused any more
        for run in runs if FLAGS.overwrite and FLAGS.mode == "train" else ():
            with locked(run.folder):
                open_folder(run.folder, run.flags, run.settings, overwrite=True, resume=False)

    if not runs:
        return {}
    try:
        return launch(
            [Task(run.name, run.arguments) for run in runs],
            "run_experiments:work",
            address=FLAGS.ray_address,
            cpus=FLAGS.cpus_per_run,
            gpus=FLAGS.gpus_per_run,
            before=empty_folders,
            **others,
        )
    except KeyboardInterrupt:
        same = "the same command, without --overwrite," if FLAGS.overwrite else "the same command"
        raise Interrupted(f"interrupted: {same} goes on with the sweep") from None


def _print_outcome(runs: Sequence[PlannedRun], failed: dict[str, str]) -> None:
    for run in runs:
        if run.name not in failed:
            result = next(iter(finished_summary(run.folder).values()))
            print(f"{run.name}: {result}  {run.folder}")
    lines = [
        f"  {run.name}: {failed[run.name]}  {run.folder}" for run in runs if run.name in failed
    ]
    if lines:
        sys.exit("\n".join([f"error: {len(lines)} of {len(runs)} runs failed:", *lines]))


def _study() -> None:
    """Does a study's runs that are left, takes their numbers in, and writes its page."""
    if not FLAGS.study:
        raise ConfigError("name the study's file with --study=docs/studies/NAME.toml")
    study = read_study(Path(FLAGS.study))
    if FLAGS.smoke:
        tf.config.run_functions_eagerly(True)
        return print(smoke(study, EXPERIMENTS, FLAGS.parts))
    runs = plan(study, EXPERIMENTS, FLAGS.logdir, FLAGS.parts)
    check_apart([run.planned for run in runs])
    store = Store(study)
    left = store.collect(runs, overwrite=FLAGS.overwrite)
    print(f"done before: {len(runs) - len(left)} of {len(runs)}", flush=True)

    def take_in():
        try:
            store.collect(runs)
        except (ConfigError, OSError) as error:  # no reason to stop the runs
            print(f"warning: {error}", flush=True)

    planned = [] if FLAGS.collect else [run.planned for run in left]
    errors = _launch(planned, calls=RUNS_PER_PROCESS, after=take_in)
    print(write_page(store, Path(FLAGS.logdir) / study.name))
    undone = {run.planned.name for run in store.collect(runs)}  # the others' failures are results
    if lines := [f"  {name}: {error}" for name, error in errors.items() if name in undone]:
        sys.exit("\n".join([f"error: {len(lines)} of {len(planned)} runs failed:", *lines]))


def work(arguments: Sequence[str], progress) -> None:
    """A worker's share of a sweep: the run of this command line."""
    FLAGS.unparse_flags()  # those of the process' last run
    FLAGS(["run_experiments.py", *arguments])
    logging.set_verbosity(logging.WARNING)
    if FAILED in run_once(progress, PATIENCE):
        raise TrainingError("not every part of it came to its end; its results.csv says which")


def _video(experiment) -> dict[str, bool]:
    if not FLAGS.video:
        return {}
    if experiment.load is None:
        raise ConfigError(f"--video: {experiment.name} evaluates no agent that could be seen")
    return {"video": True}


def _print_summary(summary: dict[str, str]) -> None:
    for name, text in summary.items():
        print(f"{name}\n{text}" if "\n" in text else f"{name:9}{text}")


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
