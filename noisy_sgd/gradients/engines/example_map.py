"""Applies a function of one example to all examples: vectorized, or one by one where that fails or would be wrong.

`tf.vectorized_map` gives every tensor a leading axis. TensorFlow (seen in 2.21) cannot do so with all operations:

- It has no conversion for lists of tensors, which a loop behind a trained layer keeps for its gradient (LSTM, GRU,
  `keras.ops.scan`), and for a few other operations. Then the trace fails.
- It runs some operations in a loop of their own and stacks the results. That fails at run time where the sizes differ
  between examples (split strings), and for `tf.py_function`, whose gradient must follow it at once.
- A convolution in 3 dimensions with groups runs on CPUs only where XLA compiles it, and the vectorized one is not
  compiled.
- The product of matrices and a weight in EinsumDense and MultiHeadAttention becomes a `BatchMatMulV2` of [B, 1, m, k]
  by [k, n]. The oneDNN kernel for CPUs (on by default) broadcasts that wrongly: it returns wrong numbers without an
  error, or crashes. Einsum, and products of equal batch axes, are right.

So the vectorized graph is built and searched for these operations. Where one is found, the examples go through
`tf.map_fn` instead, one after the other. XLA does not use the CPU kernels of the last two cases.

    losses = example_map.over_examples(lambda example: loss_of(model, *example), (x, y), model)
"""

import contextlib
import re
import threading
import weakref

import keras
import tensorflow as tf
from absl import logging

from noisy_sgd.gradients.layer_rules.shared import devices

_BATCHED_PRODUCTS = ("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
# Tried in place of sizes that are not known.
_SOME_SIZES = (64, 2)
_WARNED: "weakref.WeakSet[keras.Model]" = weakref.WeakSet()


def over_examples(function, elements, model: keras.Model):
    """`tf.vectorized_map(function, elements)`, or `tf.map_fn` where TensorFlow cannot vectorize the function rightly.

    Args:
        function: from one example, a nest like `elements` without its leading axes, to a nest of tensors.
        elements: a tuple of nests of tensors [B, ...].
        model: what the function calls, named once in a warning where the examples go one after the other.

    Returns:
        The function's nest, its tensors stacked to [B, ...].
    """
    traced, reason = vectorized(function, elements)
    if reason is None:
        return traced(*elements)
    one_by_one = _one_after_the_other(function, elements)
    _warn(model, reason)
    return one_by_one(*elements)


def vectorized(function, elements):
    """(the traced `tf.vectorized_map(function, elements)`, None), or (None, a clause that says why it would fail)."""
    try:
        with _errors_of_conversion() as operations:
            traced = _traced(lambda *elems: tf.vectorized_map(function, elems, warn=False), elements)
    except Exception as error:  # noqa: BLE001 - one after the other, an error of the model's own comes again
        return None, f"TensorFlow cannot vectorize {_deepest_name(operations)} ({type(error).__name__})"
    reason = _why_wrong(traced.graph, xla=devices.in_xla())
    return (traced, None) if reason is None else (None, reason)


def _one_after_the_other(function, elements):
    """The traced `tf.map_fn(function, elements)`."""
    one_example = _traced(function, [tf.nest.map_structure(_one, elements)])
    like = tf.nest.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), one_example.structured_outputs)
    # One iteration at a time: a seed generator's state is read and written in each.
    return _traced(
        lambda *elems: tf.map_fn(one_example, elems, fn_output_signature=like, parallel_iterations=1), elements
    )


def _one(tensor):
    tensor = tf.convert_to_tensor(tensor)
    return tf.TensorSpec(tensor.shape[1:], tensor.dtype)


def _warn(model, reason):
    if model not in _WARNED:
        _WARNED.add(model)
        logging.warning(
            "The vectorized engine takes the examples of model %r one after the other, which is slower: %s",
            model.name,
            reason,
        )


def _traced(function, elements):
    # Eagerly, TensorFlow's maps convert what they trace; in a graph they do as the graph does.
    traceable = tf.function(function, autograph=tf.executing_eagerly())
    try:
        return traceable.get_concrete_function(*elements)
    except Exception as error:
        # The conversion writes a stack trace into the message of the error that the model or the loss raises.
        if hasattr(error.__context__, "ag_error_metadata"):
            raise error.__context__ from None
        raise


