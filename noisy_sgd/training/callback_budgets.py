"""What `fit` and `loop.train` tell the privacy budgets among their callbacks, and ask them.

Callbacks of other kinds are left alone.

    callbacks = callback_budgets.first(callbacks)
    callback_budgets.observe(callbacks, x, steps_per_epoch, sampling.named("shuffled"))

Covered by tests/training/budget_test.py.
"""

from collections.abc import Sequence

import keras

from noisy_sgd import checks
from noisy_sgd import sampling as schemes
from noisy_sgd.training import budget, participation


def first(callbacks: Sequence[keras.callbacks.Callback]) -> list[keras.callbacks.Callback]:
    """The callbacks, every `PrivacyBudget` first, so that the others see the epsilon that it logs."""
    return sorted(callbacks, key=lambda callback: not isinstance(callback, budget.PrivacyBudget))


def last_step(callbacks: Sequence[keras.callbacks.Callback], num_steps: int) -> int:
    """The last step, exclusive, that every `PrivacyBudget` among the callbacks allows, and at most `num_steps`."""
    return min([num_steps, *(each.last_step for each in _budgets(callbacks))])


def observe(callbacks, x, steps_per_epoch: int | None, kind: type[schemes.Scheme]) -> bool:
    """Passes the training data of `fit` to every `PrivacyBudget` among the callbacks.

    Args:
        callbacks: the callbacks of `fit`: a list, a `keras.callbacks.CallbackList`, or None.
        x: the training data.
        steps_per_epoch: as passed to `fit`.
        kind: the sampling scheme that was passed to `fit`.

    Returns:
        Whether the user's batches are Poisson-sampled, and so may be larger than the nominal size.

    Raises:
        ValueError: for a budget with another sampling scheme than that of `fit`, or for random allocation of a dataset.
    """
    data, budgets = participation.Data.of(x, steps_per_epoch), _budgets(callbacks)
    for claimed in (kind, *(schemes.named(each.sampling) for each in budgets if each.sampling)):
        if issubclass(claimed, schemes.EpochScheme) and claimed is not schemes.Shuffled and not data.one_pass:
            raise ValueError(
                f"`x` must be arrays for sampling={claimed.name!r}, because nobody knows which batches of a dataset "
                f"are one epoch of the scheme; pass arrays, or draw Poisson batches. Received: x={type(x).__name__}"
            )
    for each in budgets:
        if each.sampling not in (None, kind.name) and (data.one_pass or kind.amplifies):
            raise ValueError(
                f"`sampling` of the PrivacyBudget must be that of `fit`, which is {kind.name!r}; leave it out, or call "
                f"fit(x, y, sampling={each.sampling!r}). Received: sampling={each.sampling!r}"
            )
        each.observe(data, schemes.named(each.sampling) if each.sampling else kind)
    return kind.amplifies or any(each.amplifies for each in budgets)


def observe_scheme(callbacks, scheme: schemes.Scheme, first_step: int) -> None:
    """Passes the scheme that draws the batches to every `PrivacyBudget` among the callbacks.

    Args:
        callbacks: as in `observe`.
        scheme: the scheme.
        first_step: the step of the scheme that draws the first batch.

    Raises:
        ValueError: for a budget with another sampling scheme or another number of examples.
    """
    for each in _budgets(callbacks):
        if each.sampling not in (None, scheme.name):
            raise ValueError(
                f"`sampling` of the PrivacyBudget must be that of `fit`, {scheme.name!r}, or be left out. "
                f"Received: sampling={each.sampling!r}"
            )
        checks.require(
            each.num_examples == scheme.num_examples,
            "num_examples",
            f"of the PrivacyBudget must be the {scheme.num_examples} examples that `fit` draws batches from",
            each.num_examples,
        )
        each.observe(participation.Data(), type(scheme), first_step)


def _budgets(callbacks) -> list[budget.PrivacyBudget]:
    listed = getattr(callbacks, "callbacks", callbacks) or ()
    return [callback for callback in listed if isinstance(callback, budget.PrivacyBudget)]
