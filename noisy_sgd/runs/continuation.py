"""Starts a run at its first step or at its newest checkpoint, and writes what a later start needs.

A checkpoint holds the complete state of a run. Under the same circumstances (data, versions, devices), a run that
continues from a checkpoint computes the lost steps again bit for bit, with the same noise. Each step is then one
release and counts once.

Under other circumstances the gradients can differ. The same noise on two different gradients cancels in their
difference. A DP-SGD run therefore takes a new secret, and every step that may have been released before counts again.

The ledger lists the steps that may have been released. It is written before the steps are taken, to the directory of
the checkpoints and to the run directory. So whoever removes or moves the checkpoints does not remove the record of the
privacy that the run has spent.

    circumstances = continuation.circumstances(objects, settings, environment={})
    starting_point = continuation.begin(objects, settings, run, circumstances=circumstances, say=print)
    # A Keras callback, the last in the list.
    checkpoint_writer = continuation.CheckpointWriter(objects, settings, run, starting_point, ...)
"""

import contextlib
import dataclasses
import hashlib
import pathlib
import struct
import time
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from noisy_sgd import config, files, keys, records
from noisy_sgd.privacy import ledger as ledgers
from noisy_sgd.runs import builders, checkpoints, run_state
from noisy_sgd.training import distribution

_LEDGER = "ledger.jsonl"
# The first worker sends these values to the other workers: the step, `StartingPoint.saved`, the first step of the
# attempt, the secret.
_TOLD = struct.Struct("<q?q16s")
# The digests are never shown: somebody who knows all examples but one could find the last one from the digest.
_OTHER = {"data": "the training data are different", "model": "the file of `--model` is different"}


class Interrupted(Exception):
    """The run stopped on request, after it saved a checkpoint; `step` steps are done."""

    def __init__(self, step: int):
        super().__init__(f"stopped after step {step}")
        self.step = step


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartingPoint:
    """The state from which a run trains.

    Attributes:
        step: the first step to take.
        secret: the 16 bytes from which a DP-SGD run derives its noise and batches; None if it uses public seeds.
        ledger: the steps that may have been released so far; None if the run has no secret, and on all workers but the
            first.
        saved: whether a checkpoint of exactly this state exists.
        attempt_step: the first step of the current attempt, which is taken with the noise of this secret.
    """

    step: int = 0
    secret: bytes | None = dataclasses.field(default=None, repr=False)
    ledger: ledgers.Ledger | None = None
    saved: bool = False
    attempt_step: int = 0


def circumstances(objects: builders.RunObjects, settings: config.Config, environment: dict[str, str]) -> dict[str, Any]:
    """Everything except the configuration that affects the bits of a step, as JSON values.

    Args:
        objects: the objects of the run, of which the images and the strategy are read.
        settings: the run's configuration. It names a saved model's file but does not hold its content.
        environment: environment variables that change TensorFlow's arithmetic, by name.
    """
    return {
        "data": objects.images.fingerprint(),
        "num_train_examples": objects.images.num_train_examples,
        "model": _digest_of_file(settings.model),
        "versions": records.versions() | {"noisy_sgd": records.source_digest(), "build": tf.version.GIT_VERSION},
        "devices": distribution.topology(objects.strategy),
        "intra_op_threads": tf.config.threading.get_intra_op_parallelism_threads(),
        "environment": dict(environment),
    }


def begin(
    objects: builders.RunObjects,
    settings: config.Config,
    run: records.Run | None,
    *,
    circumstances: dict[str, Any],
    say: Callable[[str], None],
) -> StartingPoint:
    """Puts the model and the record in the state from which the run continues; every worker must call it.

    Args:
        objects: the objects of the run, in the state of step 0.
        settings: the run's configuration.
        run: the run's record; None on all workers but the first.
        circumstances: from `circumstances`, in this process.
        say: called with sentences that say where the run continues, and whether bit for bit.

    Raises:
        ValueError: if the checkpoints cannot be read or belong to another configuration.
    """
    directory, resume = checkpoint_directory(settings), settings.run.resume
    newest = checkpoints.load_newest(directory, say) if resume else None
    chosen = StartingPoint()
    if run is not None:
        # Also without `resume`, the checkpoints that will be removed must belong to this run.
        chosen = _chief(newest if resume else _readable(directory), settings, run, circumstances, say)
    attempt_step = chosen.ledger.attempts[-1][0] if chosen.ledger else 0
    told = _TOLD.pack(chosen.step, chosen.saved, attempt_step, chosen.secret or bytes(16))
    step, saved, attempt_step, secret = _TOLD.unpack(distribution.broadcast(objects.strategy, told))
    if step and (newest is None or newest.step != step):
        raise ValueError(
            "`--checkpoint_dir` must be the same folder for all workers; use a shared filesystem. Received: "
            f"checkpoint_dir={directory}, where worker 0 continues from step {step} and this worker finds "
            f"{f'step {newest.step}' if newest else 'no checkpoint'}"
        )
    if newest is not None and newest.step == step:
        metrics = objects.metrics
        run_state.restore(objects.strategy, objects.model, objects.average, metrics, newest.arrays)
    private = _has_secret(settings)
    if not saved:
        run_state.seed_layers(objects.model, secret if private else settings.run.seed)
    distribution.require_same(objects.strategy, "checkpoint_dir", run_state.digest(objects.strategy, objects.model))
    return dataclasses.replace(
        chosen, step=step, saved=saved, secret=secret if private else None, attempt_step=attempt_step
    )


