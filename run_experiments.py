"""Runs any experiment of the project: `python run_experiments.py --exp=diffcritic_cheetah`."""

import gc
import itertools
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

gc.disable()  # a second or two less until the libraries are loaded: their objects stay

from baselines_tf2.common.threads import set_threads

if __name__ == "__main__":  # Ctrl-C while libraries load ends the process without a traceback
    signal.signal(signal.SIGINT, signal.SIG_DFL)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
set_threads()

from absl import app, flags, logging

from envs import ConfigError
from envs.display import silent_streams
from envs.errors import check_at_least, check_known

with silent_streams():  # some of TensorFlow's notices of missing CUDA heed no log level
    import tensorflow as tf

    tf.config.list_physical_devices()
tf.config.experimental.enable_tensor_float_32_execution(False)  # too few digits for solvers

from baselines_tf2.ddpg import experiments as ddpg
from baselines_tf2.report.write import write_report
from baselines_tf2.runs import terminal
from baselines_tf2.runs.checkpoint import DEFAULT_EVERY, DEFAULT_KEEP, Checkpoints
from baselines_tf2.runs.evaluate_run import evaluate_run, load_agent, unfinished
from baselines_tf2.runs.experiment import Chosen, choose
from baselines_tf2.runs.folder import do_run
from baselines_tf2.sweeps.study import read_study
from baselines_tf2.sweeps.study_run import do_study, smoke
from baselines_tf2.sweeps.sweep import check_apart, do_sweep, parse_seeds, variants
from omd_tf2.cartpole import experiments as cartpole
from omd_tf2.halfcheetah import experiments as halfcheetah
from omd_tf2.tabular import experiments as tabular

if __name__ == "__main__":  # else it were the importer's objects, too
    gc.freeze()
gc.enable()

ROOMS = (ddpg, tabular, cartpole, halfcheetah)
EXPERIMENTS = {name: one for room in ROOMS for name, one in room.EXPERIMENTS.items()}
ENTRY = "run_experiments:work"
PATIENCE = 60.0  # [s] that a sweep's run waits for its dead predecessor to leave the folder
HANDED_ON = ("video", "checkpoint_every", "keep_checkpoints")  # to a sweep's runs, as they are
WHERE = {"ray_address": "address", "cpus_per_run": "cpus", "gpus_per_run": "gpus"}
# What each mode reads; any other flag beside it is a mistake.
FLAGS_OF = {
    "train": (
        "exp", "backend", "num_timesteps", "preset", "eager", *HANDED_ON, "seeds", *WHERE, "set",
        "seed", "logdir", "overwrite", "resume",
    ),
    "evaluate": ("run", "grid", "protocol", "variant", "episodes", "seed", "video", "overwrite"),
    "report": ("runs", "out"),
    "study": ("study", "parts", "smoke", "collect", "logdir", "overwrite", *WHERE),
}  # fmt: skip
# What of a study's flags is read beside one of these.
FLAGS_WITH = {
    "smoke": ("study", "parts", "smoke"),
    "collect": ("study", "parts", "collect", "logdir"),
}

