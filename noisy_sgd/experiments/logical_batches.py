"""Times steps of growing logical batches at one microbatch size: memory and time per example should not grow.

    python -m noisy_sgd.experiments.benchmark --sweep=batch_size --workload=mlp --algorithm=dp_sgd --microbatch_size=64

A round takes as many examples at every batch size, one step of the largest, in turns and in an order that moves on; a
ratio is that of two times of one round, because machines have slow minutes. The steps stream their microbatches as the
training binaries do. What a step does once, noise and update (`finish_ms`, timed on its own), counts B times less in
the time of an example: `us_per_example` is without it, and so are the ratios. Peak memory is above the process without
models; every batch size has one, made before.
"""

import statistics
import time
from collections.abc import Callable, Iterator

from noisy_sgd import config
from noisy_sgd.experiments import benchmark_cases, memory

BATCH_SIZES = (256, 1024, 4096, 32768)


def lines(settings: benchmark_cases.Benchmark, batch_sizes: tuple[int, ...] = BATCH_SIZES) -> Iterator[dict]:
    """One JSON-able line an algorithm and batch size.

    Args:
        settings: workload, algorithms, microbatch size and number of rounds.
        batch_sizes: rising, multiples of the microbatch size. Defaults to four from 256 to 32,768.
    """
    for algorithm in settings.algorithms:
        before = memory.resident()
        cases = {size: _case(settings, algorithm, size, max(batch_sizes)) for size in batch_sizes}
        for run, finish in cases.values():
            run()
            finish()
        whole, finishes, peaks = ({size: [] for size in cases} for _ in range(3))
        for index in range(settings.num_rounds):
            for size in [*batch_sizes[index % len(cases) :], *batch_sizes[: index % len(cases)]]:
                run, finish = cases[size]
                memory.forget_peak()
                whole[size].append(_seconds(run))
                peaks[size].append(memory.peak() or 0.0)
                finishes[size].append(_seconds(finish))
        once = {size: statistics.median(values) for size, values in finishes.items()}
        each = {size: [total / max(batch_sizes) - once[size] / size for total in whole[size]] for size in cases}
        for size in batch_sizes:
            ratios = sorted(own / first for own, first in zip(each[size], each[batch_sizes[0]], strict=True))
            quarter = len(ratios) // 4
            yield {
                "workload": settings.workload,
                "algorithm": algorithm,
                "batch_size": size,
                "microbatch_size": settings.microbatch_size,
                "rounds": settings.num_rounds,
                "us_per_example": round(1e6 * statistics.median(each[size]), 2),
                "finish_ms": round(1e3 * once[size], 3),
                "ratio_to_smallest": round(statistics.median(ratios), 4),
                "ratio_quartiles": [round(ratios[quarter], 4), round(ratios[-1 - quarter], 4)],
                "peak_memory_mib": None if before is None else round(max(peaks[size]) - before, 1),
            }


def _seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _case(
    settings: benchmark_cases.Benchmark, algorithm: str, batch_size: int, num_examples: int
) -> tuple[Callable[[], None], Callable[[], None]]:
    """A function that trains on `num_examples` in logical batches of `batch_size`, and one that ends a batch alone."""
    import keras
    import tensorflow as tf

    from noisy_sgd.data import sampling
    from noisy_sgd.training import builders, distribution, loop, recorded_run

    images = benchmark_cases.images(settings.workload, num_examples)
    chosen = benchmark_cases.algorithm(algorithm, batch_size)
    model = builders.network(config.Model(model=settings.workload), images, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(builders.optimizer(config.Config(algorithm=chosen)), loss=loss, batch_size=batch_size)
    strategy, sampler = distribution.make_strategy("default"), sampling.ShuffledBatches(num_examples, batch_size, 0)
    steps, count = loop.step_functions(model, strategy, {}), num_examples // batch_size
    rounds = batch_size // settings.microbatch_size
    ending = tf.function(lambda: strategy.run(model.finish), autograph=False)

    def run():
        loop.train(
            model,
            sampling.stream(images, sampler, settings.microbatch_size, num_steps=count),
            lambda step: rounds,
            strategy=strategy,
            num_steps=count,
            metrics={},
            steps_per_call=min(count, recorded_run.STEPS_PER_CALL),
            steps=steps,
        )

    return run, ending
