"""How long a plain step waits for its data: the streamed, augmented images of the training binaries.

    python -m noisy_sgd.experiments.benchmark --sweep=input --workload=wrn_16_4 --batch_size=64

Blocks of SGD steps on images from `streaming.stream`, with random flips and crops, take turns with blocks of the same
step on one batch in memory. `input_wait` is the share of the first steps' time that is spent waiting for the next
microbatch. `slowdown` is the median time of the first steps over that of the second: the input pipeline shares the
cores with the step.
"""

import statistics
import time

from noisy_sgd import config
from noisy_sgd.experiments.benchmarks import cases

NUM_EXAMPLES = 4096
# The first steps of a block use images that were prefetched while the pipeline had all cores: they are not timed.
STEPS_PER_BLOCK, NOT_TIMED = 6, 4


def line(settings: cases.Benchmark) -> dict:
    """One JSON-able line.

    Args:
        settings: workload, batch size and number of rounds, each a block of either kind.
    """
    import keras
    import tensorflow as tf

    from noisy_sgd import sampling
    from noisy_sgd.data import augmentation, streaming
    from noisy_sgd.runs import builders

    images = cases.images(settings.workload, max(NUM_EXAMPLES, settings.batch_size))
    model = builders.network(config.Model(model=settings.workload), images, seed=0, model_class=keras.Model)
    optimizer = builders.optimizer(config.Config(training=cases.training("sgd", settings.batch_size)))
    model.compile(optimizer, loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    compiled = tf.function(lambda x, y: model.train_step((x, y))["loss"], autograph=False)
    scheme = sampling.Shuffled(len(images.train_labels), settings.batch_size, 0)
    stream = iter(
        streaming.stream(
            images,
            scheme,
            settings.batch_size,
            num_steps=settings.num_rounds * (STEPS_PER_BLOCK + NOT_TIMED) + 2,
            augment=augmentation.make(0),
        )
    )

    def step(images, labels):
        # Reading the loss waits for the device.
        return float(compiled(images, labels))

    at_hand = next(stream)[:2]
    for batch in (at_hand, next(stream)[:2]):
        step(*batch)
    waits, fed, unfed = [], [], []
    for _ in range(settings.num_rounds):
        for index in range(STEPS_PER_BLOCK + NOT_TIMED):
            start = time.perf_counter()
            batch = next(stream)[:2]
            arrived = time.perf_counter()
            step(*batch)
            if index >= NOT_TIMED:
                waits.append(arrived - start)
                fed.append(time.perf_counter() - start)
        for _ in range(STEPS_PER_BLOCK):
            start = time.perf_counter()
            step(*at_hand)
            unfed.append(time.perf_counter() - start)
    return {
        "workload": settings.workload,
        "batch_size": settings.batch_size,
        "rounds": settings.num_rounds,
        "fed_ms": round(1e3 * statistics.median(fed), 3),
        "at_hand_ms": round(1e3 * statistics.median(unfed), 3),
        "input_wait": round(sum(waits) / sum(fed), 5),
        "slowdown": round(statistics.median(fed) / statistics.median(unfed), 4),
    }
