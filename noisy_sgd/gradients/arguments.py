"""Checks of the arguments of `noisy_sgd.clipped_gradient_sum`, each with an error of one sentence.

arguments.check_batch(x, y, mask, views=1)    # ValueError: `mask` must ... Received: mask of shape (3,)

Covered by tests/gradients/clipped_sum_test.py.
"""

import keras
import numpy as np
import tensorflow as tf

from noisy_sgd import checks, keras_internals


def check_model_and_loss(model, loss_fn) -> None:
    """Refuses a `model` that is no Keras model or computes in float16, and a `loss_fn` that is no function.

    Raises:
        ValueError: naming the argument.
    """
    if not isinstance(model, keras.Model):
        way_out = " (keras.Sequential([layer]) makes one of it)" if isinstance(model, keras.Layer) else ""
        raise ValueError(f"`model` must be a keras.Model{way_out}. Received: model of type {type(model).__name__}")
    check_precision(model)
    if not callable(loss_fn):
        raise ValueError(
            "`loss_fn` must be a function loss_fn(y, y_pred) that gives one loss per example, such as "
            f"keras.losses.mean_squared_error. Received: loss_fn={loss_fn!r}"
        )


def check_precision(model: keras.Model) -> None:
    """Refuses a model that computes in float16.

    Raises:
        ValueError: naming the first such layer.
    """
    for layer in keras_internals.layers(model):
        if layer.compute_dtype == "float16":
            raise ValueError(
                "`model` must not compute in float16, whose loss scaling clipping would see; use mixed_bfloat16. "
                f"Received: compute_dtype=float16 in layer={layer.name}"
            )


def views(value) -> int:
    """A number of views: Python's or NumPy's positive integer, but no bool."""
    return checks.count("views", value, constraint="must be a positive integer")


def dense(name: str, tensors):
    """The same nest with sparse tensors and matrices made dense, since an example is a row of a dense tensor.

    Args:
        name: of the argument, for the error.
        tensors: any nest of [B, ...].

    Raises:
        ValueError: for ragged tensors.
    """

    def made_dense(tensor):
        if isinstance(tensor, tf.RaggedTensor):
            raise ValueError(
                f"`{name}` must hold tensors of one size for all examples of a batch; pad ragged ones with "
                f"`to_tensor()`, in a tf.data pipeline by `map`. Received: {name} of shape {tensor.shape}, ragged"
            )
        if isinstance(tensor, tf.SparseTensor):
            return tf.ensure_shape(tf.sparse.to_dense(tf.sparse.reorder(tensor)), tensor.shape)
        # SciPy's matrices and arrays.
        return tensor.toarray() if hasattr(tensor, "toarray") else tensor

    return tf.nest.map_structure(made_dense, tensors)


def of_known_sizes(x, model: keras.Model, views: int = 1):
    """The inputs, with the sizes that a functional model knows of its inputs where the trace does not know them.

    Args:
        x: any nest of [B, ...]; [B, views, ...] where `views` > 1.
        model: a Keras model.
        views: views of an example. Defaults to 1.
    """
    symbolic, flat = getattr(model, "inputs", None) or (), tf.nest.flatten(x)
    if len(symbolic) != len(flat):
        return x

    def sized(tensor, like):
        known = tf.TensorShape([None, *([views] if views > 1 else []), *like.shape[1:]])
        fits = hasattr(tensor, "shape") and tf.is_tensor(tensor) and known.is_compatible_with(tensor.shape)
        return tf.ensure_shape(tensor, known) if fits and None in tensor.shape[1:] else tensor

    return tf.nest.pack_sequence_as(x, [sized(*pair) for pair in zip(flat, symbolic, strict=True)])


def check_batch(x, y, mask, views: int) -> None:
    """Refuses inputs, targets and a mask that do not fit together, as far as their sizes and values are known now.

    Args:
        x: inputs, any nest of [B, ...]; [B, views, ...] where `views` > 1.
        y: targets, any nest of [B, ...].
        mask: [B] of 0 and 1, or None.
        views: views of an example.

    Raises:
        ValueError: naming the argument.
    """
    inputs, targets = _shapes("x", x), _shapes("y", y)
    sizes = {shape[0] for shape in inputs if shape.rank is not None and shape[0] is not None}
    if len(sizes) > 1:
        raise ValueError(
            f"`x` must hold the same number of examples in every tensor. Received: x of shapes {_shown(inputs)}"
        )
    for shape in targets:
        if sizes and shape.rank is not None and shape[0] is not None and shape[0] not in sizes:
            raise ValueError(
                f"`y` must hold as many examples as `x`, {min(sizes)}. Received: y of shapes {_shown(targets)}"
            )
    for shape in inputs:
        if views > 1 and shape.rank is not None and (shape.rank < 2 or shape[1] not in (None, views)):
            raise ValueError(
                f"`x` must be [B, views, ...] with views={views} on its second axis, or `views` must be 1. "
                f"Received: views={views}, x of shapes {_shown(inputs)}"
            )
    if mask is not None:
        _check_mask(mask, sizes)


def _shapes(name, tensors):
    flat = tf.nest.flatten(tensors)
    if not flat or any(tensor is None for tensor in flat):
        way_out = "; where the loss takes no targets, zeros will do" if name == "y" else ""
        raise ValueError(
            f"`{name}` must be a tensor or a nest of tensors [B, ...]{way_out}. Received: {name}={tensors!r}"
        )
    shapes = [_shape(tensor) for tensor in flat]
    if any(shape.rank == 0 for shape in shapes):
        raise ValueError(
            f"`{name}` must have a leading axis of examples in each tensor; lists of numbers become one with "
            f"np.asarray. Received: {name} of shapes {_shown(shapes)}"
        )
    return shapes


def _check_mask(mask, sizes):
    shape = _shape(mask)
    count = min(sizes) if sizes else None
    if shape.rank is not None and (shape.rank != 1 or (count is not None and shape[0] not in (None, count))):
        raise ValueError(
            f"`mask` must be [B], one entry per example, of which there are {'B' if count is None else count}. "
            f"Received: mask of shape {tuple(shape)}"
        )
    known = tf.get_static_value(mask) if tf.is_tensor(mask) else mask
    values = np.asarray([] if known is None else known)
    other = values[(values != 0) & (values != 1)]
    if other.size:
        raise ValueError(f"`mask` must hold 0, for padding, and 1 only. Received: mask with an entry {other[0]}")


def _shape(tensor):
    return tf.TensorShape(tensor.shape if hasattr(tensor, "shape") else np.shape(tensor))


def _shown(shapes):
    shown = [None if shape.rank is None else tuple(shape) for shape in shapes]
    return str(shown[0] if len(shown) == 1 else shown)
