"""One update of every agent against one of the original's code, in 64 bits; see data/README.md."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from omd_tf2.cartpole.config import CartPoleConfig
from omd_tf2.cartpole.losses import critic_loss, critic_targets, in_model, values
from omd_tf2.cartpole.update import OUTPUT_GAIN, Noise, State, critic_steps, metric_names, update
from omd_tf2.common.functional import AdamState, adam_init
from omd_tf2.common.solver import SolverConfig
from omd_tf2.common.transition import Transition
from omd_tf2.implicit import loss_and_gradient
from tests.omd_tf2.small import flat

DATA, TAU = Path(__file__).parent / "data", 0.01


class Original:
    """One step's numbers in our structures."""

    def __init__(self, name):
        with np.load(DATA / f"original_{name}.npz") as file:
            self._arrays = dict(file)
        self.vep = name == "vep"
        indices = sorted({key.split("/")[1] for key in self._arrays if key.startswith("batches/")})
        each = [self._batch(f"batches/{i}/") for i in indices]
        self.batches = tf.nest.map_structure(lambda *x: tf.stack(x), *each)
        self.noise = Noise(tf.zeros([len(each), 256, 0], tf.float64), tf.zeros(0, tf.float64))
        self.info = {k[5:]: float(x) for k, x in self._arrays.items() if k.startswith("info/")}

    def count(self, name):
        return self._arrays[name]

    def networks(self, prefix, num=2, first=0):
        """`num` networks of three layers each."""
        layers = [self._layer(prefix, first + i) for i in range(3 * num)]
        return tuple(tuple(layers[i : i + 3]) for i in range(0, 3 * num, 3))

    def before(self, *, warm):
        """warm: the critics' Adam goes on; omd starts a new one."""
        critics = self.networks("before/Q/")
        return State(
            model=self.networks("before/T/"),
            critics=critics,
            target=self.networks("before/target/"),
            model_adam=self._adam("before/optT/"),
            critic_adam=self._adam("before/optQ/") if warm else adam_init(critics),
            value_functions=self.networks("before/V/", 5, first=2) if self.vep else (),
        )

    def _layer(self, prefix, i):
        name = f"{prefix}linear{f'_{i}' if i else ''}/"
        return tuple(tf.constant(self._arrays[name + part], tf.float64) for part in "wb")

    def _adam(self, prefix):
        moments = (self.networks(f"{prefix}{name}/") for name in ("mu", "nu"))
        return AdamState(tf.constant(self._arrays[prefix + "count"], tf.float64), *moments)

    def _batch(self, prefix):
        obs0, actions, rewards, obs1, goes_on = (self._arrays[prefix + i] for i in "01235")
        arrays = obs0, np.eye(2)[actions[:, 0].astype(int)], rewards[:, 0], obs1, 1 - goes_on[:, 0]
        return Transition(*(tf.constant(x, tf.float64) for x in arrays))


CASES = {  # name: settings, and how near the parameters come
    "omd": ({}, 2e-11),
    "omd_num_Q_steps4": ({"inner_steps": 4}, 1e-7),  # K near-sign steps amplify rounding
    "mle": ({"agent": "mle"}, 5e-11),
    "mle_num_Q_steps4": ({"agent": "mle", "inner_steps": 4}, 2e-9),
    "vep": ({"agent": "vep"}, 5e-11),
    "omd_with_inv_jac": (
        {"solver": SolverConfig("cg", ridge=1e-5, tol=0.0, max_steps=100, on_failure="use")},
        1e-6,  # rounding alone moves 100 unconverged steps
    ),
}


def after(original, settings):
    config = CartPoleConfig(**settings)
    state = original.before(warm=config.agent != "omd")
    new, metrics = update(state, original.batches, original.noise, config)
    return state, new, dict(zip(metric_names(config), metrics, strict=True)), config


