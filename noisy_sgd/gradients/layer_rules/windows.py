"""What a convolution reads at each output position, so that its kernel's gradient becomes matrix products.

A kernel entry of offset o along an axis meets, at output position t, the padded input at stride * t + dilation * o. For
the first spatial axis the offsets are taken one by one, each a matrix [T, rest of the kernel * channels] of an example;
the others are laid side by side in the last axis.

    for rows in windows.rows(x, geometry, "cpu"):       # one for each offset along the first spatial axis
        gradient = tf.matmul(rows, dz, transpose_a=True)
"""

import dataclasses

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where a convolution of any rank reads: one entry a spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    outputs: tuple[int, ...]


def geometry(kernel, strides, dilations, padding, inputs, outputs) -> Geometry:
    """The geometry of a convolution whose `padding` is "valid" or "same" (TensorFlow's: the odd pixel goes to the end)."""
    amounts = []
    for k, s, d, n, m in zip(kernel, strides, dilations, inputs, outputs, strict=True):
        total = max((m - 1) * s + (k - 1) * d + 1 - n, 0) if padding == "same" else 0
        amounts.append((total // 2, total - total // 2))
    return Geometry(
        kernel=tuple(kernel), strides=tuple(strides), dilations=tuple(dilations), padding=tuple(amounts), outputs=tuple(outputs)
    )


def rows(x: tf.Tensor, where: Geometry, device: str) -> list[tf.Tensor]:
    """What each output position reads, one tensor an offset along the first spatial axis.

    Args:
        x: [n, *spatial, channels].
        where: the geometry.
        device: "cpu" gathers (one copy instead of one a stride and offset); an accelerator slices.

    Returns:
        Tensors [n, *outputs, rest of the kernel, channels], the rest of the kernel as one axis.
    """
    x = tf.pad(x, [[0, 0], *where.padding, [0, 0]])
    rank = len(where.kernel)
    # Last axis first: its windows come to lie next to the channels, where copies are longest.
    for axis in reversed(range(1, rank)):
        x = _windows(x, axis + 1, axis, where, device)
    rest = int(np.prod(where.kernel[1:]))
    channels = x.shape[-1]
    found = []
    for offset in range(where.kernel[0]):
        one = _taken(x, 1, where.dilations[0] * offset, where.strides[0], where.outputs[0])
        found.append(tf.reshape(one, [-1, *where.outputs, rest, channels]))
    return found


def _windows(x, axis, spatial, where, device):
    """Replaces an axis by its outputs, and puts the kernel's offsets along it before the later axes' offsets."""
    k, s, d, m = (v[spatial] for v in (where.kernel, where.strides, where.dilations, where.outputs))
    rank = len(where.kernel)
    if k == 1:
        windows = tf.expand_dims(_taken(x, axis, 0, s, m), axis + 1)
    elif device == "cpu":
        windows = tf.gather(x, s * np.arange(m)[:, None] + d * np.arange(k)[None, :], axis=axis)
    else:
        windows = tf.stack([_taken(x, axis, d * offset, s, m) for offset in range(k)], axis=axis + 1)
    # [n, ..., m, k, later outputs, later offsets, channels] -> offsets behind all outputs.
    later = rank - 1 - spatial
    if later:
        order = list(range(windows.shape.rank))
        moved = order.pop(axis + 1)
        order.insert(axis + 1 + later, moved)
        windows = tf.transpose(windows, order)
    return windows


def _taken(x, axis, start, stride, count):
    """`count` entries of an axis, from `start` in steps of `stride`."""
    index = [slice(None)] * x.shape.rank
    index[axis] = slice(start, start + stride * (count - 1) + 1, stride)
    return x[tuple(index)]
