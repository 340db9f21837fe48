"""Every solver's hypergradient against the exact one and that of the re-solved problem.

On snapshots of OMD's runs with small critics and one critic step per update (K = 1), each with one
replayed batch. Two answers are given, in float64: the theorem's at the snapshot, where f is not 0,
by the whole matrix; and the derivative of the outer loss where the critics stand N steps of gradient
descent with momentum later, on this batch, targets held as f holds them, by reverse mode through all
steps, beside central differences along each candidate. Farther on there is none to compare with: a
relu network's minima lie on kinks.
"""

import os
import time
from collections import defaultdict
from dataclasses import replace
from functools import cache
from statistics import median

from baselines_tf2.common.threads import set_threads

set_threads()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
from absl import app, flags

from baselines_tf2.common.compile import called_directly, compiled
from baselines_tf2.common.files import table_text, write_text
from baselines_tf2.common.rollout import SerialEnvs
from baselines_tf2.runs.experiment import make_settings
from baselines_tf2.runs.training import spawn_seeds
from envs import make_env
from omd_tf2.cartpole import experiments as cartpole
from omd_tf2.cartpole import update as cartpole_update
from omd_tf2.common.experiment import make_loop
from omd_tf2.common.solver import SolverConfig
from omd_tf2.common.transition import from_replay
from omd_tf2.halfcheetah import experiments as halfcheetah
from omd_tf2.halfcheetah import update as halfcheetah_update
from omd_tf2.implicit import gradient_of
from omd_tf2.implicit.structures import ravel, transposed

FLAGS = flags.FLAGS
flags.DEFINE_integer("seed", 0, "Of runs, batches and noise.", lower_bound=0)
flags.DEFINE_integer("rounds", 15, "How often each is timed.", lower_bound=1)
flags.DEFINE_string("out", "docs/studies/hypergradient.csv", "The table.")

SETTINGS = {  # name -> room, update, task, snapshots after so many steps, units
    "CartPole": (cartpole, cartpole_update, "cartpole", (2_000, 5_000, 20_000), (16, 32)),
    "HalfCheetah": (halfcheetah, halfcheetah_update, "cheetah", (11_000, 25_000, 50_000), (32, 32)),
}
TRAINED = (
    "agent.residual_model=false", "agent.inner_steps=1", "agent.cycle_steps=10",
    "agent.solver.name=gauss_newton", "agent.solver.ridge_relative=0.1",
    "agent.solver.correct_inner=true", "agent.solver.on_failure=use",
)  # fmt: skip
AFTER = (1, 10, 100)  # steps of descent with
MOMENTUM, STEP = 0.9, 0.5  # STEP over the largest eigenvalue
RIDGE = 1e-5  # the original's, of the exact answer too: without it the matrix is singular
DIFFERENCE = 1e-3  # of the model's weights, as a vector
USE = {"on_failure": "use"}


def solvers(largest: float) -> dict[str, SolverConfig | None]:
    """By name; the Neumann series is told the matrix's largest eigenvalue; VAML needs none."""
    newton = {
        f"gauss_newton {'corrected ' * corrected}{r:g}": SolverConfig(
            "gauss_newton", ridge_relative=r, correct_inner=corrected, **USE
        )
        for corrected in (False, True)
        for r in (0.01, 0.1, 1.0, 10.0)
    }
    return {
        "identity": SolverConfig(),
        **newton,
        "cg 100": SolverConfig("cg", ridge=RIDGE, max_steps=100, **USE),
        "minres 50": SolverConfig("minres", ridge=RIDGE, max_steps=50, **USE),
        "neumann 50": SolverConfig("neumann", step_size=1 / float(largest), max_steps=50, **USE),
        "vaml": None,
    }


def snapshots(name: str) -> list[tuple]:
    """(step, agent's settings, learned state, a real batch) of the run."""
    room, _, task, steps, (hidden, model_hidden) = SETTINGS[name]
    sizes = [f"agent.hidden_dim={hidden}", f"agent.model_hidden_dim={model_hidden}"]
    overrides = [*TRAINED, *sizes, f"train.num_timesteps={steps[-1]}"]
    settings = make_settings(room.EXPERIMENTS[f"omd_{task}"], "default", None, overrides)
    config, seeds = settings.agent, spawn_seeds(FLAGS.seed)
    envs = SerialEnvs([make_env(settings.env, training=True)])
    rng = np.random.default_rng(FLAGS.seed)
    agent, found = room.make_agent(envs, config, seeds.agent), []

    def on_epoch(epoch):
        if epoch.step in steps:
            rows = agent.replay.sample_many(rng, 1, config.batch_size, distinct=True)[0]
            real = from_replay(agent.replay.layout.unpack(tf.constant(rows)))
            found.append((epoch.step, config, agent.state, real))

    make_loop(agent, envs, settings, seeds, None).run(on_epoch)
    return found