@pytest.mark.parametrize("name", CASES)
def test_an_update_is_the_originals(name):
    settings, atol = CASES[name]
    original = Original(name)
    state, new, metrics, config = after(original, settings)
    for field, prefix in (("model", "T"), ("critics", "Q"), ("target", "target")):
        expected = flat(original.networks(f"after/{prefix}/"))
        assert np.abs(flat(getattr(state, field)) - expected).max() > 1e-5  # it moves
        np.testing.assert_allclose(
            flat(getattr(new, field)), expected, rtol=0, atol=atol, err_msg=field
        )
    assert new.model_adam.steps == original.count("after/optT/count")
    assert new.critic_adam.steps == original.count("after/optQ/count")
    outer = "train/real_critic_loss" if config.agent == "omd" else "train/model_loss"
    np.testing.assert_allclose(metrics[outer], original.info["loss_T"], rtol=1e-7)


@pytest.mark.parametrize("name", [name for name in CASES if "steps4" not in name])
def test_what_the_original_logs_is_of_the_critics_before_their_step(name):
    original = Original(name)
    state, new, _, config = after(original, CASES[name][0])
    model = state.model if config.agent == "omd" else new.model  # the others' moves first
    real = tf.nest.map_structure(lambda x: x[-1], original.batches)
    predicted = in_model(model, real, original.noise.model[-1], config)
    targets = critic_targets(state.target, predicted, config)
    loss, gradient = loss_and_gradient(critic_loss, state.critics, predicted, targets)
    got = {
        "loss_Q": loss,
        "grad_norm_Q": tf.linalg.global_norm(tf.nest.flatten(gradient)),
        "vals_Q": tf.reduce_mean(values(state.critics, real.obs0, real.actions)),
    }
    if config.agent == "omd":
        got["next_obs_nll"] = np.square(predicted.obs1 - real.obs1).sum(-1).mean()
    for logged, value in got.items():
        np.testing.assert_allclose(value, original.info[logged], rtol=1e-7, err_msg=logged)


def test_without_warm_start_the_originals_new_critics_are_its_target_and_orthogonal():
    # target = (1 - tau) new + tau moved gives the weights drawn, in 32 bits as the original has them.
    original, settings = Original("omd_no_warm"), CartPoleConfig()
    moved, target = original.networks("after/Q/"), original.networks("after/target/")
    new = tf.nest.map_structure(lambda t, q: (t - TAU * q) / (1 - TAU), target, moved)
    for critic in new:
        for (kernel, bias), gain in zip(critic, (2**0.5, 2**0.5, OUTPUT_GAIN), strict=True):
            tall = kernel.numpy() if kernel.shape[0] >= kernel.shape[1] else kernel.numpy().T
            np.testing.assert_allclose(
                tall.T @ tall, gain**2 * np.eye(tall.shape[1]), rtol=0, atol=1e-6 * gain
            )
            np.testing.assert_allclose(bias, 0, atol=1e-7)
    before = original.before(warm=False)
    assert np.abs(flat(before.critics) - flat(new)).max() > 0.1
    start = before._replace(critics=new, target=new)
    real = tf.nest.map_structure(lambda x: x[0], original.batches)
    np.testing.assert_allclose(
        tf.reduce_mean(values(new, real.obs0, real.actions)), original.info["vals_Q"], atol=1e-9
    )
    predicted = in_model(start.model, real, original.noise.model[0], settings)
    solved, _ = critic_steps(start, predicted, settings)
    # A first step of Adam is rate * sign(gradient), but where the gradient is nearly 0.
    share = np.abs(flat(solved.critics) - flat(moved)) < 1e-6
    assert share.mean() > 0.99
    updated, metrics = update(start, original.batches, original.noise, settings)
    np.testing.assert_allclose(metrics[1], original.info["loss_T"], rtol=1e-5)
    np.testing.assert_allclose(flat(updated.model), flat(original.networks("after/T/")), atol=1e-5)
