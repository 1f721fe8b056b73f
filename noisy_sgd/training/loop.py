"""The training loop of the binaries: logical batches stream through as microbatches, on every strategy.

For a logical batch of any size, each replica calls `accumulate` on `rounds` microbatches, and then `finish` once. The
whole logical batch is never in memory.

    with strategy.scope():
        model.compile(...); metrics = training_metrics.for_algorithm("noisy_sgd")
    loop.train(model, dataset, lambda step: rounds, strategy=strategy, num_steps=1000, metrics=metrics, callbacks=[...])
"""

import collections.abc
import math

import keras
import tensorflow as tf

from noisy_sgd.optimizers import privatized
from noisy_sgd.training import callback_budgets, private_facts, training_metrics


def train(
    model,
    dataset: tf.data.Dataset,
    rounds: collections.abc.Callable[[int], int],
    *,
    strategy: tf.distribute.Strategy,
    num_steps: int,
    metrics: dict[str, keras.metrics.Metric],
    first_step: int = 0,
    steps_per_epoch: int | None = None,
    steps_per_call: int = 1,
    pause_every: int | None = None,
    norms_every: int | None = None,
    evaluate: collections.abc.Callable[[], dict[str, float]] | None = None,
    report: collections.abc.Callable[[int, dict[str, float]], None] | None = None,
    log_metrics: bool = True,
    callbacks: collections.abc.Sequence[keras.callbacks.Callback] = (),
    steps: tuple[collections.abc.Callable, collections.abc.Callable] | None = None,
    noise_secret: bytes | None = None,
    attempt_step: int = 0,
) -> int:
    """Runs logical steps `first_step` to `num_steps`, with Keras' callbacks.

    Args:
        model: a compiled `PrivateModel`, built in the strategy's scope.
        dataset: microbatches (images [m, ...], labels [m], mask [m]) in order, from `first_step` on. The replicas take
            them in turn.
        rounds: a function from a step to the number of microbatches that each replica takes.
        strategy: from `distribution.make_strategy`.
        num_steps: the last step, exclusive, counted from the beginning of the run.
        metrics: from `training_metrics.for_algorithm`, updated with every microbatch.
        first_step: the first step to run. In the middle of an epoch the metrics keep their values. Defaults to 0.
        steps_per_epoch: the number of steps that Keras' callbacks see as an epoch. Metrics are reported at its end.
            Defaults to all steps.
        steps_per_call: logical steps in one call of the compiled function. Defaults to 1.
        pause_every: ends a call after every multiple of this number of steps, for callbacks that must see these steps.
            Defaults to None.
        norms_every: reports "squared_gradient_norm" and "squared_noise_norm" (Figure 2) at multiples of this number of
            steps. Defaults to None, never.
        evaluate: called at the end of every epoch; its results are logged as "val_...". Defaults to None.
        report: called with the step and the metrics at the end of every epoch. Defaults to None.
        log_metrics: whether callbacks see the metrics and norms. In a DP-SGD run they are private facts, computed from
            the training data without noise. Defaults to True.
        callbacks: Keras callbacks.
        steps: from `step_functions` of the same model, strategy and metrics, so that several runs share traced
            functions. Defaults to new ones.
        noise_secret: a `DPSGD` without seed derives its noise from it; the same on all workers. Defaults to a new
            secret.
        attempt_step: the first step that was or will be taken with this noise, at most `first_step`. Defaults to 0.

    Returns:
        The number of steps since the beginning of the run; less than `num_steps` if a callback set
        `model.stop_training`.
    """
    if privatized.needs_clipped_sum(model.optimizer):
        private_facts.check_callbacks(callbacks)
    steps_per_epoch = steps_per_epoch or num_steps
    model.prepare(noise_secret, attempt_step)
    run_steps, run_step_with_norms = steps or step_functions(model, strategy, metrics)
    iterator = iter(strategy.distribute_datasets_from_function(lambda _: dataset))
    listeners = keras.callbacks.CallbackList(
        callback_budgets.first(callbacks), add_history=False, add_progbar=False, model=model,
        epochs=math.ceil(num_steps / steps_per_epoch), steps=steps_per_epoch, first_step=first_step,
    )  # fmt: skip
    model.stop_training = False
    listeners.on_train_begin()
    num_steps = callback_budgets.last_step(callbacks, num_steps)
    step, logs = first_step, {}
    while step < num_steps and not model.stop_training:
        epoch = step // steps_per_epoch
        end = min((epoch + 1) * steps_per_epoch, num_steps)
        listeners.on_epoch_begin(epoch)
        if step % steps_per_epoch == 0:
            for metric in metrics.values():
                metric.reset_state()
        norms = {}
        while step < end and not model.stop_training:
            listeners.on_train_batch_begin(step)
            with_norms = bool(norms_every) and step % norms_every == 0
            stops = [(step // every + 1) * every for every in (norms_every, pause_every) if every]
            count = 1 if with_norms else min(end, step + steps_per_call, *stops) - step
            many = [rounds(index) for index in range(step, step + count)]
            # Always the same shape, because another shape would be traced again.
            many = tf.constant(many + [0] * (steps_per_call - count), tf.int32)
            if with_norms:
                gradient, noise = run_step_with_norms(iterator, many, tf.constant(1))
                norms = {"squared_gradient_norm": float(gradient), "squared_noise_norm": float(noise)}
            else:
                run_steps(iterator, many, tf.constant(count))
            step += count
            listeners.on_train_batch_end(step - 1, {**norms} if with_norms and log_metrics else {})
        measured = {name: float(metric.result()) for name, metric in metrics.items()}
        if report is not None:
            report(step, measured)
        logs = measured | norms if log_metrics else {}
        if evaluate is not None:
            logs |= {f"val_{name}": value for name, value in evaluate().items()}
        listeners.on_epoch_end(epoch, logs)
    listeners.on_train_end(logs)
    return step


def step_functions(model, strategy, metrics, average=None) -> tuple[collections.abc.Callable, collections.abc.Callable]:
    """The compiled step functions without and with norms; each is traced once and serves several calls of `train`.

    Args:
        model: a compiled `PrivateModel`.
        strategy: the strategy that the model was built under.
        metrics: as in `train`.
        average: a `weight_average.WeightAverage` that follows the weights after every step. Defaults to None.
    """
    return tuple(_steps_function(model, strategy, metrics, average, with_norms) for with_norms in (False, True))


def evaluation(model, dataset: collections.abc.Iterable) -> collections.abc.Callable[[], dict[str, float]]:
    """A function that evaluates the current weights of the model.

    Args:
        model: a compiled `PrivateModel` for classification.
        dataset: microbatches (images, labels, mask), read again in each evaluation.

    Returns:
        A function without arguments; it returns {"loss": ..., "accuracy": ...} over all examples but padding.
    """
    metrics = training_metrics.classification()

    @tf.function(autograph=False)
    def update(images, labels, mask):
        predictions = model(images, training=False)
        metrics["loss"].update_state(model.per_example_losses(labels, predictions), sample_weight=mask)
        metrics["accuracy"].update_state(labels, predictions, sample_weight=mask)

    def evaluate():
        for metric in metrics.values():
            metric.reset_state()
        for microbatch in dataset:
            update(*microbatch)
        return {name: float(metric.result()) for name, metric in metrics.items()}

    return evaluate


def replica_functions(model, metrics) -> tuple[collections.abc.Callable, collections.abc.Callable]:
    """What one replica computes: accumulate(images, labels, mask) for a microbatch, finish() for a logical batch.

    Args:
        model: a compiled `PrivateModel`.
        metrics: as in `train`.
    """

    def accumulate(images, labels, mask):
        seen = model.accumulate(images, labels, mask=mask)
        training_metrics.update(metrics, seen, labels, mask, getattr(model.optimizer, "current_l2_norm_clip", None))

    return accumulate, model.finish


def _steps_function(model, strategy, metrics, average, with_norms):
    accumulate, end = replica_functions(model, metrics)

    def finish():
        norms = model.squared_norms() if with_norms else (tf.zeros([]), tf.zeros([]))
        end()
        return norms

    def one_step(iterator, count):
        def body(index):
            strategy.run(accumulate, args=tuple(next(iterator)))
            return (index + 1,)

        tf.while_loop(lambda index: index < count, body, (tf.constant(0),), parallel_iterations=1)
        norms = strategy.run(finish)
        if average is not None:
            average.update(strategy, model.optimizer.iterations - 1)
        return tuple(strategy.experimental_local_results(norm)[0] for norm in norms)

    @tf.function(autograph=False)
    def run(iterator, rounds, steps):
        def body(index, _):
            return index + 1, one_step(iterator, rounds[index])

        zeros = (tf.zeros([]), tf.zeros([]))
        loop = tf.while_loop(lambda index, _: index < steps, body, (tf.constant(0), zeros), parallel_iterations=1)
        return loop[1]

    return run