FLAGS = flags.FLAGS
text, number, switch = flags.DEFINE_string, flags.DEFINE_float, flags.DEFINE_bool
count = partial(flags.DEFINE, terminal.Count(), serializer=flags.ArgumentSerializer())
text("exp", None, "Which experiment to run; --list shows them.")
text("mode", "train", "train; evaluate a --run; report, a page on the --runs; or do a --study.")
text("run", None, "For --mode=evaluate: the run's folder.")
text("grid", "", "For --mode=evaluate: torso_mass:3,6;friction:1; default: as the ensemble varies.")
text("protocol", None, "For --mode=evaluate: rrls1, rrls2 or rrls3, the robot's uncertainty set.")
text("variant", None, "Of --protocol: corrected, the default, or as_published.")
flags.DEFINE_integer("episodes", 10, "For --mode=evaluate: episodes on each robot of the grid.")
flags.DEFINE_multi_string("runs", [], "For --mode=report: run folders or their parents, a glob.")
text("out", "report", "For --mode=report: the folder of the page and its pictures.")
text("study", None, "For --mode=study: its file, docs/studies/NAME.toml.")
flags.DEFINE_list("parts", [], "For --mode=study: which, in the order to do them; default: all.")
switch("collect", False, "For --mode=study: start no run, take in those that ended.")
switch("smoke", False, "For --mode=study: try it out with tiny runs, in a minute or two.")
switch("list", False, "Print the table of experiments and stop.")
text("backend", None, "mujoco or pybullet; default: the experiment's first.")
flags.DEFINE_integer("seed", 0, "Seed of everything random in the run.", 0, 2**31 - 1)
text("logdir", "runs", "Where run folders go: <logdir>/<exp>/<backend>/seed_<n>.")
switch("eager", False, "Run every update uncompiled, to step through it.")
text("preset", "default", "default, what learns best here, or original, the source's settings.")
flags.DEFINE_multi_string("set", [], "A setting, as in agent.gamma=0.98; one given again is swept.")
text("seeds", None, "A sweep on Ray over seeds, as in 0-9 or 0,3,5-7.")
text("ray_address", None, "Sweep on this Ray cluster, host:port; default: here.")
number("cpus_per_run", 1.0, "Of a sweep, which it makes of a single run too: CPUs of each run.")
number("gpus_per_run", 0.0, "Of a sweep: GPUs that each run takes; 0.5: two share one.")
switch("video", False, "Record an episode of each evaluation, or of each robot.")
switch("overwrite", False, "Replace the run, or the evaluation, that the folder holds.")
switch("resume", False, "Go on with the folder's run; start it if none. A sweep does so unasked.")
count("num_timesteps", None, "Environment steps, as in 2e5; default: the experiment's.")
count("checkpoint_every", DEFAULT_EVERY, "Steps between checkpoints, as in 5000 or 5e3.")
count("keep_checkpoints", DEFAULT_KEEP, "How many checkpoints to keep until the end.")


def load_run(folder: str | Path):
    """The trained agent of a run, any experiment's; `agent.predict(obs)` acts.

    Warns if the run is not finished. Raises ConfigError if a file of it is missing or damaged.
    """
    agent, _ = load_agent(EXPERIMENTS, Path(folder))
    if text := unfinished(Path(folder)):
        warnings.warn(text, stacklevel=2)
    return agent


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return FLAGS(argv)
    except flags.Error as error:
        sys.exit(f"error: {' '.join(str(error).split())}; --help lists the flags")


def main(argv: list[str]) -> None:
    logging.set_verbosity(logging.WARNING)
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGTERM ends a run as Ctrl-C does
        signal.signal(number, signal.default_int_handler)
    with terminal.errors_in_one_line():
        if argv[1:]:
            raise ConfigError(f"unexpected argument '{argv[1]}': flags are written --name=value")
        check_known("mode", FLAGS.mode, FLAGS_OF)
        _check_flags()
        for name in ("logdir", "run", "out", "study"):  # --name=~/... reaches us as it is
            FLAGS[name].value = os.path.expanduser(FLAGS[name].value or "")
        if FLAGS.list:
            terminal.print_table(EXPERIMENTS)
        elif FLAGS.mode == "report":
            terminal.print_summary(write_report(FLAGS.runs, Path(FLAGS.out)))
        elif FLAGS.mode == "evaluate":
            _evaluate()
        elif FLAGS.mode == "study":
            _study()
        else:
            _train()


def _check_flags() -> None:
    """ConfigError if a flag was given that the mode does not read."""
    mode, read = ("--list", ()) if FLAGS.list else (f"--mode={FLAGS.mode}", FLAGS_OF[FLAGS.mode])
    for narrower, names in FLAGS_WITH.items():
        if FLAGS.mode == "study" and FLAGS[narrower].value:
            mode, read = f"--{narrower}", names
    for name in dict.fromkeys(name for names in FLAGS_OF.values() for name in names):
        if FLAGS[name].present and name not in read:
            others = " and ".join(f"--mode={m}" for m, names in FLAGS_OF.items() if name in names)
            text = f"--{name} does nothing with {mode}, it is for {others}: leave it out"
            raise ConfigError(text)


