"""Keras callbacks of the binaries: progress for a person, and metrics for a record. TensorBoard's is Keras' own.

listeners = [callbacks.Progress(num_steps, sys.stderr), callbacks.MetricsRecorder(run)]
loop.train(model, ..., callbacks=listeners)
"""

import time
from collections.abc import Callable
from typing import TextIO

import keras

from noisy_sgd import records
from noisy_sgd.runs import progress

_NORMS = ("squared_gradient_norm", "squared_noise_norm")


class Progress(keras.callbacks.Callback):
    """A bar with rate and remaining time on a terminal; elsewhere now and then a line.

    One object may follow several runs, one after the other.

    Args:
        num_steps: steps of all the runs together.
        stream: where to write, such as `sys.stderr`.
        lines: about how many lines to write where there is no terminal. Defaults to 20.
        first_step: how many of the steps an earlier process has done. Defaults to 0.
        clock: seconds since anything. Defaults to `time.monotonic`.
    """

    def __init__(
        self,
        num_steps: int,
        stream: TextIO,
        *,
        lines: int = 20,
        first_step: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ):
        super().__init__()
        self._shown = progress.Progress(
            total=num_steps, unit="steps", stream=stream, first=first_step, lines=lines, clock=clock
        )
        self._finished, self._step = 0, first_step

    def on_train_batch_end(self, batch, logs=None):
        """Advances to the step that ended, the last of those that ran in one call."""
        self._step = batch + 1
        self._shown.reach(self._finished + self._step, more=True)

    def on_epoch_end(self, epoch, logs=None):
        """Takes what is shown of an epoch; of a private training the loop logs no loss unless it is asked to."""
        found = [logs[name] for name in ("val_ema_accuracy", "val_accuracy") if name in (logs or {})]
        news = None
        if found:
            shown = [f", {name} {logs[name]:.3g}" for name in ("loss", "epsilon") if name in logs]
            news = f"test accuracy {100 * found[0]:.1f} %" + "".join(shown)
        self._shown.reach(self._finished + self._step, news)

    def on_train_end(self, logs=None):
        """Adds the run's steps to those of the runs before it."""
        self._finished += self._step
        self._step = 0

    def close(self) -> None:
        """Ends the bar's line."""
        self._shown.close()


class MetricsRecorder(keras.callbacks.Callback):
    """Writes what the loop reports to a run's metrics.jsonl, a line an epoch, and a line for every step with norms.

    Args:
        run: to write to.
        leave_out: names that are not for this file. Defaults to none.
    """

    def __init__(self, run: records.Run, *, leave_out: tuple[str, ...] = ()):
        super().__init__()
        self._run = run
        self._left_out = (*_NORMS, *leave_out)
        self._step = 0

    def on_train_batch_end(self, batch, logs=None):
        """Records the norms of steps that have them."""
        self._step = batch + 1
        norms = {name: (logs or {})[name] for name in _NORMS if name in (logs or {})}
        if norms:
            self._run.append({"step": self._step, **norms})

    def on_epoch_end(self, epoch, logs=None):
        """Records the epoch's metrics under the step that ended it."""
        kept = {name: value for name, value in (logs or {}).items() if name not in self._left_out}
        self._run.append({"step": self._step, **kept})
