"""Trains one run and records it: run.json, metrics.jsonl, checkpoints, TensorBoard events and the trained network.

    objects = builders.build(settings)
    with recorded_run.started(objects, settings) as run:
        print(run.privacy.text)
        record = recorded_run.train(run)

After an interruption, the same calls continue the run from its newest checkpoint (see `continuation`).

Covered by tests/runs/builders_test.py and tests/runs/continuation_test.py.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from noisy_sgd import config, files, keys, records, sampling
from noisy_sgd.data import augmentation, streaming
from noisy_sgd.privacy import accounting, ledger, statement
from noisy_sgd.runs import builders, callbacks, composition, continuation, trained_model
from noisy_sgd.training import distribution, loop

STEPS_PER_CALL = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartedRun:
    """A run that is ready for `train`.

    Attributes:
        objects: the objects of the run, in the state of the starting point.
        settings: the configuration.
        privacy: the guarantee of the run if it ends after `num_steps`.
        num_steps: the last step, exclusive: the configured number, or the number that `max_epsilon` allows.
        record: the record to write to; None on all workers but the first.
        starting_point: the state from which the run trains.
        circumstances: the facts that must be the same for an exact replay, from `continuation.circumstances`.
        fingerprints: of the secret of each attempt, from `keys.fingerprint`; None where it is not known.
    """

    objects: builders.RunObjects
    settings: config.Config
    privacy: statement.PrivacyStatement
    num_steps: int
    record: records.Run | None
    starting_point: continuation.StartingPoint
    circumstances: dict[str, Any]
    fingerprints: tuple[str | None, ...] = ()


def planned(objects: builders.RunObjects, settings: config.Config) -> tuple[int, statement.PrivacyStatement]:
    """The last step and the privacy statement of a run from its beginning; writes nothing.

    Args:
        objects: from `builders.build`.
        settings: the configuration that they were built with.

    Raises:
        ValueError: for a budget that allows no step.
    """
    num_steps = _last_step(objects, settings, continuation.StartingPoint())
    model, count = objects.model, objects.images.num_train_examples
    return num_steps, builders.privacy_statement(settings, model.optimizer, count, num_steps)


@contextlib.contextmanager
def started(
    objects: builders.RunObjects,
    settings: config.Config,
    *,
    environment: Mapping[str, str] | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> Iterator[StartedRun]:
    """Opens the run directory of a configuration, and puts the model in the state from which the run continues.

    Args:
        objects: from `builders.build`, or reset by `builders.restart`.
        settings: the configuration that the objects were built or reset with.
        environment: environment variables that change TensorFlow's arithmetic, by name. Defaults to none.
        say: called with sentences that say where an interrupted run continues. Defaults to doing nothing.

    Yields:
        The run, for `train`. No other process can open the run before the context ends.

    Raises:
        ValueError: if the run directory cannot be used, the checkpoints cannot be read, or the privacy budget is spent.
    """
    circumstances = continuation.circumstances(objects, settings, dict(environment or {}))
    distribution.require_same(objects.strategy, "flags", repr((settings.resolved(), circumstances)).encode())
    with contextlib.ExitStack() as stack:
        record = None
        if distribution.is_chief(objects.strategy):
            planned = builders.privacy_statement(settings, objects.model.optimizer, objects.images.num_train_examples)
            # A budget that allows no step is refused before the run directory is created.
            _last_step(objects, settings, continuation.StartingPoint())
            elsewhere = settings.run.checkpoint_dir is not None
            lock = files.lock(continuation.checkpoint_directory(settings))
            if elsewhere:
                try:
                    stack.enter_context(lock)
                except ValueError as error:
                    raise ValueError(f"`checkpoint_dir` must be a folder this run can write to: {error}") from error
            record = records.reopen(settings.run.run_dir, settings.resolved(), privacy=_described(planned))
            # The run directory also holds the ledger, so it needs a lock too.
            stack.enter_context(files.lock(settings.run.run_dir))
            if not elsewhere:
                stack.enter_context(lock)
        starting_point = continuation.begin(objects, settings, record, circumstances=circumstances, say=say)
        # With a budget, the last step depends on the ledger, which only the first worker has.
        num_steps = int(distribution.broadcast(objects.strategy, b"%d" % _last_step(objects, settings, starting_point)))
        privacy = _privacy(objects, settings, starting_point.ledger, num_steps)
        if num_steps < settings.training.num_steps:
            budget, planned = settings.training.max_epsilon, settings.training.num_steps
            say(f"The budget of epsilon = {budget:g} allows {num_steps} of the {planned} steps.")
        fingerprints = _fingerprints(settings, starting_point)
        if record is not None:
            record.state(_described(privacy, fingerprints))
        yield StartedRun(
            objects=objects,
            settings=settings,
            privacy=privacy,
            num_steps=num_steps,
            record=record,
            starting_point=starting_point,
            circumstances=circumstances,
            fingerprints=fingerprints,
        )


def train(
    run: StartedRun,
    *,
    listeners: Sequence[keras.callbacks.Callback] = (),
    stop_requested: Callable[[], bool] = lambda: False,
) -> records.Record | None:
    """Trains a started run to its end.

    A Noisy-SGD run records the squared norms of Figure 2 at every evaluation. A DP-SGD run writes the metrics that it
    computes from the training data without noise to the folder private/ of the run directory. `listeners` and
    TensorBoard get these metrics only if `show_private_metrics` is set.

    Args:
        run: from `started`.
        listeners: further Keras callbacks. Defaults to none.
        stop_requested: called after every call of the compiled step. If it returns True, the run saves a checkpoint
            and stops. Defaults to a function that returns False.

    Returns:
        The record of the finished run; None on all workers but the first.

    Raises:
        continuation.Interrupted: if `stop_requested` stopped the run.
        ValueError: if a checkpoint cannot be written, an image cannot be decoded, or a callback would act on private
            facts.
    """
    objects, settings, chosen = run.objects, run.settings, run.settings.training
    private = chosen.algorithm == "dp_sgd"
    steps_per_call = min(STEPS_PER_CALL, settings.eval_every)
    checkpoint_writer = continuation.CheckpointWriter(
        objects,
        settings,
        run.record,
        run.starting_point,
        circumstances=run.circumstances,
        num_steps=run.num_steps,
        steps_per_call=steps_per_call,
        stop_requested=stop_requested,
    )
    dataset, rounds = _microbatches(run)

    def report(step, metrics):
        if run.record is not None:
            run.record.append({"step": step, **metrics}, private=True)

    with _naming_images(objects.images):
        if run.starting_point.step == run.num_steps:
            _record_end(run)
        loop.train(
            objects.model,
            dataset,
            rounds,
            strategy=objects.strategy,
            num_steps=run.num_steps,
            metrics=objects.metrics,
            first_step=run.starting_point.step,
            steps_per_epoch=settings.eval_every,
            steps_per_call=steps_per_call,
            pause_every=settings.run.checkpoint_every,
            norms_every=settings.eval_every if chosen.algorithm == "noisy_sgd" else None,
            evaluate=objects.evaluate,
            report=report if private else None,
            log_metrics=not private or settings.run.show_private_metrics,
            callbacks=[*_recorders(run), *listeners, checkpoint_writer],
            steps=objects.steps,
            noise_secret=run.starting_point.secret,
            attempt_step=run.starting_point.attempt_step,
        )
    return _finish(run, checkpoint_writer.ledger)


@contextlib.contextmanager
def _naming_images(images) -> Iterator[None]:
    """Turns TensorFlow's error for an image that cannot be decoded into one that names the image."""
    try:
        yield
    except tf.errors.OpError as error:
        fault = images.fault(error)
        if fault is None:
            raise
        raise ValueError(fault) from error


