"""Splits a batch between the replicas of a strategy where Keras gives the whole batch to each replica.

Keras' `train_on_batch` and `test_on_batch` run every replica on the whole batch. With two replicas a clipped sum would
then have twice its sensitivity, but the noise of one batch.

    model.train_function = replica_parts.split_new(model, None, model.train_function)
"""

import keras
import tensorflow as tf

from noisy_sgd.data import autotuning
from noisy_sgd.training import batch_shapes


def split_new(model: keras.Model, before, function):
    """Keras' train or test function with split batches, unless they are distributed already.

    Args:
        model: the model of the function.
        before: the function that the model had; it splits its batches.
        function: the model's function now, from an iterator over batches to logs.
    """
    strategy = model.distribute_strategy
    if function is before or strategy.num_replicas_in_sync == 1:
        return function

    def split(iterator):
        if isinstance(iterator, tf.data.Iterator | tf.distribute.DistributedIterator):
            return function(iterator)
        logs = function(_parts(strategy, next(iterator)))
        # `logs` are the mean over the replicas, without regard to the sizes of their parts.
        results = model.get_metrics_result()
        return results if set(results) == set(logs) else logs

    return split


def _parts(strategy, batch):
    """An iterator over one batch, split between the replicas; the sizes of the parts differ by at most one."""
    replicas = strategy.num_replicas_in_sync
    size = batch_shapes.check(*batch)
    if size is None or size < replicas:
        # A dataset has no static shapes. Keras would not reduce the loss of a part whose shape shows that it is empty.
        given = tuple(part for part in batch if part is not None)
        return iter(strategy.experimental_distribute_dataset(autotuning.off(tf.data.Dataset.from_tensors(given))))

    def distributed(leaf):
        if leaf is None:
            return None
        whole = tf.sparse.to_dense(leaf) if isinstance(leaf, tf.SparseTensor) else leaf

        def part(context):
            index = context.replica_id_in_sync_group
            rows = whole[index * size // replicas : (index + 1) * size // replicas]
            return rows if tf.is_tensor(rows) else tf.convert_to_tensor(rows)

        return strategy.experimental_distribute_values_from_function(part)

    return iter([keras.tree.map_structure(distributed, batch)])


def first_part(strategy: tf.distribute.Strategy, epoch):
    """The first replica's part of the first batch.

    Args:
        strategy: the strategy that distributes the batches.
        epoch: Keras' iterator over an epoch, of (first step, last step, an iterator over batches).
    """
    *_, batches = next(iter(epoch))
    return keras.tree.map_structure(
        lambda leaf: None if leaf is None else strategy.experimental_local_results(leaf)[0], next(batches)
    )
