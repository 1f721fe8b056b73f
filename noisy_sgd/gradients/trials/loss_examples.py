"""Synthetic targets and predictions to try a loss on, never data: examples of several classes, kinds and sizes.

A loss may mix only some examples: those of one class, predictions near each other, or examples with a missing target.
So a pool has examples of equal and of different targets, and there is one pool per kind of entries.

Covered by tests/gradients/trials/loss_mixing_test.py.

    shapes = loss_examples.shapes_to_try(y, predictions)[0]
    for pool in loss_examples.pools(y, predictions, shapes):
        losses = loss_fn(*pool.rows([0, 1, 5]))
"""

import collections.abc
import dataclasses
import math
from typing import Any

import numpy as np
import tensorflow as tf

from noisy_sgd import keras_internals, keys

# The class of each example; those of a class have the same targets.
CLASSES = np.array([0, 0, 1, 1, 1, 2, 0, 2, 1, 3, 4, 5, 6, 7, 0, 3])
# Sizes to try, in this order, for axes of targets and of predictions whose size is not known. None is a number of
# examples that a loss is tried on, so no axis can be taken for the examples' axis.
SIZES = ((5, 5), (12, 12), (5, 20), (20, 5), (5, 10), (10, 5), (40, 40), (1, 1), (1, 5), (5, 1), (65, 65), (257, 257))
# Markers of a missing number, another one for each class.
MISSING = (-9.0, -1.0, -99.0, -999.0, -100.0, -9999.0)
# The most entries of one pool, unless it has only four examples, and of all pools together.
_ENTRIES = 100_000
_ALL_ENTRIES = 40_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Kind:
    """How entries are drawn: the names of functions in `_FLOATS` and `_INTEGERS`."""

    name: str
    predictions: str
    targets: str
    integers: str


