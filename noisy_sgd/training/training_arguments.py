"""Checks the arguments of `PrivateModel.compile` and `fit`, and warns of allowed ones that may be a mistake.

batch_size = training_arguments.divisor(optimizer, None)            # DPSGD's own
training_arguments.check_batch_size(17, configured=16)              # ValueError: `batch_size` must be at most ...
"""

import contextlib
import math

import keras
import tensorflow as tf

from noisy_sgd import checks, keras_internals
from noisy_sgd.optimizers import foreign_arguments, noised, privatized
from noisy_sgd.training import budget, distribution, remarks

_TOO_LARGE = "A batch of `fit` must hold at most the configured `batch_size` of examples, which the sum is divided by"


def check_names(method: str, names: dict) -> None:
    """Refuses unknown keyword arguments; for arguments of other libraries it names ours.

    Raises:
        ValueError: for a name of another library.
        TypeError: for any other name, as in Python.
    """
    foreign_arguments.refuse(names)
    for name in names:
        raise TypeError(f"PrivateModel.{method}() got an unexpected keyword argument {name!r}")


def check_size(name: str, value) -> None:
    """Refuses a value that is neither a positive integer nor None."""
    if value is not None:
        checks.count(name, value, constraint="must be a positive integer or None")


def check_augmentation_multiplicity(value) -> None:
    """Refuses a value that is not a positive integer."""
    if value is None:
        raise ValueError(
            "`augmentation_multiplicity` must be a positive integer, 1 for one view of each example. "
            "Received: augmentation_multiplicity=None"
        )
    check_size("augmentation_multiplicity", value)


def divisor(optimizer: keras.optimizers.Optimizer, batch_size: int | None) -> int | None:
    """The divisor of the summed gradient; None for the number of examples in the batch.

    Raises:
        ValueError: for another batch size than that of a private optimizer.
    """
    check_size("batch_size", batch_size)
    if not privatized.needs_clipped_sum(optimizer):
        return batch_size
    if batch_size not in (None, optimizer.batch_size):
        raise ValueError(
            "`batch_size` must be the optimizer's, which scales the noise, or be left out: "
            f"the optimizer has batch_size={optimizer.batch_size}. Received: batch_size={batch_size}"
        )
    return optimizer.batch_size


def check_optimizer_knows(optimizer: keras.optimizers.Optimizer, variables: list) -> None:
    """Refuses trainable variables that a built optimizer was not built with.

    Raises:
        ValueError: naming the first one and the way out.
    """
    known = {id(variable) for variable in keras_internals.optimizer_weights(optimizer)} if optimizer.built else None
    for variable in variables:
        if known is not None and id(variable) not in known:
            raise ValueError(
                "`compile` must be called again, with a new optimizer, where a model has got new trainable weights, as "
                f"after `enable_lora` or when layers are unfrozen. Received: variable={variable.path}"
            )


def remark_on_optimizer(model: keras.Model) -> None:
    """Warns once that a training is not private."""
    if not noised.is_noised(model.optimizer):
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
            "`fit` trains on one host only; several workers train through `noisy_sgd.training.loop`, as in "
            f"noisy_sgd.experiments.train. Received: {workers} workers"
        )


def check_batch_size(batch_size: int | None, configured: int | None) -> None:
    """Refuses a `batch_size` of `fit` that is larger than the configured batch size."""
    holds = configured is None or batch_size is None or batch_size <= configured
    constraint = f"must be at most the configured one, which the sum is divided by: {configured}"
    checks.require(holds, "batch_size", constraint, batch_size)


def batch_within(x, configured: int):
    """The inputs of a replica's part of a batch, unless it is larger than its share; in the step if that is unknown.

    Raises:
        ValueError: for a larger part.
    """
    size, replicas = tf.nest.flatten(x)[0].shape[0], tf.distribute.get_strategy().num_replicas_in_sync
    limit = -(-configured // replicas)
    if size is not None and size > limit:
        raise ValueError(f"{_TOO_LARGE}: {configured}. Received: {size} examples on each of {replicas} replicas")
    within = tf.debugging.assert_less_equal(tf.shape(tf.nest.flatten(x)[0])[0], limit, _TOO_LARGE)
    # Eagerly there is no operation to wait for.
    with tf.control_dependencies([] if within is None else [within]):
        return tf.nest.map_structure(tf.identity, x)


@contextlib.contextmanager
def naming_failed_steps(configured: int | None):
    """Turns TensorFlow's errors about a large batch, or an operation that XLA cannot compile, into one sentence.

    Raises:
        ValueError: if the block fails with such an error.
    """
    try:
        yield
    except tf.errors.OpError as error:
        refusal = _refusal_by_xla(error)
        if refusal is not None:
            raise refusal from None
        if _TOO_LARGE not in error.message:
            raise
        raise ValueError(f"{_TOO_LARGE}: {configured}. Received: a larger batch from the dataset") from None


def _refusal_by_xla(error: tf.errors.OpError) -> ValueError | None:
    """The error to raise where the given one says that XLA cannot compile a model; None for any other error."""
    if "tf2xla conversion failed" not in error.message:
        return None
    reason = next((line for line in error.message.splitlines() if line and "XLA" in line), "")
    return ValueError(
        "`jit_compile` must be False for a model with operations that XLA cannot compile: "
        f"{' '.join(reason.split())[:300]}. Received: jit_compile=True"
    )


def remark_on_sizes(model: keras.Model, x, batch_size, configured, validation_split, callbacks) -> None:
    """Warns once each of sizes that do not fit together.

    Args:
        model: the model that is trained.
        x: the inputs of `fit`.
        batch_size: the size of the batches that Keras draws from `x`, or None.
        configured: the configured batch size, which the sum is divided by, or None.
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
            "batch_size=%d: the steps are smaller by this ratio, but the noise is not. Set the optimizer's batch_size "
            "to the size of the batches for steps as large as those of Keras' SGD.", min(sizes), configured,
        )  # fmt: skip


def _remark_on_budget(model, callback, examples):
    if examples not in (None, callback.num_examples):
        remarks.once(
            model, "num_examples", "PrivacyBudget has num_examples=%d, and `fit` trains on %d examples: its epsilon is "
            "not that of this data set. Set num_examples to the number of training examples.",
            callback.num_examples, examples,
        )  # fmt: skip
    if callback.delta > 1 / callback.num_examples:
        remarks.once(
            model, "delta", "PrivacyBudget has delta=%g, above 1 / num_examples = %g, which even the publication of "
            "an example would satisfy. Choose a much smaller delta.", callback.delta, 1 / callback.num_examples,
        )  # fmt: skip


def _number_of_examples(x, validation_split) -> int | None:
    """The number of training examples in arrays, without those of `validation_split`; None if it is not known."""
    leaf = next((leaf for leaf in keras.tree.flatten(x) if leaf is not None), None)
    shape = getattr(leaf, "shape", None)
    if shape is None or not len(shape) or shape[0] is None:
        return None
    return math.floor(shape[0] * (1 - validation_split)) if validation_split else int(shape[0])


def _dataset_batch_size(x) -> int | None:
    """The batch size of a dataset; None if its shapes do not show it."""
    if not isinstance(x, tf.data.Dataset):
        return None
    shapes = [spec.shape for spec in tf.nest.flatten(x.element_spec) if getattr(spec, "shape", None) is not None]
    return shapes[0][0] if shapes and shapes[0].rank else None
