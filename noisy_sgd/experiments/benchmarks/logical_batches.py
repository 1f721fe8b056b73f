"""Times steps of growing logical batches at one microbatch size: memory and time per example should not grow.

    python -m noisy_sgd.experiments.benchmark --sweep=batch_size --workload=mlp --algorithm=dp_sgd --microbatch_size=64

Each run takes the same number of examples, those of one step of the largest batch size. Machines have slow minutes.
Therefore each size runs between two runs of the smallest size, in an order that changes from round to round, and its
ratio is to the mean of these two. The steps stream their microbatches as the training binaries do. A step adds noise
and updates the weights once (`finish_ms`, timed separately); its share per example falls with the batch size.
`us_per_example` and the ratios are without it. `cpu_us_per_example` and its ratio are the processor time of all
threads, which does not depend on waiting cores. Peak memory is above that of the process without models; every batch
size has a model of its own, built before.
"""

import dataclasses
import statistics
from collections.abc import Callable, Iterator, Sequence

from scipy import stats

from noisy_sgd import config
from noisy_sgd.experiments.benchmarks import cases, clock, memory

BATCH_SIZES = (256, 1024, 4096, 32768)


def lines(settings: cases.Benchmark, batch_sizes: tuple[int, ...] = BATCH_SIZES) -> Iterator[dict]:
    """One line per algorithm and batch size, ready for JSON.

    Args:
        settings: workload, algorithms, microbatch size and number of rounds.
        batch_sizes: rising, multiples of the microbatch size. Defaults to four from 256 to 32,768.
    """
    smallest, *others = batch_sizes
    for algorithm in settings.algorithms:
        before = memory.resident()
        by_size = {size: _case(settings, algorithm, size, max(batch_sizes)) for size in batch_sizes}
        for case in by_size.values():
            case.run()
            case.finish()
        beside = {size: [] for size in others}
        for index in range(settings.num_rounds):
            by_size[smallest].time()
            for place in range(len(others)):
                size = others[(index + place) % len(others)]
                by_size[size].time()
                by_size[smallest].time()
                beside[size].append([(a + b) / 2 for a, b in zip(*by_size[smallest].totals[-2:], strict=True)])
        for size, case in by_size.items():
            pairs = zip(case.totals, beside[size], strict=True) if size in beside else ()
            pairs = [(case.each(own), by_size[smallest].each(other)) for own, other in pairs]
            ratios, cpu_ratios = ([own[kind] / other[kind] for own, other in pairs] for kind in range(2))
            seconds, cpu_seconds = case.each([statistics.median(kind) for kind in zip(*case.totals, strict=True)])
            yield {
                "workload": settings.workload,
                "algorithm": algorithm,
                "batch_size": size,
                "microbatch_size": settings.microbatch_size,
                "rounds": settings.num_rounds,
                "us_per_example": round(1e6 * seconds, 2),
                "finish_ms": round(1e3 * case.once[0], 3),
                "ratio_to_smallest": round(statistics.median(ratios), 4) if ratios else None,
                "ratio_interval": _interval(ratios),
                "cpu_us_per_example": round(1e6 * cpu_seconds, 2),
                "cpu_ratio_to_smallest": round(statistics.median(cpu_ratios), 4) if ratios else None,
                "cpu_ratio_interval": _interval(cpu_ratios),
                "peak_memory_mib": None if before is None else round(max(case.peaks) - before, 1),
            }


@dataclasses.dataclass
class _Case:
    """Steps of one batch size: how to run and to finish them; of all runs so far the seconds, the CPU seconds and the
    peak memory.
    """

    batch_size: int
    num_examples: int
    run: Callable[[], None]
    finish: Callable[[], None]
    totals: list[clock.Times] = dataclasses.field(default_factory=list)
    finishes: list[clock.Times] = dataclasses.field(default_factory=list)
    peaks: list[float] = dataclasses.field(default_factory=list)

    def time(self) -> None:
        memory.forget_peak()
        self.totals.append(clock.seconds(self.run))
        self.peaks.append(memory.peak() or 0.0)
        self.finishes.append(clock.seconds(self.finish))

    @property
    def once(self) -> list[float]:
        """Seconds, and CPU seconds, of what a step does once."""
        return [statistics.median(kind) for kind in zip(*self.finishes, strict=True)]

    def each(self, totals: Sequence[float]) -> list[float]:
        """Seconds, and CPU seconds, per example, without what a step does once."""
        return [
            total / self.num_examples - once / self.batch_size for total, once in zip(totals, self.once, strict=True)
        ]


def _interval(values: list[float]) -> list[float] | None:
    """The 95 % interval of the median by order statistics; None for fewer than six values, which do not have one."""
    if len(values) < 6:
        return None
    return [round(float(end), 4) for end in stats.quantile_test(values, p=0.5).confidence_interval(0.95)]


def _case(settings: cases.Benchmark, algorithm: str, batch_size: int, num_examples: int) -> _Case:
    """Runs on `num_examples` in logical batches of `batch_size`, and the end of a batch on its own."""
    import keras
    import tensorflow as tf

    from noisy_sgd import sampling
    from noisy_sgd.data import streaming
    from noisy_sgd.runs import builders, recorded_run
    from noisy_sgd.training import distribution, loop

    images = cases.images(settings.workload, num_examples)
    chosen = cases.training(algorithm, batch_size)
    model = builders.network(config.Model(model=settings.workload), images, seed=0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(builders.optimizer(config.Config(training=chosen)), loss=loss, batch_size=batch_size)
    strategy, scheme = distribution.make_strategy("default"), sampling.Shuffled(num_examples, batch_size, 0)
    steps, count = loop.step_functions(model, strategy, {}), num_examples // batch_size
    rounds = batch_size // settings.microbatch_size
    ending = tf.function(lambda: strategy.run(model.finish), autograph=False)

    def run():
        loop.train(
            model,
            streaming.stream(images, scheme, settings.microbatch_size, num_steps=count),
            lambda step: rounds,
            strategy=strategy,
            num_steps=count,
            metrics={},
            steps_per_call=min(count, recorded_run.STEPS_PER_CALL),
            steps=steps,
        )

    return _Case(batch_size=batch_size, num_examples=num_examples, run=run, finish=ending)
