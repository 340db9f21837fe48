"""Networks and Adam as pure functions, against Keras, per-sample gradients and hand computation."""

from itertools import pairwise

import keras
import numpy as np
import pytest
import tensorflow as tf

from omd_tf2.common import functional
from omd_tf2.common.acting import numpy_mlp
from omd_tf2.common.functional import (
    adam_init,
    adam_step,
    init_mlp,
    mlp,
    mlp_kernel,
    orthogonal_mlp,
    soft_update,
    stacked,
)
from omd_tf2.implicit import loss_and_gradient

RNG = np.random.default_rng(0)


def tensor(*shape):
    return tf.constant(RNG.normal(size=shape))


def layers(*sizes):
    return tuple((tensor(i, o), tensor(o)) for i, o in pairwise(sizes))


def drawn(seed=0, dtype="float64"):
    return init_mlp((5, 4, 4, 6), np.random.SeedSequence(seed), output_gain=0.01, dtype=dtype)


def test_initial_layers_are_orthogonal_with_their_gains():
    shapes = [(tuple(kernel.shape), tuple(bias.shape)) for kernel, bias in drawn()]
    assert shapes == [((5, 4), (4,)), ((4, 4), (4,)), ((4, 6), (6,))]
    for (kernel, bias), squared_gain in zip(drawn(), (2, 2, 1e-4), strict=True):
        short = kernel if kernel.shape[0] >= kernel.shape[1] else tf.transpose(kernel)
        gram = tf.matmul(short, short, transpose_a=True)
        np.testing.assert_allclose(gram, squared_gain * np.eye(4), atol=1e-6 * squared_gain)
        np.testing.assert_array_equal(bias, np.zeros(bias.shape))


def test_initial_layers_follow_from_the_seed():
    first, again, other = (tf.nest.flatten(drawn(seed)) for seed in (0, 0, 1))
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.allclose(first[2], other[2])
    square = init_mlp((4, 4, 4), np.random.SeedSequence(0), output_gain=2**0.5, dtype="float64")
    assert not np.allclose(square[0][0], square[1][0])


@pytest.mark.parametrize("jit", [False, True])
def test_layers_of_given_draws_are_those_of_the_initialiser(jit):
    shapes, seed = [(5, 4), (4, 4), (4, 6)], np.random.SeedSequence(0)
    draws = []
    for (i, o), state in zip(shapes, seed.generate_state(3), strict=True):
        # Keras draws [the larger, the smaller] and transposes what comes out.
        draw = keras.random.normal((max(i, o), min(i, o)), dtype="float64", seed=int(state))
        draws.append(tf.transpose(draw) if i < o else draw)
    make = tf.function(lambda x: orthogonal_mlp(x, output_gain=0.01), jit_compile=jit)
    for got, expected in zip(make(draws), drawn(), strict=True):
        np.testing.assert_allclose(got[0], expected[0], atol=1e-12)
        np.testing.assert_array_equal(got[1], expected[1])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_initial_layers_have_the_dtype_asked_for(dtype):
    assert {x.dtype.name for x in tf.nest.flatten(drawn(dtype=dtype))} == {dtype}


@pytest.mark.parametrize("forward", [mlp, numpy_mlp])
def test_mlp_by_hand(forward):
    # [1, 2] -> [1 + 2, -1 + 2 - 2] = [3, -1] -> relu [3, 0] -> 2 * 3 + 5 * 0 + 1 = 7; and
    # [0, 4] -> [4, 2] -> 8 + 10 + 1 = 19; the output is not rectified: [0, -1] -> [-1, -3] -> 1.
    kernels = np.array([[1.0, -1.0], [1.0, 1.0]]), np.array([[2.0], [5.0]])
    weights = (kernels[0], np.array([0.0, -2.0])), (kernels[1], np.array([1.0]))
    x = np.array([[1.0, 2.0], [0.0, 4.0], [0.0, -1.0]])
    np.testing.assert_array_equal(forward(weights, x), [[7.0], [19.0], [1.0]])
    np.testing.assert_array_equal(forward(((kernels[0], np.zeros(2)),), x[2:]), [[-1.0, -1.0]])


def test_numpy_mlp_takes_any_leading_shape():
    weights = tf.nest.map_structure(lambda x: x.numpy(), layers(3, 4, 2))
    x = RNG.normal(size=(2, 5, 3))
    np.testing.assert_allclose(numpy_mlp(weights, x)[1], mlp(weights, x[1]), rtol=1e-14)
    np.testing.assert_allclose(numpy_mlp(weights, x[1, 2]), mlp(weights, x[1])[2], rtol=1e-14)


