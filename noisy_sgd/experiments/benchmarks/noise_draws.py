"""What noise that is correlated over steps costs: Noisy-SGD's step by the number of draws that its noise consists of.

    python -m noisy_sgd.experiments.benchmark --sweep=noise --workload=mlp --batch_size=256

The earlier draws are drawn again in every step, so that a step costs time in proportion and no memory. The steps take
turns. `processor_ms` is the median processor time of all threads, which other work on the machine does not change much;
`ratio` is that over the step of independent noise.

The last line is a draw alone: `draw_ms` is the processor time of as many normal numbers as a CPU makes them here, and
`native_ms` of `tf.random.stateless_normal`, whose numbers they are but for rounding.
"""

from collections.abc import Iterator

from noisy_sgd import config
from noisy_sgd.experiments.benchmarks import cases, clock

DRAWS = (1, 2, 4, 8, 16, 32, 64)
NORMALS = 1_000_000


def lines(settings: cases.Benchmark) -> Iterator[dict]:
    """One JSON-able line for each number of draws, and one for a draw alone.

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
    yield {"normals": NORMALS, "rounds": settings.num_rounds, **_one_draw(settings.num_rounds)}


def _one_draw(num_rounds: int) -> dict[str, float]:
    import tensorflow as tf

    from noisy_sgd.mechanisms import gaussian

    # A variable, as in training: TensorFlow would draw the numbers of a constant once.
    key = tf.Variable([1, 2], dtype=tf.int64)
    draws = {
        "draw": lambda: gaussian.flat_normal([(NORMALS,)], tf.float32, key, 0),
        "native": lambda: tf.random.stateless_normal([NORMALS], key, alg="philox"),
    }
    draws = {name: tf.function(draw, autograph=False) for name, draw in draws.items()}
    for draw in draws.values():
        draw()
    medians = {name: times.processor for name, times in clock.in_turns(draws, num_rounds).items()}
    milliseconds = {f"{name}_ms": round(median, 3) for name, median in medians.items()}
    return {**milliseconds, "ratio_to_native": round(medians["draw"] / medians["native"], 3)}


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
