"""Refuses callbacks that act on private facts of a DP-SGD training.

The guarantee covers the noised weights. The training loss, accuracy and norms are computed without noise. If a callback
stops the training, keeps a checkpoint or lowers the learning rate by such a fact, the trained weights depend on the
data in a way that the noise does not cover. A callback may use facts from other data ("val_...") or from no data.

    private_facts.check_callbacks([keras.callbacks.EarlyStopping("val_loss")])    # fine
    private_facts.check_callbacks([keras.callbacks.EarlyStopping("loss")])        # raises ValueError
"""

from collections.abc import Iterable

import keras

PUBLIC = ("epsilon", "learning_rate")


def check_callbacks(callbacks) -> None:
    """Refuses Keras callbacks that would act on facts about the training data.

    The check is by name: a callback's `monitor` must begin with "val_" or be in `PUBLIC`. The caller must make sure
    that the validation data are not training data, and that callbacks of other kinds use no private facts.

    Args:
        callbacks: a callback, a `keras.callbacks.CallbackList`, a nest of them, or None.

    Raises:
        ValueError: naming the first callback that acts on another fact.
    """
    for callback in _all(callbacks):
        name = type(callback).__name__
        if isinstance(callback, keras.callbacks.TerminateOnNaN):
            raise ValueError(
                f"`callbacks` must not act on private facts: {name} ends a DP-SGD training by the training loss, which "
                "is computed without noise; leave it out (a gradient that is not finite contributes nothing anyway). "
                f"Received: {name}"
            )
        monitor = getattr(callback, "monitor", None)
        # Without save_best_only, ModelCheckpoint does not use its `monitor`.
        ignored = isinstance(callback, keras.callbacks.ModelCheckpoint) and not callback.save_best_only
        if isinstance(monitor, str) and not ignored and not _public(monitor):
            raise ValueError(
                f"`callbacks` must not act on private facts: {name} monitors {monitor!r}, which is computed from the "
                "training data without noise, so that the guarantee would not hold; monitor a fact about other data, "
                f"such as 'val_loss', with `validation_data`. Received: monitor={monitor!r}"
            )


def _public(monitor: str) -> bool:
    return monitor.startswith("val_") or monitor in PUBLIC


def _all(callbacks) -> Iterable[keras.callbacks.Callback]:
    for callback in keras.tree.flatten(callbacks) if callbacks is not None else ():
        if isinstance(callback, keras.callbacks.CallbackList):
            yield from _all(callback.callbacks)
        else:
            yield callback