def _evaluate() -> None:
    if not FLAGS.run:
        raise ConfigError("name the finished run's folder with --run=...")
    given = _values("protocol", "variant", "episodes", "seed", "overwrite", "video")
    terminal.print_summary(evaluate_run(EXPERIMENTS, Path(FLAGS.run), FLAGS.grid, **given))


def _train() -> None:
    """One run, or every combination with every seed, each a Ray task that resumes what it finds."""
    combinations = variants(FLAGS.set)
    if not any(FLAGS[name].present for name in ("seeds", *WHERE)) and len(combinations) == 1:
        with terminal.Bar() as bar:
            summary = run_once(bar)
        return terminal.print_summary(summary)
    if FLAGS.seeds and FLAGS["seed"].present:
        raise ConfigError("give --seed or --seeds, not both")
    if FLAGS.overwrite and FLAGS.resume:
        raise ConfigError("a sweep resumes unasked: --overwrite starts anew, leave --resume out")
    seeds = parse_seeds(FLAGS.seeds) if FLAGS.seeds is not None else [FLAGS.seed]
    runs = []
    for (name, overrides), seed in itertools.product(combinations, seeds):
        logdir = str((Path(FLAGS.logdir) / name).resolve()) if FLAGS.logdir else ""
        runs.append((f"{name} seed {seed}".strip(), _choose(overrides, logdir, seed)))
    check_apart(run for _, run in runs)
    check_at_least(1, **_values("checkpoint_every", "keep_checkpoints"))
    more = [FLAGS[flag].serialize() for flag in HANDED_ON if FLAGS[flag].present]
    return do_sweep(dict(runs), ENTRY, more, **_values("overwrite", "video"), **_where())


def _where() -> dict[str, Any]:
    return {option: FLAGS[flag].value for flag, option in WHERE.items()}


def _values(*names: str) -> dict[str, Any]:
    return {name: FLAGS[name].value for name in names}


def _choose(overrides: Sequence[str], logdir: str, seed: int) -> Chosen:
    if FLAGS.exp is None:
        raise ConfigError("name an experiment with --exp=...; --list shows them")
    if not logdir:
        raise ConfigError("--logdir is empty: name a folder for the runs")
    steps = FLAGS.num_timesteps
    texts = [*overrides, *([] if steps is None else [f"train.num_timesteps={steps}"])]
    how = {"preset": FLAGS.preset, "eager": FLAGS.eager}
    return choose(EXPERIMENTS, FLAGS.exp, texts, logdir, seed, FLAGS.backend, **how)


def run_once(progress, patience: float = 0.0) -> dict[str, str]:
    """Does the run that the flags describe, as `do_run` does; returns its summary."""
    chosen = _choose(FLAGS.set, FLAGS.logdir, FLAGS.seed)
    tf.config.run_functions_eagerly(FLAGS.eager)
    checkpoints = Checkpoints(
        chosen.folder,
        every=FLAGS.checkpoint_every,
        keep=FLAGS.keep_checkpoints,
        interrupted=terminal.StopRequest(),
        tell=progress.tell,
    )
    options = _values("overwrite", "resume", "video")
    return do_run(chosen, progress, checkpoints, patience=patience, **options)


def _study() -> None:
    if not FLAGS.study:
        raise ConfigError("name the study's file with --study=docs/studies/NAME.toml")
    study = read_study(Path(FLAGS.study))
    if FLAGS.smoke:
        tf.config.run_functions_eagerly(True)
        return print(smoke(study, EXPERIMENTS, FLAGS.parts))
    options = _values("logdir", "parts", "collect", "overwrite")
    return do_study(study, EXPERIMENTS, ENTRY, **options, **_where())


def work(arguments: Sequence[str], progress) -> None:
    """A worker's share of a sweep: the run of this command line."""
    FLAGS.unparse_flags()  # those of the process' last run
    FLAGS(["run_experiments.py", *arguments])
    logging.set_verbosity(logging.WARNING)
    run_once(progress, PATIENCE)


if __name__ == "__main__":
    app.run(main, flags_parser=_parse_flags)
