"""Prepares the arguments of `PrivateModel.fit`: draws batches by a scheme, orders callbacks, and informs budgets.

    fit = fitting.prepare(model, {"x": x, "y": y, "epochs": 3}, sampling="poisson", batch_size=256)
    fit.arguments       # for Keras' `fit`: a dataset of Poisson-sampled batches, ceil(N / B) per epoch

Covered by tests/training/sampling_in_fit_test.py and private_model_test.py.
"""

import math
from typing import Any, NamedTuple

import keras

from noisy_sgd import checks, keys
from noisy_sgd import sampling as schemes
from noisy_sgd.data import array_batches
from noisy_sgd.optimizers import privatized
from noisy_sgd.training import callback_budgets, participation, private_facts, training_arguments

# The schemes under which an example's participations are not a fixed number of steps apart.
_WITHOUT_SEPARATION = (schemes.Shuffled, schemes.Poisson, schemes.RandomAllocation)


class Fit(NamedTuple):
    """A prepared call of Keras' `fit`.

    Attributes:
        arguments: its keyword arguments.
        any_size: whether batches may be larger than the nominal size.
        scheme: the scheme that draws the batches; None if Keras or the user draws them.
        secret: the noise and the batches of this training are derived from it. None without a scheme, or if the seed is
            explicit.
    """

    arguments: dict[str, Any]
    any_size: bool
    scheme: schemes.Scheme | None = None
    secret: bytes | None = None


def prepare(model: keras.Model, arguments: dict[str, Any], *, sampling: str, batch_size: int | None) -> Fit:
    """Checks the arguments of `fit`, and passes the training data to the budgets and to the log.

    Args:
        model: a compiled `PrivateModel`.
        arguments: the arguments of `fit`, by name.
        sampling: the scheme that draws batches from arrays, or by which the user drew the batches of a dataset.
        batch_size: the configured batch size, or None.

    Raises:
        ValueError: for arguments that contradict each other.
    """
    arguments = dict(arguments)
    private = privatized.needs_clipped_sum(model.optimizer)
    if private:
        private_facts.check_callbacks(arguments.get("callbacks"))
    training_arguments.check_batch_size(arguments.get("batch_size"), batch_size)
    callbacks = arguments.get("callbacks")
    if callbacks is not None and not isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = arguments["callbacks"] = callback_budgets.first(keras.tree.flatten(callbacks))
    kind, x = schemes.named(sampling), arguments.get("x")
    arrays = participation.is_arrays(x)
    if private and arrays and kind in _WITHOUT_SEPARATION and not model.optimizer.mechanism.independent_steps:
        raise ValueError(
            "`sampling` must be 'cyclic' for noise that is correlated over steps: its cost is not known where batches "
            f"are shuffled anew in every epoch or drawn at random. Received: sampling={kind.name!r}"
        )
    # Keras splits off no validation data where some are given.
    split = 0.0 if arguments.get("validation_data") is not None else arguments.get("validation_split") or 0.0
    # Keras itself draws shuffled batches of arrays, and the user those of a dataset.
    if kind is not schemes.Shuffled and arrays:
        first_step = int(model.optimizer.iterations.numpy())
        fit = _sampled_fit(model, arguments, kind, batch_size, split, private, first_step)
        callback_budgets.observe_scheme(callbacks, fit.scheme, first_step)
        training_arguments.remark_on_sizes(model, x, None, batch_size, split, callbacks)
        return fit
    if arguments.get("batch_size") is None and arrays:
        arguments["batch_size"] = batch_size
    any_size = callback_budgets.observe(callbacks, x, arguments.get("steps_per_epoch"), kind)
    training_arguments.remark_on_sizes(model, x, arguments.get("batch_size"), batch_size, split, callbacks)
    return Fit(arguments, any_size)


def _sampled_fit(model, arguments, kind, batch_size, split, private, first_step) -> Fit:
    if batch_size is None:
        raise ValueError(
            f"`batch_size` must be given to `compile` for sampling={kind.name!r}: it sets the probability of drawing "
            "each example, and the sum is divided by it. Received: batch_size=None"
        )
    given = arguments.pop("batch_size", None)
    checks.require(
        given in (None, batch_size), "batch_size", f"must be the configured one, {batch_size}, or be left out", given
    )
    arrays = [arguments.pop(name, None) for name in ("x", "y", "sample_weight")]
    while arrays[-1] is None:
        arrays.pop()
    number = int(keras.tree.flatten(arrays[0])[0].shape[0])
    arguments.pop("validation_split", None)
    if split:
        kept = math.floor(number * (1 - checks.real("validation_split", split, above=0, below=1)))
        arguments["validation_data"] = _rows(arrays, kept, number)
        arrays, number = _rows(arrays, 0, kept), kept
    secret = keys.secret() if private and model.optimizer.seed is None else None
    scheme = kind(number, batch_size, _seed(model.optimizer) if secret is None else secret)
    arguments["shuffle"] = False  # The scheme shuffles; Keras would warn.
    if arguments.get("steps_per_epoch") is None:
        arguments["steps_per_epoch"] = scheme.steps_per_epoch
    arguments["x"] = array_batches.whole(scheme, tuple(arrays), first_step=first_step)
    return Fit(arguments, True, scheme, secret)


def _seed(optimizer) -> int | bytes:
    """The explicit seed, so that a training can be repeated; without one, a new secret per training."""
    seed = getattr(optimizer, "seed", None)
    return keys.secret() if seed is None else seed


def _rows(arrays, first, end) -> tuple:
    return tuple(
        None if array is None else keras.tree.map_structure(lambda leaf: leaf[first:end], array) for array in arrays
    )
