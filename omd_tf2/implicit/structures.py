"""Nested structures of tensors as vectors, and derivatives of functions between them."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

Structure = Any  # a tensor, or tensors nested in lists, tuples, named tuples and dicts (tf.nest)
LinearMap = Callable[[Structure], Structure]


def to_tensors(structure: Structure) -> Structure:
    """Returns `structure` with each leaf a dense tensor (variables are read, arrays converted)."""
    return tf.nest.map_structure(tf.convert_to_tensor, structure)


def to_copies(structure: Structure) -> Structure:
    """Returns `structure` as tensors of their own, which a tape tells apart.

    Without this, a tensor that comes in twice (a target network equal to the online one, say) would
    receive the derivatives of both roles.
    """
    return tf.nest.map_structure(tf.identity, to_tensors(structure))


def check_same_shapes(name: str, structure: Structure, like: Structure) -> None:
    """Raises ValueError unless `structure` has the nesting and the leaf shapes of `like`."""
    try:
        tf.nest.assert_same_structure(structure, like)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be nested like the solution") from None
    for leaf, other in zip(tf.nest.flatten(structure), tf.nest.flatten(like), strict=True):
        if not leaf.shape.is_compatible_with(other.shape):
            raise ValueError(f"{name} has shape {leaf.shape} where the solution has {other.shape}")


def ravel(structure: Structure) -> tuple[tf.Tensor, Callable[[tf.Tensor], Structure]]:
    """Concatenates the leaves into one vector `[n]`; returns it and the inverse map.

    Raises ValueError for leaves of different or non-floating dtypes, or without static shapes.
    """
    leaves = tf.nest.flatten(to_tensors(structure))
    dtypes = sorted({leaf.dtype.name for leaf in leaves})
    if len(dtypes) != 1 or not leaves[0].dtype.is_floating:
        raise ValueError(f"a vector's leaves must share one floating dtype, got {dtypes}")
    shapes = [leaf.shape for leaf in leaves]
    if not all(shape.is_fully_defined() for shape in shapes):
        raise ValueError(f"a vector's leaves must have static shapes, got {shapes}")
    sizes = [shape.num_elements() for shape in shapes]

    def unravel(vector: tf.Tensor) -> Structure:
        parts = zip(tf.split(vector, sizes), shapes, strict=True)
        return tf.nest.pack_sequence_as(structure, [tf.reshape(p, shape) for p, shape in parts])

    return tf.concat([tf.reshape(leaf, [-1]) for leaf in leaves], 0), unravel


def transposed(
    fn: Callable[[Structure], Structure], point: Structure
) -> tuple[Structure, LinearMap]:
    """Returns `fn(point)` and the map `u -> (dfn/dpoint)^T u`, linearised once.

    The map only replays the backward pass: `fn` is not evaluated again, so that inside a compiled
    loop just the linear part is repeated.
    """
    point = to_copies(point)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(point)
        value = fn(point)
    return value, lambda u: gradient(tape, value, point, u)


def linearised(
    fn: Callable[[Structure], Structure], point: Structure
) -> tuple[Structure, LinearMap, LinearMap]:
    """Returns `fn(point)`, the map `v -> (dfn/dpoint) v`, and its transpose.

    The forward map is the transpose of the transpose: the backward pass is linear in its cotangent,
    whose value therefore does not matter. Unlike `tf.autodiff.ForwardAccumulator` this linearises
    once too.
    """
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as outer:
        value, transpose = transposed(fn, point)
        cotangent = tf.nest.map_structure(tf.ones_like, value)
        outer.watch(cotangent)
        pulled_back = transpose(cotangent)
    return value, lambda v: gradient(outer, pulled_back, cotangent, v), transpose


def loss_and_gradient(loss_fn: Callable, parameters: Structure, *args) -> tuple:
    """Returns loss_fn(parameters, *args) and its gradient, structured as the parameters.

    Where loss_fn returns (loss, more), so does this: ((loss, more), gradient).
    """
    parameters = to_copies(parameters)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(parameters)
        out = loss_fn(parameters, *args)
    loss = out[0] if isinstance(out, tuple) else out
    return out, gradient(tape, loss, parameters, None)


def gradient(tape: tf.GradientTape, value: Structure, point: Structure, cotangent: Structure):
    """Returns the cotangent pulled back from `value` to `point`, zero where not connected."""
    zero = tf.UnconnectedGradients.ZERO
    leaves = tape.gradient(value, tf.nest.flatten(point), cotangent, unconnected_gradients=zero)
    return to_tensors(tf.nest.pack_sequence_as(point, leaves))