def _microbatches(run: StartedRun):
    """This worker's microbatches, and a function of the step: the number of microbatches per replica."""
    objects, chosen = run.objects, run.settings.training
    count, seed = objects.images.num_train_examples, run.settings.run.seed
    # Amplification holds only if the batches are secret, so a private run derives them from its secret.
    scheme = builders.scheme(run.settings, count, run.starting_point.secret)
    if objects.images.present is not None:
        scheme = sampling.Present(scheme, objects.images.present)
    augment, recipe = None, run.settings.data.augmentation
    if recipe != "none":
        views, shape = chosen.augmentation_multiplicity, objects.images.image_shape
        augment = augmentation.RECIPES[recipe].make(seed, views, shape[:2])
    replicas, size = objects.strategy.num_replicas_in_sync, chosen.resolved_microbatch_size
    dataset = streaming.stream(
        objects.images,
        scheme,
        size,
        first_step=run.starting_point.step,
        num_steps=max(0, run.num_steps - run.starting_point.step),
        multiple_of=replicas,
        worker=distribution.worker(objects.strategy),
        augment=augment,
    )
    return dataset, lambda step: streaming.num_microbatches(scheme, step, size, replicas) // replicas


class _Epsilon(keras.callbacks.Callback):
    """Logs the epsilon that a private run has spent by the end of each epoch, with the steps of earlier attempts."""

    def __init__(self, run: StartedRun):
        super().__init__()
        self._run = run
        self._step = run.starting_point.step

    def on_train_batch_end(self, batch, logs=None):
        self._step = batch + 1

    def on_epoch_end(self, epoch, logs=None):
        run = self._run
        *earlier, (first, _) = run.starting_point.ledger.attempts
        spent = ledger.Ledger((*earlier, (first, self._step)))
        logs["epsilon"] = _privacy(run.objects, run.settings, spent, self._step).epsilon


