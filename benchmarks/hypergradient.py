"""Every solver's hypergradient against the exact one and that of the re-solved problem.

On snapshots of OMD's runs with small critics and one critic step per update (K = 1), each with one
replayed batch. Two answers are given, in float64: the theorem's at the snapshot, where f is not 0,
by the whole matrix; and the derivative of the outer loss where the critics stand N steps of gradient
descent with momentum later, on this batch, targets held as f holds them, by reverse mode through all
steps, beside central differences along each candidate. Farther on there is none to compare with: a
relu network's minima lie on kinks.
"""

import time
from dataclasses import replace
from statistics import median

from _timing import start_tensorflow

start_tensorflow()

import numpy as np
import tensorflow as tf
from absl import app, flags

from baselines_tf2.common.compile import called_directly, compiled
from baselines_tf2.common.files import table_text, write_text
from baselines_tf2.common.rollout import Collector, SerialEnvs
from baselines_tf2.common.train_loop import TrainLoop
from baselines_tf2.runs.experiment import make_settings
from baselines_tf2.runs.training import spawn_seeds
from envs import make_env
from omd_tf2.cartpole import experiments as cartpole
from omd_tf2.cartpole import update as cartpole_update
from omd_tf2.common.solver import SolverConfig
from omd_tf2.common.transition import from_replay
from omd_tf2.halfcheetah import experiments as halfcheetah
from omd_tf2.halfcheetah import update as halfcheetah_update
from omd_tf2.implicit import gradient_of
from omd_tf2.implicit.structures import ravel, transposed

FLAGS = flags.FLAGS
flags.DEFINE_integer("seed", 0, "Of runs, batches and noise.", lower_bound=0)
flags.DEFINE_string("out", "docs/studies/hypergradient.csv", "The table.")

SETTINGS = {  # name -> room, update, experiment, snapshots after so many steps, overrides
    "CartPole": (cartpole, cartpole_update, "omd_cartpole", (2_000, 5_000, 20_000), [16, 32]),
    "HalfCheetah": (
        halfcheetah, halfcheetah_update, "omd_cheetah", (11_000, 25_000, 50_000), [32, 32],
    ),
}  # fmt: skip
TRAINED = (
    "agent.inner_steps=1", "agent.cycle_steps=10", "agent.solver.name=gauss_newton",
    "agent.solver.ridge_relative=0.1", "agent.solver.correct_inner=true",
    "agent.solver.on_failure=use",
)  # fmt: skip
AFTER, MOMENTUM, STEP = (
    (1, 10, 100),
    0.9,
    0.5,
)  # steps; of descent, STEP over the largest eigenvalue
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
    room, _, experiment, steps, (hidden, model_hidden) = SETTINGS[name]
    sizes = [f"agent.hidden_dim={hidden}", f"agent.model_hidden_dim={model_hidden}"]
    overrides = [*TRAINED, *sizes, f"train.num_timesteps={steps[-1]}"]
    settings = make_settings(room.EXPERIMENTS[experiment], "default", None, overrides)
    config, seeds = settings.agent, spawn_seeds(FLAGS.seed)
    env, rng = make_env(settings.env, training=True), np.random.default_rng(FLAGS.seed)
    agent = room.make_agent(config, env, seeds.agent)
    explore, found = np.random.default_rng(seeds.exploration), []

    def on_epoch(epoch):
        if epoch.step in steps:
            rows = agent.replay.sample_many(rng, 1, config.batch_size, distinct=True)[0]
            real = from_replay(agent.replay.layout.unpack(tf.constant(rows)))
            found.append((epoch.step, config, agent.state, real))

    TrainLoop(
        agent,
        Collector(SerialEnvs([env]), [], explore, seed=seeds.envs),
        num_timesteps=steps[-1],
        num_envs=1,
        nb_rollout_steps=config.cycle_steps,
        nb_epoch_cycles=1_000 // config.cycle_steps,
        random_steps=config.random_steps,
        overlap=False,
    ).run(on_epoch)
    return found