class Problem:
    """The bilevel problem in vectors, the critics' w and the model's theta; compiled.

    data: state, real batch and noise, of which all but critics and model are held.
    """

    def __init__(self, update, config, data: tuple):
        self._update, self._config, self._unravel = update, config, ravel(data)[1]
        self._critics, self._model = ravel(data[0].critics)[1], ravel(data[0].model)[1]
        parts = self._inner, self._f, self._outer, self._hessian
        self.inner, self.f, self.outer, self.hessian = map(compiled, parts)
        self.fast = cache(self._fast)

    def gradient(self, solver: SolverConfig | None, data: tuple) -> tf.Tensor:
        """The solver's hypergradient; None: the gradient of VAML's loss, which solves nothing."""
        if solver:
            find, config = self._update.model_gradient, replace(self._config, solver=solver)
        else:
            find = self._update.model_loss_and_gradient
            config = replace(self._config, agent="vaml", solver=SolverConfig())
        return ravel(find(*data, config)[1])[0]

    def _fast(self, solver):
        """The same of the data as a vector, compiled."""
        return called_directly(compiled(lambda flat: self.gradient(solver, self._unravel(flat))))

    def _inner(self, w, theta, data):
        state, *batch = data
        args = self._critics(w), self._model(theta), state, *batch, self._config
        return self._update.model_critic_loss(*args)

    def _f(self, w, theta, data):
        return gradient_of(lambda w: self._inner(w, theta, data))(w)

    def _outer(self, w, data):
        moved = data[0]._replace(critics=self._critics(w))
        config = replace(self._config, solver=SolverConfig())
        return self._update.model_gradient(moved, *data[1:], config)[0]

    def _hessian(self, w, theta, data):
        _, product = transposed(lambda w: self._f(w, theta, data), w)
        return tf.map_fn(product, tf.eye(w.shape[0], dtype=w.dtype))

    def descend(self, theta, count, step_size, data):
        """The critics after `count` steps."""
        w, _ = ravel(data[0].critics)
        speed = tf.zeros_like(w)
        for _ in range(count):
            speed = MOMENTUM * speed - step_size * self.f(w, theta, data)
            w += speed
        return w


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return x @ y / np.linalg.norm(x) / np.linalg.norm(y)


def relative_error(x: np.ndarray, y: np.ndarray) -> float:
    return np.linalg.norm(x - y) / np.linalg.norm(y)


def measured(problem: Problem, data32: tuple) -> list[dict]:
    """A snapshot's rows, one for each solver."""
    data = tf.nest.map_structure(lambda x: tf.cast(x, "float64"), data32)
    (w, _), (theta, _) = ravel(data[0].critics), ravel(data[0].model)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch((w, theta))
        loss, f = problem.outer(w, data), problem.f(w, theta, data)
    g, hessian = tape.gradient(loss, w).numpy(), problem.hessian(w, theta, data).numpy()
    eigenvalues = np.linalg.eigvalsh(hessian)
    adjoint = np.linalg.solve(hessian + RIDGE * np.eye(len(hessian)), g)
    found = {"exact": -tape.gradient(f, theta, tf.constant(adjoint)).numpy()}
    step_size, last = STEP / eigenvalues[-1], AFTER[-1]
    for count in AFTER:
        with tf.GradientTape() as tape:
            tape.watch(theta)
            after = problem.descend(theta, count, step_size, data)
            last_loss = problem.outer(after, data)
        found[f"after {count}"] = tape.gradient(last_loss, theta).numpy()
    length = np.linalg.norm(found[f"after {last}"])
    shared = {
        "smallest": eigenvalues[0],
        "largest": eigenvalues[-1],
        "negative": np.mean(eigenvalues < -RIDGE),
        "zero": np.mean(abs(eigenvalues) <= RIDGE),
        "f_norm": np.linalg.norm(f),
        "g_norm": np.linalg.norm(g),
        "inner_loss": float(problem.inner(w, theta, data)),
        "inner_loss_after": float(problem.inner(after, theta, data)),
        "outer_loss": float(loss),
        "outer_loss_after": float(last_loss),
    }

    def slope(direction):
        """The central difference along it, as a share of the gradient's length."""
        move = DIFFERENCE * direction / np.linalg.norm(direction)
        ends = [problem.descend(theta + x, last, step_size, data) for x in (move, -move)]
        change = np.subtract(*[float(problem.outer(end, data)) for end in ends])
        return change / (2 * DIFFERENCE * length)

    configs = solvers(eigenvalues[-1])
    answers = {name: problem.gradient(config, data).numpy() for name, config in configs.items()}
    times = timed(problem, configs, data32, answers)
    found = answers | found
    return [{
        **shared,
        "solver": name,
        **times.get(name, {}),
        "cos_exact": cosine(x, found["exact"]),
        "error_exact": relative_error(x, found["exact"]),
        **{f"cos_{n}": cosine(x, found[f"after {n}"]) for n in AFTER},
        f"error_{last}": relative_error(x, found[f"after {last}"]),
        f"slope_{last}": slope(x),
    } for name, x in found.items()]  # fmt: skip


def timed(problem: Problem, configs: dict, data: tuple, answers: dict) -> dict[str, dict]:
    """Median CPU time of each compiled one, and its rounding in float32."""
    flat, spent, rounded = ravel(data)[0], defaultdict(list), {}
    for _ in range(1 + FLAGS.rounds):  # in turns: what the machine does meanwhile hits all of them
        for name, config in configs.items():
            start = time.process_time()
            rounded[name] = problem.fast(config)(flat).numpy()
            spent[name].append(1000 * (time.process_time() - start))
    return {  # the first call compiles
        name: {"ms": median(spent[name][1:]), "rounding": relative_error(rounded[name], x)}
        for name, x in answers.items()
    }


def main(_) -> None:
    rows = []
    for name, (_, update, *_) in SETTINGS.items():
        problem = None
        for step, config, state, real in snapshots(name):
            rng = np.random.default_rng([FLAGS.seed, step])
            noise = tf.constant(rng.standard_normal(real.actions.shape), "float32")
            data = state, real, noise
            problem = problem or Problem(update, config, data)
            rows += [{"setting": name, "step": step} | row for row in measured(problem, data)]
            write_text(FLAGS.out, table_text(rows[0], rows))
            print(f"{name}, {step:,} steps: {FLAGS.out} has them", flush=True)


if __name__ == "__main__":
    app.run(main)
