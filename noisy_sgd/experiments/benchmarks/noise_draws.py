"""What noise that is correlated over steps costs: Noisy-SGD's step by the number of draws that its noise consists of.

    python -m noisy_sgd.experiments.benchmark --sweep=noise --workload=mlp --batch_size=256

The earlier draws are drawn again in every step, so that a step costs time in proportion and no memory. The steps take
turns. `processor_ms` is the median processor time of all threads, which other work on the machine does not change much;
`ratio` is that over the step of independent noise.
"""

import statistics
import time
from collections.abc import Iterator

from noisy_sgd import config
from noisy_sgd.experiments.benchmarks import cases

DRAWS = (1, 2, 4, 8, 16, 32, 64)


def lines(settings: cases.Benchmark) -> Iterator[dict]:
    """One JSON-able line for each number of draws.

    Args:
        settings: workload, batch size and number of rounds.
    """
    steps = {draws: _prepare(settings, draws) for draws in DRAWS}
    wall, processor = ({draws: [] for draws in DRAWS} for _ in range(2))
    for _ in range(settings.num_rounds):
        for draws, step in steps.items():
            begun, used = time.perf_counter(), time.process_time()
            step()
            wall[draws].append(1e3 * (time.perf_counter() - begun))
            processor[draws].append(1e3 * (time.process_time() - used))
    medians = {draws: statistics.median(values) for draws, values in processor.items()}
    for draws in DRAWS:
        yield {
            "workload": settings.workload,
            "batch_size": settings.batch_size,
            "rounds": settings.num_rounds,
            "draws": draws,
            "median_ms": round(statistics.median(wall[draws]), 3),
            "processor_ms": round(medians[draws], 3),
            "ratio": round(medians[draws] / medians[DRAWS[0]], 3),
        }


def _prepare(settings: cases.Benchmark, draws: int):
    """A compiled step of Noisy-SGD that has run as often as it takes for all draws to exist."""
    import keras
    import tensorflow as tf

    from noisy_sgd.runs import builders
    from noisy_sgd.training import private_model

    images = cases.images(settings.workload, settings.batch_size)
    chosen = config.Training(
        algorithm="noisy_sgd",
        batch_size=settings.batch_size,
        learning_rate=1e-3,
        noise_multiplier=cases.NOISE_MULTIPLIER,
        noise_correlation=f"banded_inverse_square_root:{draws}",
    )
    model = builders.network(
        config.Model(model=settings.workload), images, seed=0, model_class=private_model.PrivateModel
    )
    model.compile(
        builders.optimizer(config.Config(training=chosen)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        batch_size=settings.batch_size,
    )
    model.make_train_function()
    iterator = iter(tf.data.Dataset.from_tensors((images.train_images, images.train_labels)).repeat())

    def step():
        # Reading the loss waits for the device.
        float(model.train_function(iterator)["loss"])

    step()
    model.optimizer.iterations.assign(draws)
    step()
    return step
