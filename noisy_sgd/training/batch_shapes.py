"""The shapes of a batch: the same number of examples in all of its tensors, and maybe several views of each.

batch_shapes.check(x, y, sample_weight)    # 32; ValueError where `y` holds another number than `x`
"""

import keras
import tensorflow as tf


def check(x, y=None, sample_weight=None) -> int | None:
    """The number of examples; None where a trace does not know it.

    Args:
        x: any nest of [B, ...].
        y: any nest of [B, ...] and None. Defaults to None.
        sample_weight: likewise. Defaults to None.

    Raises:
        ValueError: for numbers that differ, and for an unknown number of axes.
    """
    shapes = {"x": _shapes(x), "y": _shapes(y), "sample_weight": _shapes(sample_weight)}
    received = ", ".join(f"{name} of shapes {_shown(own)}" for name, own in shapes.items() if own)
    if any(shape.rank is None for own in shapes.values() for shape in own):
        raise ValueError(
            "`x`, `y` and `sample_weight` must have a known number of axes; give a generator's dataset an "
            f"`output_signature` with shapes. Received: {received}"
        )
    sizes = {shape[0] for own in shapes.values() for shape in own if shape.rank} - {None}
    if len(sizes) > 1:
        raise ValueError(f"`x`, `y` and `sample_weight` must hold the same number of examples. Received: {received}")
    return min(sizes, default=None)


def one_view(x, inputs, views: int):
    """The first view of each example.

    Args:
        x: [B, views, ...] or [B, ...], a nest like `inputs`.
        inputs: the model's symbolic ones, [B, ...].
        views: views of an example in training; 1 where `x` has no axis of them.
    """
    if views == 1:
        return x
    ranks = [sum(len(tensor.shape) for tensor in keras.tree.flatten(tensors)) for tensors in (x, inputs)]
    return keras.tree.map_structure(lambda tensor: tensor[:, 0], x) if ranks[0] > ranks[1] else x


def _shapes(tensors):
    leaves = [leaf for leaf in keras.tree.flatten(tensors) if leaf is not None]
    return [tf.TensorShape(leaf.shape if hasattr(leaf, "shape") else ()) for leaf in leaves]


def _shown(shapes):
    shown = [None if shape.rank is None else tuple(shape) for shape in shapes]
    return str(shown[0] if len(shown) == 1 else shown)