def _chief(newest, settings, run, circumstances, say) -> StartingPoint:
    """The starting point that the first worker chooses from the newest checkpoint and the ledger."""
    private = _has_secret(settings)
    if newest is not None:
        difference = records.first_difference(newest.facts["config"], records.plain(settings.resolved()))
        if difference:
            raise ValueError(
                f"`--checkpoint_dir` holds checkpoints of another run ({difference}); choose another directory"
            )
    ledger = _read_ledger(settings, newest) if private else None
    if private and ledger.restarted(0) != ledgers.Ledger():
        _check_count(newest, run, circumstances["num_train_examples"])
    if not settings.run.resume:
        checkpoints.clear(checkpoint_directory(settings))
        newest = None
    if newest is None:
        run.rewrite("")
        run.rewrite("", private=True)
        fresh = keys.secret() if private else None
        if private and ledger != ledgers.Ledger():
            ledger = ledger.restarted(0)
            say("The run starts again with new noise. Its earlier steps still count in the privacy guarantee.")
        return StartingPoint(secret=fresh, ledger=ledger)
    facts = newest.facts
    run.rewrite(facts["metrics"])
    run.rewrite(facts["private_metrics"], private=True)
    difference = _difference(facts["circumstances"], records.plain(circumstances))
    if difference is None and any(tf.config.list_logical_devices(kind) for kind in ("GPU", "TPU")):
        difference = "accelerators may not repeat a computation bit for bit"
    if difference is None and private and ledgers.from_text(facts["ledger"]).attempt != ledger.attempt:
        difference = "the checkpoint belongs to an earlier attempt with other noise"
    if difference is None:
        say(f"The run continues from step {newest.step}, bit for bit.")
        secret = bytes.fromhex(facts["secret"]) if private else None
        return StartingPoint(step=newest.step, secret=secret, ledger=ledger, saved=True)
    say(f"The run continues from step {newest.step}, but not bit for bit: {difference}.")
    if not private:
        return StartingPoint(step=newest.step, saved=True)
    say("The noise is new. The steps already taken after the checkpoint still count in the privacy guarantee.")
    return StartingPoint(step=newest.step, secret=keys.secret(), ledger=ledger.restarted(newest.step))


class CheckpointWriter(keras.callbacks.Callback):
    """Writes the ledger before the steps, saves checkpoints, and stops the run on request.

    It must be the last callback, because a step's checkpoint must hold what the other callbacks write at the step. It
    saves a checkpoint every `checkpoint_every` steps, every `checkpoint_minutes` minutes, and at the end.

    Args:
        objects: the objects of the run.
        settings: the run's configuration.
        run: the run's record; None on all workers but the first.
        starting_point: from `begin`.
        circumstances: from `circumstances`, in this process.
        num_steps: the last step, exclusive.
        steps_per_call: largest number of steps in one call of the compiled function.
        stop_requested: called when a checkpoint may be saved. If it returns True, the run saves a checkpoint and raises
            `Interrupted`. Defaults to a function that returns False.
        clock: returns the time in seconds from any fixed point. Defaults to `time.monotonic`.
    """

    def __init__(
        self,
        objects: builders.RunObjects,
        settings: config.Config,
        run: records.Run | None,
        starting_point: StartingPoint,
        *,
        circumstances: dict[str, Any],
        num_steps: int,
        steps_per_call: int,
        stop_requested: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ):
        super().__init__()
        self._objects, self._settings, self._run, self._starting_point = objects, settings, run, starting_point
        self._circumstances = circumstances
        self._num_steps, self._steps_per_call = num_steps, steps_per_call
        self._stop_requested, self._clock = stop_requested, clock
        self._ledger = starting_point.ledger
        self._step = starting_point.step
        self._saved_step = starting_point.step if starting_point.saved else None
        self._saved_time = clock()

    @property
    def ledger(self) -> ledgers.Ledger | None:
        """The steps that may have been released so far."""
        return self._ledger

    def on_train_begin(self, logs=None):
        """Writes the ledger, and saves a new secret before the run draws noise from it."""
        if self._ledger is not None:
            # The ledger is written first, so checkpoints without a ledger mean that the ledger was lost.
            _write_ledger(self._settings, self._ledger)
        if self._starting_point.secret is not None and self._saved_step is None:
            self._save()

    def on_train_batch_begin(self, batch, logs=None):
        """Writes to the ledger that the steps of this call may be released."""
        if self._ledger is None:
            return
        covering = self._ledger.covering(min(batch + self._steps_per_call, self._num_steps))
        if covering != self._ledger:
            self._ledger = covering
            _write_ledger(self._settings, covering)

    def on_train_batch_end(self, batch, logs=None):
        """Saves a checkpoint if one is due; at the end of an epoch, `on_epoch_end` saves it after the metrics."""
        self._step = batch + 1
        if self._step % self._settings.eval_every and self._step < self._num_steps:
            self._save_if_due()

    def on_epoch_end(self, epoch, logs=None):
        """Saves a checkpoint if one is due."""
        if self._saved_step != self._step:
            self._save_if_due()

    def on_train_end(self, logs=None):
        """Saves the final state."""
        if self._saved_step != self._step:
            self._save()

    def _save_if_due(self) -> None:
        chosen = self._settings.run
        stop = distribution.any_worker(self._objects.strategy, self._stop_requested())
        late = self._clock() - self._saved_time >= 60 * chosen.checkpoint_minutes
        by_steps = chosen.checkpoint_every is not None and self._step % chosen.checkpoint_every == 0
        if stop or by_steps or distribution.any_worker(self._objects.strategy, late):
            self._save()
        if stop:
            raise Interrupted(self._step)

    def _save(self) -> None:
        objects = self._objects
        arrays = run_state.arrays(objects.strategy, objects.model, objects.average, objects.metrics)
        self._saved_step, self._saved_time = self._step, self._clock()
        if self._run is None:
            return
        secret = self._starting_point.secret
        facts = {
            "config": self._settings.resolved(),
            "circumstances": self._circumstances,
            "metrics": self._run.text(),
            "private_metrics": self._run.text(private=True),
            "ledger": None if self._ledger is None else self._ledger.to_text(),
            "secret": None if secret is None else secret.hex(),
        }
        made = checkpoints.Checkpoint(step=self._step, arrays=arrays, facts=records.plain(facts))
        checkpoints.save(checkpoint_directory(self._settings), made, keep=self._settings.run.keep_checkpoints)