class _CorruptImages(keras.callbacks.Callback):
    """Writes the names of the images that were skipped to private/, because a DP-SGD run must not show them."""

    def __init__(self, run: StartedRun):
        super().__init__()
        self._run = run

    def on_epoch_end(self, epoch, logs=None):
        self._run.record.note_corrupt(self._run.objects.images.corrupt)


def _recorders(run: StartedRun) -> list[keras.callbacks.Callback]:
    if run.record is None:
        return []
    tensorboard = keras.callbacks.TensorBoard(run.record.directory / "tensorboard", write_graph=False)
    private = run.objects.metrics if run.settings.training.algorithm == "dp_sgd" else ()
    recorders = [callbacks.MetricsRecorder(run.record, leave_out=tuple(private)), tensorboard]
    if run.settings.data.corrupt_images == "skip":
        recorders.insert(0, _CorruptImages(run))
    return recorders if run.starting_point.ledger is None else [_Epsilon(run), *recorders]


def _record_end(run: StartedRun) -> None:
    """Records the evaluation of the last step if it is missing in a run that has no step left to take."""
    objects, record, step = run.objects, run.record, run.num_steps
    missing = record is not None and step not in {line["step"] for line in records.read(record.directory).metrics}
    if not distribution.any_worker(objects.strategy, missing):
        return
    measured = {f"val_{name}": value for name, value in objects.evaluate().items()}
    if run.starting_point.ledger is not None:
        measured["epsilon"] = run.privacy.epsilon
    if record is not None:
        record.append({"step": step, **measured})


def _finish(run: StartedRun, spent: ledger.Ledger | None) -> records.Record | None:
    if run.record is None:
        return None
    objects, directory = run.objects, run.record.directory
    last = records.read(directory).metrics[-1]
    if spent is not None:
        privacy = _privacy(objects, run.settings, spent, last["step"])
        run.record.state(_described(privacy, run.fingerprints))
    parameters = sum(int(weight.value.shape.num_elements()) for weight in objects.model.trainable_weights)
    trained_model.save(directory / trained_model.WEIGHTS, objects.model)
    if objects.average is not None:
        with objects.average.applied(objects.model):
            trained_model.save(directory / trained_model.AVERAGE, objects.model)
    results = {**last, "num_parameters": parameters}
    if run.settings.data.corrupt_images == "skip":
        corrupt = run.record.note_corrupt(objects.images.corrupt)
        if spent is None and corrupt:
            results["corrupt_images"] = corrupt
    run.record.finish(results)
    return records.read(directory)


def _last_step(
    objects: builders.RunObjects, settings: config.Config, starting_point: continuation.StartingPoint
) -> int:
    """The configured last step, or the last step that the budget allows if that is earlier."""
    chosen = settings.training
    if chosen.max_epsilon is None:
        return chosen.num_steps
    plan = builders.plan(settings, objects.model.optimizer, objects.images.num_train_examples, chosen.num_steps)
    # Public batches give no guarantee. The budget then applies to the same run with secret batches.
    plan = dataclasses.replace(plan, batches_known=False)
    spent = starting_point.ledger or ledger.Ledger()
    last = min(chosen.num_steps, ledger.end_within(spent, chosen.max_epsilon, plan))
    if last == 0:
        cost = accounting.rounded_up(ledger.spent(spent.covering(1), plan))
        constraint, way_out = f"must be at least {cost} to allow one step", "raise it, or increase the noise"
        config.require(False, "max_epsilon", constraint, chosen.max_epsilon, way_out)
    return last


def _privacy(objects, settings, spent: ledger.Ledger | None, num_steps: int) -> statement.PrivacyStatement:
    """The statement of a run that ends after `num_steps`, with all steps that earlier attempts may have released."""
    attempts = None if spent is None else spent.attempts
    return builders.privacy_statement(
        settings, objects.model.optimizer, objects.images.num_train_examples, num_steps, attempts
    )


def _fingerprints(settings: config.Config, starting_point: continuation.StartingPoint) -> tuple[str | None, ...]:
    """The fingerprint of each attempt's secret; None where an earlier record did not hold it."""
    if starting_point.secret is None or starting_point.ledger is None:
        return ()
    recorded = records.read(settings.run.run_dir).privacy.get(composition.FINGERPRINTS, ())
    count = starting_point.ledger.attempt - 1
    return (*[*recorded, *count * [None]][:count], keys.fingerprint(starting_point.secret))


def _described(privacy: statement.PrivacyStatement, fingerprints: Sequence[str | None] = ()) -> dict[str, Any]:
    return privacy.as_dict() | {composition.FINGERPRINTS: list(fingerprints), "text": privacy.text}
