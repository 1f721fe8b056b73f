"""Keras callbacks of the programs: one shows progress, one records metrics. Keras has the callback for TensorBoard.

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
    """Shows rate and remaining time: as a bar on a terminal, as occasional lines in any other stream.

    One object may follow several runs, one after the other.

    Args:
        num_steps: total number of steps of all runs.
        stream: where to write, such as `sys.stderr`.
        lines: approximate number of lines to write if the stream is not a terminal. Defaults to 20.
        first_step: number of steps that an earlier process completed. Defaults to 0.
        clock: returns the time in seconds from any fixed point. Defaults to `time.monotonic`.
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
        """Advances to the last step that the call completed."""
        self._step = batch + 1
        self._shown.reach(self._finished + self._step, more=True)

    def on_epoch_end(self, epoch, logs=None):
        """Shows the epoch's metrics; a DP-SGD run logs the loss only if private metrics are to be shown."""
        found = [logs[name] for name in ("val_ema_accuracy", "val_accuracy") if name in (logs or {})]
        news = None
        if found:
            shown = [f", {name} {logs[name]:.3g}" for name in ("loss", "epsilon") if name in logs]
            news = f"test accuracy {100 * found[0]:.1f} %" + "".join(shown)
        self._shown.reach(self._finished + self._step, news)

    def on_train_end(self, logs=None):
        """Adds the run's steps to the steps of the earlier runs."""
        self._finished += self._step
        self._step = 0

    def close(self) -> None:
        """Ends the line of the bar."""
        self._shown.close()


class MetricsRecorder(keras.callbacks.Callback):
    """Writes metrics to a run's metrics.jsonl: one line per epoch, and one line per step that reports norms.

    Args:
        run: the record to write to.
        leave_out: names of metrics that are not written. Defaults to none.
    """

    def __init__(self, run: records.Run, *, leave_out: tuple[str, ...] = ()):
        super().__init__()
        self._run = run
        self._left_out = (*_NORMS, *leave_out)
        self._step = 0

    def on_train_batch_end(self, batch, logs=None):
        """Records the norms of the step if the loop reports them."""
        self._step = batch + 1
        norms = {name: (logs or {})[name] for name in _NORMS if name in (logs or {})}
        if norms:
            self._run.append({"step": self._step, **norms})

    def on_epoch_end(self, epoch, logs=None):
        """Records the epoch's metrics with the number of its last step."""
        kept = {name: value for name, value in (logs or {}).items() if name not in self._left_out}
        self._run.append({"step": self._step, **kept})
