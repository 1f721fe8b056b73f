"""One compiled step of Keras' SGD, or of ours, on a workload's network and one batch of random examples.

    step, model = steps.compiled(cases.Benchmark(workload="mlp", batch_size=256), cases.training("dp_sgd", 256))

Covered by tests/experiments/benchmarks/noise_draws_test.py, peers_test.py and tests/experiments/binaries_test.py.
"""

from collections.abc import Callable

import keras
import tensorflow as tf

from noisy_sgd import config
from noisy_sgd.experiments.benchmarks import cases, networks
from noisy_sgd.models import wide_resnet
from noisy_sgd.runs import builders
from noisy_sgd.training import private_model


def compiled(
    settings: cases.Benchmark, chosen: config.Training, *, plain_convolutions: bool = False
) -> tuple[Callable[[], None], keras.Model]:
    """The step, which compiles when it first runs, and the model that it trains.

    Args:
        settings: workload, batch size and microbatch size.
        chosen: what is trained by; the algorithm "sgd" is Keras' own step, the others are those of `PrivateModel`.
        plain_convolutions: whether a wide residual network has no weight standardization. Defaults to False.
    """
    private = chosen.algorithm != "sgd"
    model_class = private_model.PrivateModel if private else keras.Model
    if settings.workload in (*cases.FINE_TUNED, *cases.KERAS_HUB):
        model, x, y = networks.made(settings.workload, settings.batch_size, model_class)
    else:
        images = cases.images(settings.workload, settings.batch_size)
        if plain_convolutions and settings.workload == "wrn_16_4":
            model = wide_resnet(16, 4, 10, weight_standardization=False, model_class=model_class)
        else:
            network = config.Model(model=settings.workload)
            model = builders.network(network, images, seed=0, model_class=model_class)
        x, y = images.train_images, images.train_labels
    sizes = {"batch_size": settings.batch_size, "microbatch_size": settings.microbatch_size} if private else {}
    optimizer = builders.optimizer(config.Config(training=chosen))
    model.compile(optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), **sizes)
    model.make_train_function()
    batches = tf.data.Dataset.from_tensors((x, y)).repeat()
    iterator = iter(batches)

    def step():
        # Reading the loss waits for the device.
        float(model.train_function(iterator)["loss"])

    return step, model