KINDS = (
    _Kind(name="normals", predictions="normals", targets="normals", integers="classes"),
    _Kind(name="missing targets (-1)", predictions="normals", targets="missing numbers", integers="missing -1"),
    _Kind(name="missing targets (NaN or -100)", predictions="normals", targets="missing nan", integers="missing -100"),
    _Kind(name="unit vectors", predictions="unit vectors", targets="classes", integers="classes"),
    _Kind(name="probabilities", predictions="fractions", targets="fractions", integers="zeros and ones"),
    _Kind(name="zeros and ones", predictions="zeros and ones", targets="zeros and ones", integers="one class"),
    _Kind(name="zeros and ones beside normals", predictions="mixed", targets="mixed", integers="classes"),
    _Kind(name="large numbers", predictions="large", targets="classes", integers="from one on"),
    _Kind(name="small numbers", predictions="small", targets="small", integers="bytes"),
    _Kind(name="missing targets (255)", predictions="fractions", targets="missing 255", integers="missing 255"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool:
    """Examples of one kind.

    Attributes:
        kind: its name.
        count: how many there are.
        like: (y, predictions), the nest to make.
        arrays: for each flat tensor of it an array [count, ...], and one for its mask or None.
    """

    kind: str
    count: int
    like: Any
    arrays: list

    def rows(self, indices: collections.abc.Sequence[int]) -> Any:
        """(y, predictions) of these examples, in this order."""
        indices = np.asarray(indices)
        made = []
        for tensor, (array, mask) in zip(tf.nest.flatten(self.like), self.arrays, strict=True):
            rows = _as(tensor, array[indices], indices)
            if mask is not None:
                keras_internals.attach_mask(rows, tf.constant(mask[indices]))
            made.append(rows)
        return tf.nest.pack_sequence_as(self.like, made)


def pools(y, predictions, shapes: list[tuple[int, ...]]) -> collections.abc.Iterator[Pool]:
    """A pool of each kind that differs for these types.

    Args:
        y: targets, any nest of [B, ...]; only types are used.
        predictions: likewise.
        shapes: the shape of one example of each flat tensor, from `shapes_to_try`.
    """
    flat = _flat(y, predictions)
    widths = [
        shape[-1] for (_, predicted), shape in zip(flat, shapes, strict=True) if predicted and shape and shape[-1] > 1
    ]
    entries = max(1, sum(math.prod(shape) for shape in shapes))
    count = min(max(_ENTRIES // entries, 4), len(CLASSES))
    most = max(1, _ALL_ENTRIES // (count * entries))
    seen = set()
    for kind in KINDS:
        drawn = tuple(_entries_of(tensor, predicted, kind) for tensor, predicted in flat)
        if drawn in seen or len(seen) >= most:
            continue
        seen.add(drawn)
        rng = keys.arbitrary(0)
        arrays = []
        for (tensor, predicted), shape, entries_of in zip(flat, shapes, drawn, strict=True):
            array = _array(tensor, predicted, shape, entries_of, widths, count, rng)
            arrays.append((array, _mask(tensor, predicted, shape, count, rng)))
        yield Pool(kind=kind.name, count=count, like=(y, predictions), arrays=arrays)


def shapes_to_try(y, predictions) -> list[list[tuple[int, ...]]]:
    """Shapes of one example of each flat tensor, in the order to try: sizes that are not known are guessed.

    The first guess is the size that other tensors have on the same axis, where they agree, such as the predictions' for
    the targets. Then come `SIZES`.
    """
    flat = _flat(y, predictions)
    known = [tuple(tf.TensorShape(tensor.shape))[1:] for tensor, _ in flat]

    def shapes(sizes, by_others):
        def size(axis, predicted):
            others = {shape[axis] for shape in known if axis < len(shape) and shape[axis] not in (None, 1)}
            return others.pop() if by_others and len(others) == 1 else sizes[predicted]

        return [
            tuple(size(axis, predicted) if one is None else one for axis, one in enumerate(shape))
            for (_, predicted), shape in zip(flat, known, strict=True)
        ]

    found = [shapes(sizes, by_others) for by_others in (True, False) for sizes in SIZES]
    return [found[index] for index in range(len(found)) if found[index] not in found[:index]]


def unknown(y, predictions) -> bool:
    """Whether the size of some axis is not known, beside the examples'."""
    return any(None in tuple(tf.TensorShape(tensor.shape))[1:] for tensor, _ in _flat(y, predictions))


def _flat(y, predictions):
    """(tensor, whether it is a prediction) of each."""
    return [*((t, False) for t in tf.nest.flatten(y)), *((t, True) for t in tf.nest.flatten(predictions))]


def _entries_of(tensor, predicted, kind):
    """The name of what the entries of a tensor are."""
    dtype = tf.as_dtype(tensor.dtype)
    if dtype in (tf.bool, tf.string):
        return "zeros and ones"
    if not dtype.is_floating:
        return "zeros and ones" if predicted else kind.integers
    return kind.predictions if predicted else kind.targets


def _array(tensor, predicted, shape, entries_of, widths, count, rng):
    dtype = tf.as_dtype(tensor.dtype)
    classes = min(widths, default=2)
    if predicted:
        array = _drawn(entries_of, (count, *shape), CLASSES[:count], classes, False, rng)
        if count > 6:
            # Two examples that are the same.
            array[6] = array[0]
    else:
        each = np.arange(1 + CLASSES[:count].max())
        one_hot = bool(shape) and shape[-1] in widths
        array = _drawn(entries_of, (len(each), *shape), each, classes, one_hot, rng)[CLASSES[:count]]
    if dtype == tf.string:
        return np.array(["a", "b"], object)[array.astype(int)]
    # Floats out of a type's range become anything, integers do not.
    return (array.astype(np.int64) if dtype.is_integer else array).astype(dtype.as_numpy_dtype)


def _drawn(name, shape, classes_of, classes, one_hot, rng):
    """[n, ...] of entries, for examples or targets of the classes `classes_of`; labels are below `classes`."""
    numbers = rng.normal(size=shape)
    wide = len(shape) > 1 and shape[-1] > 1
    if name in ("normals", "large", "small"):
        return {"normals": 3.0, "large": 20.0, "small": 0.05}[name] * numbers
    if name == "unit vectors":
        return numbers / np.linalg.norm(numbers, axis=-1, keepdims=True) if wide else 0.3 * numbers
    if name == "fractions":
        parts = np.exp(numbers)
        return parts / parts.sum(axis=-1, keepdims=True) if one_hot or wide else rng.uniform(0.05, 0.95, shape)
    if name == "zeros and ones":
        return _single(shape, 2) if _is_single(shape) else rng.integers(0, 2, shape)
    if name == "mixed":
        odd = (classes_of % 2 == 1).reshape([-1, *[1] * (len(shape) - 1)])
        return np.where(odd, 3 * numbers, rng.integers(0, 2, shape))
    if name == "bytes":
        return rng.integers(0, 256, shape)
    if name in ("classes", "one class"):
        if one_hot:
            return np.eye(shape[-1])[rng.integers(0, shape[-1], shape[:-1])]
        return np.zeros(shape, int) if name == "one class" else _labels(shape, classes, rng)
    if name == "from one on":
        return 1 + _labels(shape, max(classes - 1, 1), rng)
    if name == "missing numbers":
        marker = np.resize(MISSING, shape[0]).reshape([-1, *[1] * (len(shape) - 1)])
    else:
        marker = float(name.split()[1])
    entries = 3 * numbers if np.any(np.isnan(marker)) else _labels(shape, classes, rng).astype(float)
    missing = rng.uniform(size=shape) < 0.3
    # The first class has no missing entry. Every other class has at least one; where an example has only one entry,
    # every second class has.
    missing[0] = False
    first = missing.reshape([shape[0], -1])[1:, 0]
    first[:] = np.arange(1, shape[0]) % 2 if _is_single(shape) else True
    return np.where(missing, marker, entries)


def _is_single(shape):
    """Whether an example has one entry."""
    return math.prod(shape[1:]) == 1


def _single(shape, classes):
    """One entry per example: different classes have different entries, as far as there are enough."""
    return (np.arange(shape[0]) % classes).reshape(shape)


def _labels(shape, classes, rng):
    """Labels below `classes`; the first four are frequent, as labels of padding are."""
    if _is_single(shape):
        return _single(shape, classes)
    return np.where(
        rng.uniform(size=shape) < 0.5, rng.integers(0, classes, shape), rng.integers(0, min(classes, 4), shape)
    )


def _mask(tensor, predicted, shape, count, rng):
    """A mask like the one that Keras attaches to predictions behind masking layers, or None."""
    mask = keras_internals.mask(tensor) if predicted else None
    if mask is None:
        return None
    array = rng.uniform(size=(count, *shape[: len(tf.TensorShape(mask.shape)) - 1])) < 0.6
    if array.ndim > 1:
        array[:, 0] = True
    return array


def _as(tensor, array, indices):
    """The rows as a tensor of the type and kind of `tensor`."""
    dense = tf.constant(array)
    if isinstance(tensor, tf.SparseTensor):
        return tf.sparse.from_dense(dense)
    if isinstance(tensor, tf.RaggedTensor):
        lengths = 1 + indices % dense.shape[1] if tensor.ragged_rank == 1 else None
        return tf.RaggedTensor.from_tensor(dense, lengths=lengths, ragged_rank=tensor.ragged_rank)
    return dense