@contextlib.contextmanager
def _errors_of_conversion():
    """Keeps this thread's errors of the conversion out of TensorFlow's log; yields the names of the operations."""
    thread, operations, logger = threading.get_ident(), [], tf.get_logger()

    def keep(record):
        message = record.getMessage()
        if record.thread != thread or "loop_body" not in message:
            return True
        operations.extend(re.findall(r'(?:input|name): "(?:[^":]*/)?loop_body/([^":]+)', message))
        return False

    logger.addFilter(keep)
    try:
        yield operations
    finally:
        logger.removeFilter(keep)


def _deepest_name(operations):
    """Among the names of an operation and its inputs, the one that says most about the layer: the deepest."""
    longest = max(operations, key=lambda name: name.count("/"), default=None)
    return "what it does" if longest is None else f"its operation {longest!r}"


def _why_wrong(graph, xla):
    """A clause that says why the vectorized graph would be computed wrongly, or None."""
    for operation in _operations(graph):
        if operation.type == "EagerPyFunc":
            return f"vectorized, the gradient of its operation {_named(operation)} would not follow it at once"
        if _stacks_unknown_sizes(operation):
            return f"vectorized, the results of its operation {_named(operation)} would differ in size between examples"
        if xla or not _on_cpu(operation):
            continue
        if operation.type in _BATCHED_PRODUCTS and _broadcasts(*operation.inputs):
            return (
                f"vectorized, its operation {_named(operation)} would broadcast matrices, which TensorFlow's oneDNN "
                "kernels for CPUs compute wrongly; with jit_compile=True XLA compiles it, rightly and faster"
            )
        if operation.type == "Conv3D" and _grouped(*operation.inputs):
            return (
                f"vectorized, its operation {_named(operation)} would have groups, which TensorFlow's kernel for CPUs "
                "does not take; with jit_compile=True XLA compiles it, rightly and faster"
            )
    return None


def _named(operation):
    """The name of what the model does, without what vectorizing adds to it, and the type."""
    name = operation.name.rpartition("loop_body/")[2].partition("/pfor/")[0]
    return f"{name!r} ({operation.type})"


def _operations(graph, seen=None):
    """The operations of a graph, and of the functions that it calls."""
    seen = set() if seen is None else seen
    yield from graph.get_operations()
    for name, function in graph._functions.items():
        if name not in seen:
            seen.add(name)
            yield from _operations(function.graph, seen)


def _broadcasts(a, b):
    """Whether the batch axes may differ. A leading axis of unknown size is that of the examples."""
    if a.shape.rank is None or a.shape.rank != b.shape.rank:
        return True
    pairs = zip(a.shape[:-2], b.shape[:-2], strict=True)
    return any(one != other or (one is None and axis > 0) for axis, (one, other) in enumerate(pairs))


def _on_cpu(operation):
    device = tf.DeviceSpec.from_string(operation.device).device_type
    return device == "CPU" or (device is None and not devices.accelerators())


def _grouped(inputs, kernel):
    channels, taken = inputs.shape[-1:], kernel.shape[-2:-1]
    return not channels.is_compatible_with(taken)


def _stacks_unknown_sizes(operation):
    """Whether it stacks an operation's results, one per example, whose sizes depend on more than the inputs' sizes."""
    origin, found, _ = operation.name.partition("/pfor/TensorArrayV2Stack")
    if operation.type != "TensorListStack" or not found or operation.outputs[0].shape[1:].is_fully_defined():
        return False
    try:
        origin = operation.graph.get_operation_by_name(origin)
    except KeyError:
        return True
    if origin.type == "LookupTableFindV2":
        # It returns one value per key, which its shape function cannot tell without the table.
        return False
    return not any(_has_known_sizes(origin, size) for size in _SOME_SIZES)


def _has_known_sizes(origin, size):
    """Whether an operation's results have known sizes where its inputs' unknown sizes are all of the given size."""

    def known(shape):
        return shape if shape.rank is None else [size if one is None else one for one in shape]

    with tf.Graph().as_default() as scratch:
        inputs = [tf.compat.v1.placeholder(t.dtype, known(t.shape)) for t in origin.inputs]
        dtypes = [output.dtype for output in origin.outputs]
        try:
            again = scratch.create_op(origin.type, inputs, dtypes, attrs=dict(origin.node_def.attr))
        except ValueError:
            # The size does not fit: an image may be smaller than the kernel.
            return False
    return all(output.shape.is_fully_defined() for output in again.outputs)
