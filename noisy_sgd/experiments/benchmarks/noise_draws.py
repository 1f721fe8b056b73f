"""What noise that is correlated over steps costs: Noisy-SGD's step by the number of draws that its noise consists of.

    python -m noisy_sgd.experiments.benchmark --sweep=noise --workload=mlp --batch_size=256

The earlier draws are drawn again in every step, so that a step costs time in proportion and no memory. The steps take
turns. `processor_ms` is the median processor time of all threads, which other work on the machine does not change much;
`ratio` is that over the step of independent noise.
"""

from collections.abc import Iterator

from noisy_sgd import config
from noisy_sgd.experiments.benchmarks import cases, clock

DRAWS = (1, 2, 4, 8, 16, 32, 64)


def lines(settings: cases.Benchmark) -> Iterator[dict]:
    """One JSON-able line for each number of draws.

    Args:
        settings: workload, batch size and number of rounds.
    """
    medians = clock.in_turns({draws: _prepare(settings, draws) for draws in DRAWS}, settings.num_rounds)
    for draws in DRAWS:
        yield {
            "workload": settings.workload,
            "batch_size": settings.batch_size,
            "rounds": settings.num_rounds,
            "draws": draws,
            "median_ms": round(medians[draws].wall, 3),
            "processor_ms": round(medians[draws].processor, 3),
            "ratio": round(medians[draws].processor / medians[DRAWS[0]].processor, 3),
        }


def _prepare(settings: cases.Benchmark, draws: int):
    """A compiled step of Noisy-SGD that has run as often as it takes for all draws to exist."""
    from noisy_sgd.experiments.benchmarks import steps

    chosen = config.Training(
        algorithm="noisy_sgd",
        batch_size=settings.batch_size,
        learning_rate=1e-3,
        noise_multiplier=cases.NOISE_MULTIPLIER,
        noise_correlation=f"banded_inverse_square_root:{draws}",
    )
    step, model = steps.compiled(settings, chosen)
    step()
    model.optimizer.iterations.assign(draws)
    step()
    return step
