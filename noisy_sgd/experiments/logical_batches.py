"""Times steps of growing logical batches at one microbatch size: memory and time per example should not grow.

    python -m noisy_sgd.experiments.benchmark --sweep=batch_size --workload=mlp --algorithm=dp_sgd --microbatch_size=64

A round takes as many examples at every batch size, one step of the largest, in turns; the step streams its microbatches
as the training binaries do. Peak memory is above the process without models; every batch size has one, made before.
"""

import statistics
import time
from collections.abc import Callable, Iterator

from noisy_sgd import config
from noisy_sgd.experiments import benchmark_cases, memory

BATCH_SIZES = tuple(2**power for power in range(8, 16))


def lines(settings: benchmark_cases.Benchmark, batch_sizes: tuple[int, ...] = BATCH_SIZES) -> Iterator[dict]:
    """One JSON-able line an algorithm and batch size.

    Args:
        settings: workload, algorithms, microbatch size and number of rounds.
        batch_sizes: rising, multiples of the microbatch size. Defaults to 256 to 32,768 by factors of two.
    """
    for algorithm in settings.algorithms:
        before = memory.resident()
        rounds = {size: _round(settings, algorithm, size, max(batch_sizes)) for size in batch_sizes}
        for run in rounds.values():
            run()
        times, peaks = {size: [] for size in rounds}, {}
        for _ in range(settings.num_rounds):
            for size, run in rounds.items():
                memory.forget_peak()
                start = time.perf_counter()
                run()
                times[size].append(1e6 * (time.perf_counter() - start) / max(batch_sizes))
                peaks[size] = max(memory.peak() or 0.0, peaks.get(size, 0.0))
        for size in batch_sizes:
            median, smallest = statistics.median(times[size]), statistics.median(times[min(batch_sizes)])
            yield {
                "workload": settings.workload,
                "algorithm": algorithm,
                "batch_size": size,
                "microbatch_size": settings.microbatch_size,
                "rounds": settings.num_rounds,
                "us_per_example": round(median, 2),
                "ratio_to_smallest": round(median / smallest, 4),
                "peak_memory_mib": None if before is None else round(peaks[size] - before, 1),
            }


def _round(
    settings: benchmark_cases.Benchmark, algorithm: str, batch_size: int, num_examples: int
) -> Callable[[], None]:
    """A function that trains on `num_examples` in logical batches of `batch_size`."""
    import keras

    from noisy_sgd.data import sampling
    from noisy_sgd.training import builders, distribution, loop

    images = benchmark_cases.images(settings.workload, num_examples)
    chosen = benchmark_cases.algorithm(algorithm, batch_size)
    model = builders.network(config.Model(model=settings.workload), images, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(builders.optimizer(config.Config(algorithm=chosen)), loss=loss, batch_size=batch_size)
    strategy, sampler = distribution.make_strategy("default"), sampling.ShuffledBatches(num_examples, batch_size, 0)
    steps, count = loop.step_functions(model, strategy, {}), num_examples // batch_size

    def run():
        dataset = sampling.stream(images, sampler, settings.microbatch_size, num_steps=count)
        rounds = batch_size // settings.microbatch_size
        loop.train(model, dataset, lambda step: rounds, strategy=strategy, num_steps=count, metrics={}, steps=steps)

    return run
