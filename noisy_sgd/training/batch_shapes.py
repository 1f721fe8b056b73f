"""Checks the shapes of a batch: all of its tensors must hold the same number of examples.

batch_shapes.check(x, y, sample_weight)    # 32; ValueError if `y` holds another number of examples than `x`
"""

import keras
import tensorflow as tf


def check(x, y=None, sample_weight=None) -> int | None:
    """The number of examples; None if it is not known while the step is traced.

    Args:
        x: any nest of [B, ...].
        y: any nest of [B, ...] and None. Defaults to None.
        sample_weight: any nest of [B, ...] and None. Defaults to None.

    Raises:
        ValueError: for different numbers of examples, or an unknown number of axes.
    """
    shapes = {"x": _shapes(x), "y": _shapes(y), "sample_weight": _shapes(sample_weight)}
    received = ", ".join(f"{name} of shapes {_describe(own)}" for name, own in shapes.items() if own)
    if any(shape.rank is None for own in shapes.values() for shape in own):
        raise ValueError(
            "`x`, `y` and `sample_weight` must have a known number of axes; for a dataset from a generator, pass an "
            f"`output_signature` with shapes. Received: {received}"
        )
    sizes = {shape[0] for own in shapes.values() for shape in own if shape.rank} - {None}
    if len(sizes) > 1:
        raise ValueError(f"`x`, `y` and `sample_weight` must hold the same number of examples. Received: {received}")
    return min(sizes, default=None)


def first_view(x, inputs, augmentation_multiplicity: int):
    """The first view of each example.

    Args:
        x: [B, K, ...] or [B, ...], a nest like `inputs`.
        inputs: the model's symbolic inputs, [B, ...].
        augmentation_multiplicity: K, the number of views of each training example; 1 if `x` has no axis of views.
    """
    if augmentation_multiplicity == 1:
        return x
    ranks = [sum(len(tensor.shape) for tensor in keras.tree.flatten(tensors)) for tensors in (x, inputs)]
    return keras.tree.map_structure(lambda tensor: tensor[:, 0], x) if ranks[0] > ranks[1] else x


def _shapes(tensors):
    leaves = [leaf for leaf in keras.tree.flatten(tensors) if leaf is not None]
    return [tf.TensorShape(leaf.shape if hasattr(leaf, "shape") else ()) for leaf in leaves]


def _describe(shapes):
    known = [None if shape.rank is None else tuple(shape) for shape in shapes]
    return str(known[0] if len(known) == 1 else known)
