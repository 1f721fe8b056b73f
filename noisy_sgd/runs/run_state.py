"""The state of a run between two steps as named arrays: weights, optimizer, moving average, running metrics.

Weights, optimizer and average are the same on every replica, so the state holds them once. Each replica has its own
sums of the metrics until they are reported. The state holds the sums of all replicas, so that the report of a run that
was interrupted is the same bit for bit.

    arrays = run_state.arrays(strategy, model, average, metrics)        # between two steps
    run_state.restore(strategy, model, average, metrics, arrays)

Covered by tests/runs/continuation_test.py.
"""

import hashlib
from collections.abc import Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from noisy_sgd import keras_internals, keys
from noisy_sgd.optimizers import privatized
from noisy_sgd.training import distribution


def arrays(
    strategy: tf.distribute.Strategy, model: keras.Model, average, metrics: Mapping[str, keras.metrics.Metric]
) -> dict[str, np.ndarray]:
    """The current state; every worker must call it.

    Args:
        strategy: the strategy that the model was built under.
        model: a compiled model.
        average: a `weight_average.WeightAverage`, or None.
        metrics: the running metrics by name.

    Returns:
        One array per variable; for a variable of a metric, [replicas, ...].
    """
    shared = {name: _local(strategy, variable)[0].numpy() for name, variable in _shared(model, average)}
    return shared | _rows(strategy, dict(_running(metrics)))


def restore(
    strategy: tf.distribute.Strategy,
    model: keras.Model,
    average,
    metrics: Mapping[str, keras.metrics.Metric],
    arrays: Mapping[str, np.ndarray],
) -> None:
    """Restores a state. If the number of replicas differs, the first replica gets the total sums of the metrics.

    Raises:
        ValueError: if the state belongs to another model.
    """
    variables, running = dict(_shared(model, average)), dict(_running(metrics))
    expected = {name: tuple(variable.shape) for name, variable in (variables | running).items()}
    received = {name: array.shape[1:] if name in running else array.shape for name, array in arrays.items()}
    if expected != received:
        odd = sorted(expected.items() ^ received.items())[0]
        raise ValueError(
            "The checkpoint must be of this model, and holds the variables of another model. "
            f"Received: {odd[0]} of shape {odd[1]}"
        )
    for name, variable in variables.items():
        for component in _local(strategy, variable):
            component.assign(arrays[name])
    for name, variable in running.items():
        components, kept = _local(strategy, variable), arrays[name]
        index, workers = distribution.worker(strategy)
        replicas, first = workers * len(components), index * len(components)
        if len(kept) != replicas:
            kept = np.zeros_like(kept, shape=(replicas, *kept.shape[1:]))
            kept[0] = np.sum(arrays[name], axis=0)
        # A metric is the sum over all replicas: each worker restores the sums of its own replicas.
        for component, value in zip(components, kept[first : first + len(components)], strict=True):
            component.assign(value)


def seed_layers(model: keras.Model, seed: int | bytes) -> None:
    """Seeds the random generators of the model's layers, such as the masks of Dropout.

    The mask of an example depends on its position in the batch, and so on the other examples in the batch. The mask
    does not reveal anything about the other examples if the masks are as secret as the batches.
    """
    first, _ = keys.derive(seed, "dropout")
    for index, generator in enumerate(keras_internals.seed_generators(model)):
        # The second number is the counter of draws in Keras.
        generator.state.assign(np.array([(first + index) % 2**62, 0]))


def digest(strategy: tf.distribute.Strategy, model: keras.Model) -> bytes:
    """SHA-256 of the model's variables, for a comparison between workers."""
    found = hashlib.sha256()
    for _, variable in _shared(model, None):
        found.update(_local(strategy, variable)[0].numpy().tobytes())
    return found.digest()


def _shared(model, average) -> Iterator[tuple[str, keras.Variable]]:
    parts = {"model": model.variables, "optimizer": privatized.state_variables(model.optimizer)}
    if average is not None:
        parts["average"] = average.variables
    for part, variables in parts.items():
        for index, variable in enumerate(variables):
            yield f"{part}/{index}", variable


def _running(metrics) -> Iterator[tuple[str, keras.Variable]]:
    for name, metric in metrics.items():
        for index, variable in enumerate(metric.variables):
            yield f"metric/{name}/{index}", variable


def _local(strategy, variable) -> tuple[tf.Variable, ...]:
    value = variable.value if isinstance(variable, keras.Variable) else variable
    return strategy.experimental_local_results(value)


def _rows(strategy, variables) -> dict[str, np.ndarray]:
    """The values of each variable on all replicas, [replicas, ...], in the order of the workers."""
    own = {name: np.stack([one.numpy() for one in _local(strategy, variable)]) for name, variable in variables.items()}
    # All values go in one message, because each message costs a round of communication between the workers.
    told = distribution.gather(strategy, b"".join(array.tobytes() for array in own.values()))
    found, first = {}, 0
    for name, array in own.items():
        parts = [np.frombuffer(data, array.dtype, array.size, first).reshape(array.shape) for data in told]
        found[name], first = np.concatenate(parts), first + array.nbytes
    return found
