"""A microbatch as every engine computes on it: padding cut out, augmentation views as rows, and never empty.

Padding contributes nothing, so its inputs and targets become zeros before the model sees them. An example with several
augmented views is several rows of the model's batch, and its loss and predictions are the mean over them.

    def compute(examples):
        x, y = examples.rows()                                        # [B * views, ...]
        losses = examples.without_padding(examples.mean_over_views(loss_fn(y, model(x))))
        ...

    result = batch.compute(compute, x, y, mask, views=1)
"""

import collections.abc
import dataclasses
from typing import Any

import tensorflow as tf

from noisy_sgd.gradients import clipping


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
    """The examples of a microbatch.

    Attributes:
        x: inputs, any nest of [B, ...], zeros for padding; [B, views, ...] where `views` > 1.
        y: targets, any nest of [B, ...], zeros for padding.
        present: [B] bool, False for padding; None for no padding.
        views: augmented views of each example.
    """

    x: Any
    y: Any
    present: tf.Tensor | None
    views: int

    @property
    def size(self) -> int | None:
        """The number of examples, as far as the trace knows it."""
        return tf.nest.flatten(self.x)[0].shape[0]

    def rows(self) -> tuple[Any, Any]:
        """Inputs and targets with one row per view: nests of [B * views, ...], the views of an example side by side."""
        if self.views == 1:
            return self.x, self.y
        return (
            tf.nest.map_structure(_flat_views, self.x),
            tf.nest.map_structure(lambda t: tf.repeat(t, self.views, axis=0), self.y),
        )

    def rows_of_one(self, x, y) -> tuple[Any, Any]:
        """Inputs and targets of one example, without the axis of examples, as nests of [views, ...]."""
        if self.views == 1:
            x = tf.nest.map_structure(lambda t: t[None], x)
        return x, tf.nest.map_structure(lambda t: tf.repeat(t[None], self.views, axis=0), y)

    def mean_over_views(self, tensors):
        """The means over each example's views: from a nest of [B * views, ...] to one of [B, ...]."""
        if self.views == 1:
            return tensors

        def mean(tensor):
            inner = tensor.shape[1:]
            if inner.is_fully_defined():
                shape = [-1, self.views, *inner]
            else:
                shape = tf.concat([[-1, self.views], tf.shape(tensor)[1:]], axis=0)
            return tf.reduce_mean(tf.reshape(tensor, shape), axis=1)

        return tf.nest.map_structure(mean, tensors)

    def without_padding(self, values: tf.Tensor) -> tf.Tensor:
        """The same values [B], with 0 for padding."""
        return values if self.present is None else tf.where(self.present, values, tf.zeros_like(values))


def prepared(x, y, mask, views: int) -> Batch:
    """The batch that an engine computes on.

    Args:
        x: inputs, any nest of [B, ...]; [B, views, ...] where `views` > 1.
        y: targets, any nest of [B, ...].
        mask: [B], 0 for padding, or None for no padding.
        views: augmented views of each example.
    """
    x, y = tf.nest.map_structure(tf.convert_to_tensor, (x, y))
    if mask is None:
        return Batch(x=x, y=y, present=None, views=views)
    present = tf.cast(mask, tf.bool)

    def keep(tensor):
        shape = tf.concat([tf.shape(present), tf.ones([tf.rank(tensor) - 1], tf.int32)], axis=0)
        return tf.where(tf.reshape(present, shape), tensor, tf.zeros_like(tensor))

    x, y = tf.nest.map_structure(keep, (x, y))
    return Batch(x=x, y=y, present=present, views=views)


def compute(function: collections.abc.Callable[[Batch], clipping.Result], x, y, mask, views: int) -> clipping.Result:
    """What `function` returns for a batch that may be empty: then it computes on one example of padding.

    TensorFlow's convolutions fail on no example, and a map over examples needs one to see what it returns.

    Args:
        function: function(Batch) -> `clipping.Result`.
        x: inputs, any nest of [B, ...]; [B, views, ...] where `views` > 1.
        y: targets, any nest of [B, ...].
        mask: [B], 0 for padding, or None for no padding.
        views: augmented views of each example.

    Returns:
        The result, of B examples.
    """
    first = tf.nest.flatten(x)[0]
    examples = prepared(x, y, mask, views)
    if first.shape[0]:
        return function(examples)
    size = tf.shape(first)[0]
    missing = tf.maximum(1 - size, 0)
    present = tf.ones([size], tf.bool) if examples.present is None else examples.present
    x, y, present = tf.nest.map_structure(lambda t: _with_zeros(t, missing), (examples.x, examples.y, present))
    result = function(Batch(x=x, y=y, present=present, views=views))
    return dataclasses.replace(
        result,
        losses=result.losses[:size],
        predictions=tf.nest.map_structure(lambda t: t[:size], result.predictions),
        norms=None if result.norms is None else result.norms[:size],
    )


def _with_zeros(tensor, missing):
    """The tensor, followed by `missing` rows of zeros."""
    inner = tensor.shape[1:]
    shape = [missing, *inner] if inner.is_fully_defined() else tf.concat([[missing], tf.shape(tensor)[1:]], axis=0)
    return tf.concat([tensor, tf.zeros(shape, tensor.dtype)], axis=0)


def _flat_views(tensor):
    """[B, views, ...] as [B * views, ...]."""
    known = None if None in tensor.shape[:2] else tensor.shape[0] * tensor.shape[1]
    flat = tf.reshape(tensor, tf.concat([[-1], tf.shape(tensor)[2:]], axis=0))
    flat.set_shape([known, *tensor.shape[2:]])
    return flat
