"""The theory's rows of the report: everything they need, measured in one run of a minute or two.

`lines` yields plain dictionaries, each with the name of its measurement; the claims (`theory_claims.THEORY`) are
computed from them alone.

    for line in theory.lines():
        run.append(line)
"""

from collections.abc import Iterator, Sequence
from typing import Any

from noisy_sgd.data import regression
from noisy_sgd.experiments import diagonal_linear, least_squares

SMALL_STEP = 0.05


def lines(
    data_seeds: Sequence[int] = tuple(range(16)), *, num_steps: int = 30_000, num_runs: int = 5
) -> Iterator[dict[str, Any]]:
    """Yields a line a measurement, in order of the report.

    Args:
        data_seeds: the random family of sparse problems on which gradient descent, SGD and Noisy-SGD are compared.
        num_steps: of every such run. Defaults to 30,000.
        num_runs: of SGD and of Noisy-SGD on each problem. Defaults to 5.

    Yields:
        Dictionaries of numbers and lists, with "measurement": the name of the function that made it.
    """
    for noise_scale in (0.0, 0.3):
        yield _named("surrogate_covariance", least_squares.surrogate_covariance(noise_scale=noise_scale))
    yield _named("sampled_covariance", least_squares.sampled_covariance(noise_scale=0.0))
    yield _named("theorem_1", least_squares.theorem_1())
    yield _named("interpolation", least_squares.interpolation())
    problem = regression.sparse(data_seeds[0])
    yield _named("gradient_descent_limit", diagonal_linear.gradient_descent_limit(problem))
    for relative_step in (diagonal_linear.PAPER_STEP, SMALL_STEP):
        yield _named("weight_product", diagonal_linear.weight_product(problem, relative_step=relative_step))
    # Until the loss is below 1e-14, where the limit stands still.
    trained = diagonal_linear.train(
        problem,
        noise_scales=(0.0, 0.5),
        relative_steps=(SMALL_STEP,),
        num_runs=8,
        num_steps=60_000,
        grid=[60_000],
    )
    for line in diagonal_linear.limits(problem, *trained):
        yield _named("limits", line)
    for data_seed in data_seeds:
        yield _named("compare", diagonal_linear.compare(data_seed, num_steps=num_steps, num_runs=num_runs))


def _named(name, numbers):
    return {"measurement": name, **numbers}
