"""One run from first to last step, with its record: run.json, metrics.jsonl and TensorBoard's events.

built = builders.build(settings)
run = recorded_run.start(settings, builders.privacy_statement(settings, len(built.images.train_labels)))
record = recorded_run.train(built, settings, run)
"""

from collections.abc import Sequence

import keras

from noisy_sgd import config, records
from noisy_sgd.data import sampling
from noisy_sgd.privacy import statement
from noisy_sgd.training import builders, callbacks, loop

STEPS_PER_CALL = 10


def start(settings: config.Config, privacy: statement.PrivacyStatement) -> records.Run:
    """Makes the run directory of a configuration, with its privacy statement in it before anything is trained.

    Raises:
        ValueError: for a run directory that cannot be used.
    """
    described = privacy.as_dict() | {"text": privacy.text}
    return records.create(settings.run.run_dir, settings.resolved(), privacy=described)


def train(
    built: builders.Built,
    settings: config.Config,
    run: records.Run,
    *,
    listeners: Sequence[keras.callbacks.Callback] = (),
) -> records.Record:
    """Trains a built model as configured.

    Noisy-SGD runs record Figure 2's squared norms at every evaluation. Of the training data a DP-SGD run records
    nothing: losses and norms without noise are private.

    Args:
        built: from `builders.build`, or restarted.
        settings: the same configuration.
        run: from `start`.
        listeners: more Keras callbacks. Defaults to none.

    Returns:
        The record of the finished run.
    """
    chosen = settings.algorithm
    replicas, microbatch_size = built.strategy.num_replicas_in_sync, chosen.resolved_microbatch_size
    sampler = sampling.ShuffledBatches(len(built.images.train_labels), chosen.batch_size, settings.run.seed)
    dataset = sampling.stream(built.images, sampler, microbatch_size, num_steps=chosen.num_steps, multiple_of=replicas)
    loop.train(
        built.model,
        dataset,
        lambda step: sampling.num_microbatches(sampler, step, microbatch_size, replicas) // replicas,
        strategy=built.strategy,
        num_steps=chosen.num_steps,
        metrics=built.metrics,
        steps_per_epoch=settings.eval_every,
        steps_per_call=min(STEPS_PER_CALL, settings.eval_every),
        norms_every=settings.eval_every if chosen.algorithm == "noisy_sgd" else None,
        evaluate=built.evaluate,
        callbacks=[
            callbacks.MetricsRecorder(run),
            keras.callbacks.TensorBoard(run.directory / "tensorboard", write_graph=False),
            *listeners,
        ],
        steps=built.steps,
    )
    last = records.read(run.directory).metrics[-1]
    run.finish(
        {
            **last,
            "num_parameters": sum(int(weight.value.shape.num_elements()) for weight in built.model.trainable_weights),
        }
    )
    return records.read(run.directory)