class Problem:
    """The bilevel problem in vectors, the critics' w and the model's theta; compiled.

    data: state, real batch and noise, of which all but critics and model are held.
    """

    def __init__(self, update, config, state):
        self._update, self._config = update, config
        self._critics, self._model = ravel(state.critics)[1], ravel(state.model)[1]
        for name in ("f", "inner", "outer", "hessian", "pull_back", "descend", "unrolled"):
            setattr(self, name, compiled(getattr(self, f"_{name}")))

    def gradient(self, solver: SolverConfig | None, data: tuple) -> tf.Tensor:
        """The solver's hypergradient; None: the gradient of VAML's loss, which solves nothing."""
        if solver is None:
            config = replace(self._config, agent="vaml", solver=SolverConfig())
            return ravel(self._update.model_loss_and_gradient(*data, config)[1])[0]
        config = replace(self._config, solver=solver)
        return ravel(self._update.model_gradient(*data, config)[1])[0]

    def _inner(self, w, theta, data):
        state, *batch = data
        args = self._critics(w), self._model(theta), state, *batch, self._config
        return self._update.model_critic_loss(*args)

    def _f(self, w, theta, data):
        return gradient_of(lambda w: self._inner(w, theta, data))(w)

    def _outer(self, w, data):
        def loss(w):
            moved = data[0]._replace(critics=self._critics(w))
            config = replace(self._config, solver=SolverConfig())
            return self._update.model_gradient(moved, *data[1:], config)[0]

        return loss(w), gradient_of(loss)(w)

    def _pull_back(self, w, theta, a, data):
        """(df/dw)^T a and (df/dtheta)^T a."""
        return transposed(lambda point: self._f(*point, data), (w, theta))[1](a)

    def _hessian(self, w, theta, data):
        _, product = transposed(lambda w: self._f(w, theta, data), w)
        return tf.map_fn(product, tf.eye(w.shape[0], dtype=w.dtype))

    def _descend(self, theta, count, step_size, data):
        """The critics before and after each of `count` steps, [max(AFTER) + 1, n]."""
        w, _ = ravel(data[0].critics)
        path = tf.tile(w[None], [AFTER[-1] + 1, 1])

        def step(k, w, speed, path):
            speed = MOMENTUM * speed - step_size * self._f(w, theta, data)
            w += speed
            return k + 1, w, speed, tf.tensor_scatter_nd_update(path, [[k + 1]], w[None])

        return tf.while_loop(lambda k, *_: k < count, step, (0, w, tf.zeros_like(w), path))[3]

    def _unrolled(self, theta, count, step_size, data):
        """Outer and inner loss after `count` steps, and the outer one's gradient in theta."""
        path = self._descend(theta, count, step_size, data)
        loss, a = self._outer(path[count], data)

        def back(k, a, speed, total):
            speed += a
            of_w, of_theta = self._pull_back(path[k], theta, speed, data)
            return k - 1, a - step_size * of_w, MOMENTUM * speed, total - step_size * of_theta

        start = (count - 1, a, tf.zeros_like(a), tf.zeros_like(theta))
        total = tf.while_loop(lambda k, *_: k >= 0, back, start)[3]
        return loss, self._inner(path[count], theta, data), total


def cosine(x: np.ndarray, y: np.ndarray) -> float:
    return x @ y / np.linalg.norm(x) / np.linalg.norm(y)


def relative_error(x: np.ndarray, y: np.ndarray) -> float:
    return np.linalg.norm(x - y) / np.linalg.norm(y)