def checkpoint_directory(settings: config.Config) -> str:
    """The directory of a run's checkpoints and its ledger."""
    return settings.run.checkpoint_dir or str(pathlib.Path(settings.run.run_dir) / "checkpoints")


def _digest_of_file(model: config.Model) -> str | None:
    """SHA-256 of a saved model's file; None for a network chosen by name."""
    return hashlib.sha256(pathlib.Path(model.model).read_bytes()).hexdigest() if model.is_saved else None


def _check_count(newest: checkpoints.Checkpoint | None, run: records.Run, here: int) -> None:
    """Refuses another number of examples: the steps already taken are accounted for with the old number."""
    if newest is None:
        there = records.read(run.directory).privacy["num_examples"]
    else:
        there = newest.facts["circumstances"]["num_train_examples"]
    if there != here:
        raise ValueError(
            f"`--data_dir` must hold {there} training examples, the number in this run's privacy accounting; choose "
            f"another run directory and another `--checkpoint_dir`. Received: {here} examples"
        )


def _difference(there: dict[str, Any], here: dict[str, Any]) -> str | None:
    """A sentence on the first difference between circumstances, without any digest; None if they agree."""
    for name, sentence in _OTHER.items():
        if there.get(name) != here.get(name):
            return sentence
    return records.first_difference(there, here)


def _has_secret(settings: config.Config) -> bool:
    return settings.training.algorithm == "dp_sgd" and settings.noise_seed is None


def _readable(directory: str) -> checkpoints.Checkpoint | None:
    """The newest complete checkpoint; None if there is none."""
    with contextlib.suppress(ValueError):
        return checkpoints.load_newest(directory, lambda sentence: None)
    return None


def _ledger_paths(settings: config.Config) -> list[str]:
    return [f"{directory}/{_LEDGER}" for directory in (checkpoint_directory(settings), settings.run.run_dir)]


def _read_ledger(settings: config.Config, newest: checkpoints.Checkpoint | None) -> ledgers.Ledger:
    """The furthest of the ledger files; if all are lost, the checkpoint's ledger with all steps that could follow."""
    paths = [path for path in _ledger_paths(settings) if files.exists(path)]
    if not paths:
        if newest is None:
            return ledgers.Ledger()
        return ledgers.from_text(newest.facts["ledger"]).covering(settings.training.num_steps)
    try:
        return ledgers.furthest([ledgers.from_text(files.read(path).decode()) for path in paths])
    except ValueError as error:
        raise ValueError(
            f"What this run may have released must be known, but {' and '.join(paths)} cannot be read as its ledger "
            f"({error}); remove the damaged file, or choose other directories"
        ) from error


def _write_ledger(settings: config.Config, ledger: ledgers.Ledger) -> None:
    for path in _ledger_paths(settings):
        files.write_private(path, ledger.to_text().encode())
