"""What a convolution reads at each output position, so that its kernel's gradient becomes matrix products.

A kernel entry of offset o along an axis meets, at output position t, the padded input at stride * t + dilation * o.
Offsets along the first spatial axis are taken one by one, each as a matrix [T, rest of the kernel * channels] per
example. All other offsets are side by side in the last axis.

    for rows in windows.rows(x, geometry, "cpu"):       # one for each offset along the first spatial axis
        gradient = tf.matmul(rows, dz, transpose_a=True)
"""

import dataclasses
import math

import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where a convolution of any rank reads: one entry per spatial axis."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    outputs: tuple[int, ...]


def geometry(kernel, strides, dilations, padding, inputs, outputs) -> Geometry:
    """The geometry of a convolution with padding "valid" or "same" (TensorFlow's: the odd pixel goes to the end)."""
    amounts = []
    for k, s, d, n, m in zip(kernel, strides, dilations, inputs, outputs, strict=True):
        total = max((m - 1) * s + (k - 1) * d + 1 - n, 0) if padding == "same" else 0
        amounts.append((total // 2, total - total // 2))
    return Geometry(
        kernel=tuple(kernel),
        strides=tuple(strides),
        dilations=tuple(dilations),
        padding=tuple(amounts),
        outputs=tuple(outputs),
    )


def rows(x: tf.Tensor, where: Geometry, device: str) -> list[tf.Tensor]:
    """What each output position reads, one tensor per offset along the first spatial axis.

    Args:
        x: [n, *spatial, channels].
        where: the geometry.
        device: "cpu" gathers (TensorFlow's strided slices are slow there); an accelerator slices.

    Returns:
        Tensors [n, *outputs, rest of the kernel, channels], the rest of the kernel as one axis.
    """
    x = tf.pad(x, [[0, 0], *where.padding, [0, 0]])
    rank = len(where.kernel)
    # Last axis first: its windows are then next to the channels, where copies are longest.
    for axis in reversed(range(1, rank)):
        x = _windows(x, axis + 1, axis, where, device)
    rest = math.prod(where.kernel[1:])
    channels = x.shape[-1]
    by_offset = []
    for offset in range(where.kernel[0]):
        one = taken(x, 1, where.dilations[0] * offset, where.strides[0], where.outputs[0], device)
        by_offset.append(tf.reshape(one, [-1, *where.outputs, rest, channels]))
    return by_offset


def by_offset(x: tf.Tensor, where: Geometry, device: str) -> list[tf.Tensor]:
    """What each output position reads at one offset: [n, *outputs, channels] for each offset, the last axis fastest."""
    read = [tf.pad(x, [[0, 0], *where.padding, [0, 0]])]
    for axis, size in enumerate(where.kernel):
        starts = [where.dilations[axis] * offset for offset in range(size)]
        stride, count = where.strides[axis], where.outputs[axis]
        read = [taken(one, 1 + axis, start, stride, count, device) for one in read for start in starts]
    return read


def folds(where: Geometry) -> bool:
    """Whether every stride divides its kernel size: then the convolution is one of stride 1 on `fold`ed inputs."""
    whole = all(k % s == 0 for k, s in zip(where.kernel, where.strides, strict=True))
    return whole and max(where.strides) > 1 and max(where.dilations) == 1


def fold(x: tf.Tensor, where: Geometry) -> tuple[tf.Tensor, Geometry]:
    """Stacks the entries that one stride steps over in the channels (in front of them), so that copies are longer."""
    margins = []
    for size, k, s, (before, _), m in zip(
        x.shape[1:-1], where.kernel, where.strides, where.padding, where.outputs, strict=True
    ):
        margins.append((before, (m - 1 + k // s) * s - before - size))
    # Entries that no window reads are cut off.
    read = [slice(0, size + min(after, 0)) for size, (_, after) in zip(x.shape[1:-1], margins, strict=True)]
    x = tf.pad(x[(slice(None), *read)], [[0, 0], *((before, max(after, 0)) for before, after in margins), [0, 0]])
    rank, channels = len(where.kernel), x.shape[-1]
    steps = [size // s for size, s in zip(x.shape[1:-1], where.strides, strict=True)]
    x = tf.reshape(x, [-1, *(n for pair in zip(steps, where.strides, strict=True) for n in pair), channels])
    x = tf.transpose(x, [0, *range(1, 2 * rank, 2), *range(2, 2 * rank + 1, 2), 2 * rank + 1])
    x = tf.reshape(x, [-1, *steps, math.prod(where.strides) * channels])
    ones = (1,) * rank
    folded = dataclasses.replace(
        where,
        kernel=tuple(k // s for k, s in zip(where.kernel, where.strides, strict=True)),
        strides=ones,
        padding=((0, 0),) * rank,
    )
    return x, folded


def unfold(gradient: tf.Tensor, where: Geometry) -> tf.Tensor:
    """The gradient of a folded convolution's kernel -> that of the original kernel, [*kernel, inputs, outputs]."""
    rank, tail = len(where.kernel), gradient.shape[-1]
    steps = [k // s for k, s in zip(where.kernel, where.strides, strict=True)]
    gradient = tf.reshape(gradient, [*steps, *where.strides, -1, tail])
    order = [axis for pair in zip(range(rank), range(rank, 2 * rank), strict=True) for axis in pair]
    return tf.reshape(tf.transpose(gradient, [*order, 2 * rank, 2 * rank + 1]), [*where.kernel, -1, tail])


def gram(x: tf.Tensor, where: Geometry, device: str) -> tf.Tensor:
    """Inner products of the windows that each two output positions read, for strides of 1.

    The inner products of windows are sums of those of pixels along a diagonal, axis by axis.

    Returns:
        [n, T, T].
    """
    rank, spatial = len(where.kernel), x.shape[1:-1]
    pixels = tf.reshape(x, [-1, math.prod(spatial), x.shape[-1]])
    products = tf.reshape(tf.matmul(pixels, pixels, transpose_b=True), [-1, *spatial, *spatial])
    for axis in range(rank):
        margins = [[0, 0]] * (2 * rank + 1)
        margins[1 + axis] = margins[1 + rank + axis] = where.padding[axis]
        products = tf.pad(products, margins)
        terms = []
        for offset in range(where.kernel[axis]):
            start, count = where.dilations[axis] * offset, where.outputs[axis]
            terms.append(taken(products, (1 + axis, 1 + rank + axis), start, 1, count, device))
        products = tf.add_n(terms)
    return tf.reshape(products, [-1, math.prod(where.outputs), math.prod(where.outputs)])


def sums(x: tf.Tensor, where: Geometry, device: str) -> tf.Tensor:
    """The sum of what each output position reads, channel by channel: [n, *outputs, channels]."""
    x = tf.pad(x, [[0, 0], *where.padding, [0, 0]])
    for axis, size in enumerate(where.kernel):
        starts = [where.dilations[axis] * offset for offset in range(size)]
        x = tf.add_n([taken(x, 1 + axis, start, where.strides[axis], where.outputs[axis], device) for start in starts])
    return x


def _windows(x, axis, spatial, where, device):
    """Replaces an axis by its outputs, and puts the kernel's offsets along it before the later axes' offsets."""
    k, s, d, m = (v[spatial] for v in (where.kernel, where.strides, where.dilations, where.outputs))
    rank = len(where.kernel)
    if k == 1:
        windows = tf.expand_dims(taken(x, axis, 0, s, m, device), axis + 1)
    elif device == "cpu":
        windows = tf.gather(x, s * np.arange(m)[:, None] + d * np.arange(k)[None, :], axis=axis)
    else:
        windows = tf.stack([taken(x, axis, d * offset, s, m, device) for offset in range(k)], axis=axis + 1)
    # [n, ..., m, k, later outputs, later offsets, channels] -> offsets behind all outputs.
    later = rank - 1 - spatial
    if later:
        order = list(range(windows.shape.rank))
        moved = order.pop(axis + 1)
        order.insert(axis + 1 + later, moved)
        windows = tf.transpose(windows, order)
    return windows


def taken(x, axes, start, stride, count, device):
    """`count` entries of an axis or of each of several, from `start` in steps of `stride`."""
    axes = axes if isinstance(axes, tuple) else (axes,)
    if all((start, stride, count) == (0, 1, x.shape[axis]) for axis in axes):
        return x
    if device == "cpu" and stride > 1:
        # TensorFlow's strided slices copy number by number there.
        for axis in axes:
            x = tf.gather(x, start + stride * np.arange(count), axis=axis)
        return x
    every = range(x.shape.rank)
    if stride == 1:
        return tf.slice(
            x, [start if axis in axes else 0 for axis in every], [count if axis in axes else -1 for axis in every]
        )
    read = slice(start, start + stride * (count - 1) + 1, stride)
    return x[tuple(read if axis in axes else slice(None) for axis in every)]
