import keras
import numpy as np
import pytest

from baselines_tf2.common.networks import (
    LAYER_NORM_EPSILON,
    build_network,
    copy_network,
    get_network_builder,
    mlp,
    numpy_forward,
    output_layer,
    perturbable,
)
from envs import ConfigError


def test_mlp_is_orthogonal_with_gain_sqrt_2():
    network = build_network(mlp(seed=0, num_layers=2, num_hidden=8, dtype="float64"), 8)
    for layer in (network.layers[0], network.layers[2]):
        kernel = layer.kernel.numpy()
        np.testing.assert_allclose(kernel.T @ kernel, 2 * np.eye(8), atol=1e-6)
        np.testing.assert_array_equal(layer.bias.numpy(), 0)


def test_layers_have_weights_of_their_own_and_a_seed_repeats_them():
    kernels = [layer.kernel.numpy() for layer in mlp_network(0).layers if hasattr(layer, "kernel")]
    again = [layer.kernel.numpy() for layer in mlp_network(0).layers if hasattr(layer, "kernel")]
    other = [layer.kernel.numpy() for layer in mlp_network(1).layers if hasattr(layer, "kernel")]
    assert not np.allclose(kernels[0], kernels[1])
    np.testing.assert_array_equal(kernels, again)
    assert not np.allclose(kernels[0], other[0])


def mlp_network(seed):
    return build_network(mlp(seed=seed, num_hidden=8, dtype="float64"), 8)


def test_output_layer_is_drawn_from_3e_3():
    layer = build_network([output_layer(500, "tanh", seed=0, dtype="float64")], 40).layers[0]
    kernel = layer.kernel.numpy()
    assert np.abs(kernel).max() <= 3e-3
    assert kernel.std() == pytest.approx(3e-3 / np.sqrt(3), rel=0.02)


def test_layer_norm_comes_before_the_activation():
    network = build_network(mlp(seed=0, num_layers=1, layer_norm=True, dtype="float64"), 3)
    x = np.array([[0.3, -1.0, 2.0]])
    h = x @ network.layers[0].kernel.numpy()
    normed = (h - h.mean()) / np.sqrt(h.var() + LAYER_NORM_EPSILON)
    np.testing.assert_allclose(network(x).numpy(), np.tanh(normed), rtol=1e-10)


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
@pytest.mark.parametrize("layer_norm", [False, True])
def test_numpy_copy_equals_keras(activation, layer_norm):
    layers = mlp(seed=3, activation=activation, layer_norm=layer_norm, dtype="float64")
    layers.append(output_layer(2, "tanh", seed=4, dtype="float64"))
    network = build_network(layers, 5)
    rng = np.random.default_rng(0)
    network.set_weights([rng.normal(size=w.shape) for w in network.get_weights()])
    x = rng.normal(size=(7, 5))
    forward, weights = numpy_forward(network), network.get_weights()
    np.testing.assert_allclose(forward(weights, x), network(x).numpy(), rtol=1e-12)
    np.testing.assert_allclose(forward(weights, x[0]), network(x).numpy()[0], rtol=1e-12)


@pytest.mark.parametrize(
    "layer, message",
    [
        (keras.layers.Dropout(0.5), "layer of type Dropout"),
        (keras.layers.Dense(3, use_bias=False), "Dense layers need a bias"),
        (keras.layers.LayerNormalization(scale=False), "needs center and scale"),
    ],
)
def test_numpy_copy_refuses_layers_it_does_not_know(layer, message):
    network = build_network([layer, keras.layers.Dense(1)], 2)
    with pytest.raises(ConfigError, match=message):
        numpy_forward(network)


def test_a_copied_network_shares_nothing():
    network = mlp_network(0)
    copy = copy_network(network)
    before = copy.get_weights()
    network.layers[0].kernel.assign_add(np.ones((8, 8)))
    for old, new in zip(before, copy.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_layer_norm_is_not_perturbable():
    network = build_network(mlp(seed=0, num_layers=1, layer_norm=True), 3)
    assert perturbable(network) == [True, True, False, False]


def test_a_network_is_mlp_or_a_builder():
    assert get_network_builder("mlp") is get_network_builder(mlp) is mlp
    with pytest.raises(ConfigError, match="unknown network 'mpl'; did you mean 'mlp'"):
        get_network_builder("mpl")


@pytest.mark.parametrize(
    "options, message",
    [({"activation": "tahn"}, "did you mean 'tanh'"), ({"num_hidden": 0}, "at least 1")],
)
def test_impossible_networks_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        mlp(seed=0, **options)