@pytest.mark.parametrize("sizes", [(3, 1), (3, 5, 1), (3, 5, 4, 2)])
def test_kernel_equals_the_one_of_per_sample_gradients(sizes):
    weights, x, output_weights = layers(*sizes), tensor(6, 3), tensor(6, sizes[-1])
    with tf.GradientTape() as tape:
        tape.watch(weights)
        scalars = tf.reduce_sum(mlp(weights, x) * output_weights, -1)
    blocks = tape.jacobian(scalars, tf.nest.flatten(weights))
    jacobian = np.concatenate([block.numpy().reshape(6, -1) for block in blocks], 1)
    kernel = mlp_kernel(weights, x, output_weights)
    np.testing.assert_allclose(kernel, jacobian @ jacobian.T / 6, rtol=1e-12, atol=1e-12)


def test_stacked_networks_give_what_each_gives():
    each, x, output_weights = [layers(3, 5, 4, 2) for _ in range(3)], tensor(6, 3), tensor(6, 2)
    together, outputs = stacked(each), [mlp(network, x) for network in each]
    np.testing.assert_allclose(mlp(together, x), outputs, rtol=1e-13)
    kernels = [mlp_kernel(network, x, output_weights) for network in each]
    np.testing.assert_allclose(mlp_kernel(together, x, output_weights), kernels, rtol=1e-13)


def test_adam_equals_keras_over_100_steps(monkeypatch):
    # Keras rounds its settings to 32 bits, which these survive, and adds epsilon to the uncorrected
    # sqrt(v); beside gradients of 1e6 neither epsilon counts.
    learning_rate, beta1, beta2 = 2**-7, 1 - 2**-3, 1 - 2**-10
    monkeypatch.setattr(functional, "ADAM_BETA1", beta1)
    monkeypatch.setattr(functional, "ADAM_BETA2", beta2)
    optimizer = keras.optimizers.Adam(learning_rate, beta1, beta2, epsilon=1e-8)
    parameters = layers(3, 2)
    variables = [tf.Variable(x) for x in tf.nest.flatten(parameters)]
    state = adam_init(parameters)
    for _ in range(100):
        gradient = tf.nest.map_structure(lambda x: 1e6 * tensor(*x.shape), parameters)
        parameters, state = adam_step(parameters, gradient, state, learning_rate)
        optimizer.apply_gradients(zip(tf.nest.flatten(gradient), variables, strict=True))
    for ours, keras_own in zip(tf.nest.flatten(parameters), variables, strict=True):
        np.testing.assert_allclose(ours, keras_own, rtol=0, atol=1e-12)
    assert state.steps == 100


def test_adams_epsilon_by_hand():
    # First step, bias-corrected m = g and v = g^2: lr g / (|g| + 1e-8) = lr / 2 at g = 1e-8.
    x, g = tf.constant(1.0, tf.float64), tf.constant(1e-8, tf.float64)
    moved, state = adam_step(x, g, adam_init(x), 0.5)
    np.testing.assert_allclose(moved, 0.75, rtol=1e-12)
    np.testing.assert_allclose(state.first, 1e-9, rtol=1e-12)  # (1 - 0.9) g
    np.testing.assert_allclose(state.second, 1e-19, rtol=1e-12)  # (1 - 0.999) g^2
    assert moved.dtype == state.steps.dtype == tf.float64


def test_adam_stands_still_without_gradient():
    parameters = layers(2, 1)
    zeros = tf.nest.map_structure(tf.zeros_like, parameters)
    moved, _ = adam_step(parameters, zeros, adam_init(parameters), 0.1)
    np.testing.assert_array_equal(moved[0][0], parameters[0][0])


@pytest.mark.parametrize(
    ("tau", "expected"), [(0.25, [5.0, 6.0]), (1.0, [8.0, 0.0]), (0.0, [4.0, 8.0])]
)
def test_soft_update_by_hand(tau, expected):
    target, online = ((tf.constant(4.0), tf.constant(8.0)),), ((tf.constant(8.0), 0.0),)
    assert [float(x) for x in soft_update(target, online, tau)[0]] == expected


def test_loss_and_gradient_by_hand():
    # loss = sum(a w^2) + b at w = (1, 2), a = 3: 15 + b; gradient 6 w. b is no parameter.
    parameters = (tf.constant([1.0, 2.0]),)

    def loss_fn(parameters, a, b):
        return tf.reduce_sum(a * parameters[0] ** 2) + b

    def with_more(*args):
        return loss_fn(*args), "more"

    loss, (gradient,) = loss_and_gradient(loss_fn, parameters, 3.0, tf.constant(1.0))
    assert float(loss) == 16.0
    np.testing.assert_array_equal(gradient, [6.0, 12.0])
    (loss, more), (gradient,) = loss_and_gradient(with_more, parameters, 3.0, 0.0)
    assert (float(loss), more) == (15.0, "more")
    np.testing.assert_array_equal(gradient, [6.0, 12.0])


def test_a_tensor_in_two_roles_has_a_gradient_for_each():
    # x y at x = y = 3: 3 for each, not 6
    twice = (tf.constant(3.0),) * 2
    _, gradient = loss_and_gradient(lambda parameters: parameters[0] * parameters[1], twice)
    assert [float(x) for x in gradient] == [3.0, 3.0]
