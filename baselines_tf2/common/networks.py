"""Network bodies as lists of Keras layers, and their NumPy copies for acting."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Annotated

import keras
import numpy as np

from baselines_tf2.common.acting import ACTIVATIONS, dense, forward, layer_norm
from envs.errors import ConfigError, Count, Natural, check_fields, check_known

LAYER_NORM_EPSILON = 1e-5
OUTPUT_SCALE = 3e-3  # Baselines draws actor and critic output layers from U(-3e-3, 3e-3)


@dataclass(frozen=True)
class MLPConfig:
    """Baselines' `mlp` network."""

    num_layers: Natural = 2  # hidden layers
    num_hidden: Count = 64  # units of each
    activation: Annotated[str, ACTIVATIONS] = "tanh"
    layer_norm: bool = False  # normalise each hidden layer before its activation

    def __post_init__(self):
        check_fields(self)


Body = Callable[..., Sequence[keras.Layer]]  # builds hidden layers from seed and dtype


def get_network_builder(network: str | Body) -> Body:
    """Returns `mlp` for its name; a builder itself is returned as it is.

    A builder takes `seed` (an int), `dtype` and its own options, all by keyword, and returns the
    hidden layers. Raises ConfigError for another name.
    """
    if callable(network):
        return network
    check_known("network", network, ["mlp"])
    return mlp


def mlp(*, seed: int, dtype: str = "float32", **options) -> list[keras.Layer]:
    """Builds Baselines' mlp: dense layers, orthogonal with gain sqrt(2); options: MLPConfig's."""
    known = [field.name for field in fields(MLPConfig)]
    for name in options:
        check_known("option of mlp", name, known)
    if callable(activation := options.get("activation")):  # Baselines takes tf.nn's functions
        options["activation"] = activation.__name__
    config = MLPConfig(**options)
    seeds = np.random.SeedSequence(seed).generate_state(max(config.num_layers, 1))
    layers = []
    for layer_seed in seeds[: config.num_layers]:
        init = keras.initializers.Orthogonal(gain=np.sqrt(2), seed=int(layer_seed))
        layers.append(keras.layers.Dense(config.num_hidden, kernel_initializer=init, dtype=dtype))
        if config.layer_norm:
            layers.append(keras.layers.LayerNormalization(epsilon=LAYER_NORM_EPSILON, dtype=dtype))
        layers.append(keras.layers.Activation(config.activation, dtype=dtype))
    return layers


def output_layer(units: int, activation: str, *, seed: int, dtype: str) -> keras.layers.Dense:
    """A dense layer drawn from U(-3e-3, 3e-3), the last layer of every actor and critic."""
    init = keras.initializers.RandomUniform(-OUTPUT_SCALE, OUTPUT_SCALE, seed=seed)
    return keras.layers.Dense(units, activation, kernel_initializer=init, dtype=dtype)


def build_network(layers: Sequence[keras.Layer], input_dim: int) -> keras.Sequential:
    """A Sequential of `layers` whose variables exist at once, before any compiled call."""
    network = keras.Sequential(list(layers))
    network.build((None, input_dim))
    return network


def copy_network(network: keras.Sequential) -> keras.Sequential:
    """A network with the same layers and the same weights, and variables of its own."""
    clone = keras.models.clone_model(network)
    clone.set_weights(network.get_weights())
    return clone


def describe(network: keras.Sequential) -> list[str]:
    """The layers by type, output width and activation: what their weights alone do not tell."""
    names = (getattr(getattr(x, "activation", None), "__name__", "") for x in network.layers)
    layers = zip(network.layers, names, strict=True)
    return [f"{type(x).__name__} {x.output.shape[-1]} {name}".strip() for x, name in layers]


def perturbable(network: keras.Sequential) -> list[bool]:
    """For each weight of the network, whether parameter noise moves it (layer norm's: never)."""
    return [
        not isinstance(layer, keras.layers.LayerNormalization)
        for layer in network.layers
        for _ in layer.weights
    ]


def numpy_forward(network: keras.Sequential) -> Callable[..., np.ndarray]:
    """Returns `forward(weights, x)`, the network in NumPy: some 100 times cheaper for one row.

    weights: as `network.get_weights()` gives them, so that perturbed copies can be put in.
    x: [..., input_dim]; returns [..., output_dim]. Raises ConfigError for a layer it does not know.
    """
    return partial(forward, [(_numpy_layer(x), len(x.weights)) for x in network.layers])


def _numpy_layer(layer: keras.Layer) -> Callable:
    if isinstance(layer, keras.layers.LayerNormalization):
        if not (layer.center and layer.scale):
            raise ConfigError("an actor's LayerNormalization needs center and scale: leave both on")
        return partial(layer_norm, layer.epsilon)
    if not isinstance(layer, keras.layers.Dense | keras.layers.Activation):
        raise ConfigError(
            f"an actor cannot act with a layer of type {type(layer).__name__}: build it from "
            "Dense, LayerNormalization and Activation layers"
        )
    if isinstance(layer, keras.layers.Dense) and not layer.use_bias:
        raise ConfigError("an actor's Dense layers need a bias: leave use_bias=False out")
    name = str(keras.activations.serialize(layer.activation))
    check_known("activation", name, ACTIVATIONS)
    is_dense = isinstance(layer, keras.layers.Dense)
    return partial(dense, ACTIVATIONS[name]) if is_dense else ACTIVATIONS[name]
