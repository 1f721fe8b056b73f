"""Tries whether a model treats every example alone, as the clipped sum's bound needs.

A layer, or an operation such as a mean over the batch, that lets one example's output depend on another example puts
several examples into one "per-example" gradient, and the clip no longer bounds what one of them can change. The test
takes made-up inputs, never data: it moves one example and looks at the other's outputs.

    independence.check(model, model.input)    # raises ValueError
"""

import weakref

import keras
import numpy as np
import tensorflow as tf

_UNKNOWN_SIZE = 16
_CHECKED: "weakref.WeakSet[keras.Model]" = weakref.WeakSet()


def check(model: keras.Model, inputs) -> None:
    """Refuses a model in which one example's outputs depend on another example; tries every model once.

    Args:
        model: a built Keras model.
        inputs: its inputs, tensors or symbolic ones, any nest of [B, ...]; only shapes and types are used.

    Raises:
        ValueError: if moving one example changes another one's outputs.
    """
    if model in _CHECKED:
        return
    with tf.init_scope():
        mixed = _mixes(model, inputs)
    if mixed:
        raise ValueError(
            "`model` must treat every example alone: another example's outputs change when one is moved, so no clip "
            "bounds what one example can change; take out what works over the batch axis. "
            f"Received: model={model.name}"
        )
    _CHECKED.add(model)


def _mixes(model, inputs):
    rng = np.random.default_rng(0)
    first, second, moved = (keras.tree.map_structure(lambda t: _example(t, rng), inputs) for _ in range(3))
    state = [(generator.state, generator.state.numpy()) for generator in _generators(model)]
    outputs = []
    for other in (second, moved):
        pair = keras.tree.map_structure(lambda a, b: tf.concat([a, b], axis=0), first, other)
        for training in (False, True):
            for variable, value in state:
                variable.assign(value)
            outputs.append([np.asarray(output)[0] for output in tf.nest.flatten(model(pair, training=training))])
    for variable, value in state:
        variable.assign(value)
    kept, changed = outputs[:2], outputs[2:]
    return not all(
        np.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)
        for before, after in zip(kept, changed, strict=True)
        for a, b in zip(before, after, strict=True)
    )


def _example(like, rng):
    """One made-up example: normals of a large scale, or integers 0 and 1, which every vocabulary has."""
    shape = [1, *(_UNKNOWN_SIZE if size is None else size for size in like.shape[1:])]
    dtype = tf.as_dtype(keras.backend.standardize_dtype(like.dtype))
    if dtype.is_floating:
        return tf.constant(rng.normal(scale=10.0, size=shape), dtype)
    return tf.constant(rng.integers(0, 2, shape), dtype)


def _generators(model):
    for layer in model._flatten_layers(include_self=True, recursive=True):
        yield from layer._seed_generators
