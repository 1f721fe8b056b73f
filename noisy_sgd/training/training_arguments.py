"""What the arguments of `PrivateModel.compile` and `fit` may be, and what is remarked on although it is allowed.

batch_size = training_arguments.divisor(optimizer, None)            # DPSGD's own
training_arguments.check_batch_size(17, configured=16)              # ValueError: `batch_size` must be at most ...
"""

import contextlib
import math

import keras
import tensorflow as tf

from noisy_sgd import checks
from noisy_sgd.gradients import devices
from noisy_sgd.optimizers import dp_sgd, foreign_arguments, noisy_sgd
from noisy_sgd.training import budget, distribution, remarks

_TOO_LARGE = "A batch of `fit` must hold at most the configured `batch_size` of examples, which the sum is divided by"


def check_names(method: str, names: dict) -> None:
    """Refuses keyword arguments that a method does not have; those of other libraries with ours.

    Raises:
        ValueError: for a name of another library.
        TypeError: for any other, as Python does.
    """
    foreign_arguments.refuse(names)
    for name in names:
        raise TypeError(f"PrivateModel.{method}() got an unexpected keyword argument {name!r}")


def check_size(name: str, value) -> None:
    """Refuses what is neither a positive integer nor None."""
    if value is not None:
        checks.count(name, value, constraint="must be a positive integer or None")


def check_views(value) -> None:
    """Refuses what is no positive integer."""
    if value is None:
        raise ValueError(
            "`augmentation_multiplicity` must be a positive integer, 1 for one view of each example. "
            "Received: augmentation_multiplicity=None"
        )
    check_size("augmentation_multiplicity", value)


def divisor(optimizer: keras.optimizers.Optimizer, batch_size: int | None) -> int | None:
    """The number that the summed gradient is divided by; None for the number of examples in the batch.

    Raises:
        ValueError: for another size than a DPSGD's own.
    """
    check_size("batch_size", batch_size)
    if not isinstance(optimizer, dp_sgd.DPSGD):
        return batch_size
    if batch_size not in (None, optimizer.batch_size):
        raise ValueError(
            "`batch_size` must be the optimizer's, which the noise is scaled to, or be left out: "
            f"DPSGD has batch_size={optimizer.batch_size}. Received: batch_size={batch_size}"
        )
    return optimizer.batch_size


def remark_on_optimizer(model: keras.Model) -> None:
    """Remarks, once, that a training is not private."""
    if not isinstance(model.optimizer, noisy_sgd.NoisySGD):
        remarks.once(
            model, "optimizer", "PrivateModel %r trains without privacy: %s neither clips gradients nor adds noise; "
            "noisy_sgd.DPSGD does.", model.name, type(model.optimizer).__name__,
        )  # fmt: skip


def check_one_host(strategy: tf.distribute.Strategy) -> None:
    """Refuses a strategy of several workers.

    Raises:
        ValueError: naming the way out.
    """
    workers = distribution.worker(strategy)[1]
    if workers > 1:
        raise ValueError(
            "`fit` trains on one host: several workers train through `noisy_sgd.training.loop`, as "
            f"noisy_sgd.experiments.train does. Received: {workers} workers"
        )


def check_batch_size(batch_size: int | None, configured: int | None) -> None:
    """Refuses a `batch_size` of `fit` that is larger than the configured one."""
    holds = configured is None or batch_size is None or batch_size <= configured
    constraint = f"must be at most the configured one, which the sum is divided by: {configured}"
    checks.require(holds, "batch_size", constraint, batch_size)


def batch_within(x: tf.Tensor, configured: int) -> tf.Operation | None:
    """Refuses a replica's part of a batch that is larger than its share: now where the size is known, else later.

    Raises:
        ValueError: for a larger one.
    """
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    limit = -(-configured // replicas)
    if x.shape[0] is not None and x.shape[0] > limit:
        raise ValueError(f"{_TOO_LARGE}: {configured}. Received: {x.shape[0]} examples on each of {replicas} replicas")
    return tf.debugging.assert_less_equal(tf.shape(x)[0], limit, _TOO_LARGE)


@contextlib.contextmanager
def naming_failed_steps(configured: int | None):
    """Makes sentences of what TensorFlow raises in the middle of a step: `batch_within`'s, and what XLA cannot compile.

    Raises:
        ValueError: where the block failed so.
    """
    try:
        yield
    except tf.errors.OpError as error:
        refusal = devices.refusal_by_xla(error)
        if refusal is not None:
            raise refusal from None
        if _TOO_LARGE not in error.message:
            raise
        raise ValueError(f"{_TOO_LARGE}: {configured}. Received: a larger batch from the dataset") from None


def remark_on_sizes(model: keras.Model, x, batch_size, configured, validation_split, callbacks) -> None:
    """Remarks, once each, on sizes that do not belong together.

    Args:
        model: what is trained.
        x: the inputs that `fit` is given.
        batch_size: of the batches that Keras makes of them, or None.
        configured: what the sum is divided by, or None.
        validation_split: as in `fit`.
        callbacks: a nest of callbacks, or None.
    """
    examples = _number_of_examples(x, validation_split)
    for callback in keras.tree.flatten(callbacks) if callbacks is not None else ():
        if isinstance(callback, budget.PrivacyBudget):
            _remark_on_budget(model, callback, examples)
    sizes = [size for size in (batch_size or _dataset_batch_size(x), examples) if size is not None]
    if configured is not None and sizes and min(sizes) < configured:
        remarks.once(
            model, "small batches", "The batches of `fit` hold %d examples, and their sum is divided by the configured "
            "batch_size=%d: each step is smaller by that quotient, and the noise as large as ever. A DPSGD whose "
            "batch_size is that of the batches steps as far as Keras' SGD.", min(sizes), configured,
        )  # fmt: skip


def _remark_on_budget(model, callback, examples):
    if examples not in (None, callback.num_examples):
        remarks.once(
            model, "num_examples", "PrivacyBudget has num_examples=%d, and `fit` trains on %d examples: its epsilon is "
            "that of another data set.", callback.num_examples, examples,
        )  # fmt: skip
    if callback.delta > 1 / callback.num_examples:
        remarks.once(
            model, "delta", "PrivacyBudget has delta=%g, above 1 / num_examples = %g: publishing an example outright "
            "would satisfy it. Choose a delta well below.", callback.delta, 1 / callback.num_examples,
        )  # fmt: skip


def _number_of_examples(x, validation_split) -> int | None:
    """How many examples arrays hold beside those that Keras sets aside; None where that is not known."""
    leaf = next((leaf for leaf in keras.tree.flatten(x) if leaf is not None), None)
    shape = getattr(leaf, "shape", None)
    if shape is None or not len(shape) or shape[0] is None:
        return None
    return math.floor(shape[0] * (1 - validation_split)) if validation_split else int(shape[0])


def _dataset_batch_size(x) -> int | None:
    """Of the batches of a dataset; None where its shapes do not say."""
    if not isinstance(x, tf.data.Dataset):
        return None
    shapes = [spec.shape for spec in tf.nest.flatten(x.element_spec) if getattr(spec, "shape", None) is not None]
    return shapes[0][0] if shapes and shapes[0].rank else None
