"""A function of one example over all of them: vectorized, or one after the other where that would be wrong.

`tf.vectorized_map` gives every tensor a leading axis, and so makes of a product of matrices by a weight, as EinsumDense
and MultiHeadAttention take it, a `BatchMatMulV2` of [B, 1, m, k] by [k, n]. TensorFlow's oneDNN kernel for CPUs (on by
default; seen in 2.21) broadcasts that wrongly: garbage without a word, or a crash. So the vectorized graph is searched
for broadcast products of matrices, and where one would run on a CPU the examples go through `tf.map_fn` instead, as the
model itself would take them. Einsum, and products of equal batch axes, are right. XLA does not use these kernels.

    losses = example_map.over_examples(lambda example: loss_of(model, *example), (x, y), model)
"""

import logging
import weakref

import keras
import tensorflow as tf

from noisy_sgd.gradients import devices

_BATCHED_PRODUCTS = ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
_WARNED: "weakref.WeakSet[keras.Model]" = weakref.WeakSet()


def over_examples(function, elements, model: keras.Model):
    """`tf.vectorized_map(function, elements)`, or `tf.map_fn` where that would meet a broken kernel.

    Args:
        function: from one example, a nest like `elements` without its leading axes, to a nest of tensors.
        elements: a tuple of nests of tensors [B, ...].
        model: what the function calls, named once in a warning where the examples go one after the other.

    Returns:
        The function's nest, its tensors stacked to [B, ...].
    """
    if devices.in_xla():
        return tf.vectorized_map(function, elements)
    vectorized = _traced(lambda *elems: tf.vectorized_map(function, elems), elements)
    product = _broadcast_product(vectorized.graph)
    if product is None:
        return vectorized(*elements)
    _warn(model, product)
    like = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape[1:], t.dtype), vectorized.structured_outputs)
    # One iteration at a time: a seed generator's state is read and written in each.
    return _traced(
        lambda *elems: tf.map_fn(function, elems, fn_output_signature=like, parallel_iterations=1), elements
    )(*elements)


def _warn(model, product):
    if model not in _WARNED:
        _WARNED.add(model)
        logging.getLogger(__name__).warning(
            "The vectorized engine takes the examples of model %r one after the other, which is slower: vectorized, "
            "its operation %r (%s) would broadcast matrices, which TensorFlow's oneDNN kernels for CPUs compute "
            "wrongly; with jit_compile=True XLA compiles it, rightly and faster",
            model.name,
            product.name,
            product.type,
        )


def _traced(function, elements):
    # Eagerly, TensorFlow's maps convert what they trace; in a graph they do as the graph does.
    return tf.function(function, autograph=tf.executing_eagerly()).get_concrete_function(*elements)


def _broadcast_product(graph, seen=None):
    """An operation, of the graph or of a function that it calls, that broadcasts batches of matrices on a CPU."""
    seen = set() if seen is None else seen
    for operation in graph.get_operations():
        if operation.type in _BATCHED_PRODUCTS and _broadcasts(*operation.inputs) and _on_cpu(operation):
            return operation
    for name, function in graph._functions.items():
        if name not in seen:
            seen.add(name)
            found = _broadcast_product(function.graph, seen)
            if found is not None:
                return found
    return None


def _broadcasts(a, b):
    """Whether the batch axes may differ. A leading axis of unknown size is that of the examples."""
    if a.shape.rank is None or a.shape.rank != b.shape.rank:
        return True
    pairs = zip(a.shape[:-2], b.shape[:-2], strict=True)
    return any(one != other or (one is None and axis > 0) for axis, (one, other) in enumerate(pairs))


def _on_cpu(operation):
    device = tf.DeviceSpec.from_string(operation.device).device_type
    return device == "CPU" or (device is None and not devices.accelerators())