def measured(problem: Problem, data32: tuple, fast: dict) -> list[dict]:
    """A snapshot's rows, one for each solver. fast: compiled functions to go on with."""
    data = tf.nest.map_structure(lambda x: tf.cast(x, "float64"), data32)
    (w, _), (theta, _) = ravel(data[0].critics), ravel(data[0].model)
    loss, g = problem.outer(w, data)
    hessian = problem.hessian(w, theta, data).numpy()
    eigenvalues = np.linalg.eigvalsh(hessian)
    step_size, last = tf.constant(STEP / eigenvalues[-1]), tf.constant(AFTER[-1])
    adjoint = np.linalg.solve(hessian + RIDGE * np.eye(len(hessian)), g.numpy())
    exact = -problem.pull_back(w, theta, tf.constant(adjoint), data)[1].numpy()
    after = {n: problem.unrolled(theta, tf.constant(n), step_size, data) for n in AFTER}
    last_loss, last_inner, resolved = after[AFTER[-1]]
    shared = {
        "smallest": eigenvalues[0],
        "largest": eigenvalues[-1],
        "negative": np.mean(eigenvalues < -RIDGE),
        "zero": np.mean(abs(eigenvalues) <= RIDGE),
        "f_norm": np.linalg.norm(problem.f(w, theta, data)),
        "g_norm": np.linalg.norm(g),
        "inner_loss": float(problem.inner(w, theta, data)),
        "inner_loss_after": float(last_inner),
        "outer_loss": float(loss),
        "outer_loss_after": float(last_loss),
    }

    def slope(direction):
        """The central difference along it, as a share of the gradient's length."""
        move = DIFFERENCE * direction / np.linalg.norm(direction)
        ends = [problem.descend(theta + x, last, step_size, data)[-1] for x in (move, -move)]
        change = np.subtract(*[float(problem.outer(end, data)[0]) for end in ends])
        return change / (2 * DIFFERENCE * np.linalg.norm(resolved))

    found, timed = answers(problem, solvers(eigenvalues[-1]), data, data32, fast)
    found |= {"exact": exact} | {
        f"after {n}": gradient.numpy() for n, (*_, gradient) in after.items()
    }
    return [{
        **shared,
        "solver": name,
        **timed.get(name, {}),
        "cos_exact": cosine(x, exact),
        "error_exact": relative_error(x, exact),
        **{f"cos_{n}": cosine(x, found[f"after {n}"]) for n in AFTER},
        f"error_{AFTER[-1]}": relative_error(x, resolved.numpy()),
        f"slope_{AFTER[-1]}": slope(x),
    } for name, x in found.items()]  # fmt: skip


def answers(problem: Problem, configs: dict, data: tuple, data32: tuple, fast: dict) -> tuple:
    """Each one's gradient in float64; median time and rounding of the compiled one in float32."""
    flat, unravel = ravel(data32)
    for config in set(configs.values()) - set(fast):
        fast[config] = called_directly(
            compiled(lambda flat, config=config: problem.gradient(config, unravel(flat)))
        )
    functions = {name: fast[config] for name, config in configs.items()}
    found = {name: problem.gradient(config, data).numpy() for name, config in configs.items()}
    rounded = {name: function(flat).numpy() for name, function in functions.items()}  # compiles
    spent = {name: [] for name in configs}
    for _ in range(FLAGS.rounds):  # in turns: what the machine does meanwhile hits all of them
        for name, function in functions.items():
            start = time.process_time()
            function(flat).numpy()
            spent[name].append(1000 * (time.process_time() - start))
    timed = {
        name: {"ms": median(spent[name]), "rounding": relative_error(rounded[name], x)}
        for name, x in found.items()
    }
    return found, timed


def main(_) -> None:
    rows = []
    for name in SETTINGS:
        problem, fast = None, {}
        for step, config, state, real in snapshots(name):
            rng = np.random.default_rng([FLAGS.seed, step])
            noise = tf.constant(rng.standard_normal(real.actions.shape), "float32")
            problem = problem or Problem(SETTINGS[name][1], config, state)
            for row in measured(problem, (state, real, noise), fast):
                rows.append({"setting": name, "step": step} | row)
            write_text(FLAGS.out, table_text(rows[0], rows))
            print(f"{name}, {step:,} steps: {FLAGS.out} has them", flush=True)


if __name__ == "__main__":
    flags.FLAGS.set_default("rounds", 15)
    app.run(main)
