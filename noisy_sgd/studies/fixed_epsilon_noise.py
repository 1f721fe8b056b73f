"""The noise on the mean gradient, sigma C / B, that a fixed epsilon needs in a fixed number of steps.

"Subsampling is not magic: why large batch sizes work for differentially private stochastic optimisation" (Raisa et al.
2024, arXiv 2402.03990) says that this noise falls with the batch size and then levels off. What larger batches still
gain after that is less noise from the sampling of the batches. Nothing is trained: every sigma is the least that
`noisy_sgd.privacy` accounts for. The limit is the noise of the whole data set in every step.

    case = cases(epsilon=3.0, num_steps=2_000, num_examples=60_000, delta=1e-5, accountant="pld")[0]
    measure(case)["noise_std"]               # 0.0083 at B = 64, in units of the clip C

Rules, written before the run: the noise falls at every doubling; the first doubling takes away more than 40 % of it,
and the last one less than 5 %.

Covered by tests/experiments/fixed_epsilon_noise_test.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from noisy_sgd import privacy

BATCH_SIZES = tuple(2**power for power in range(6, 15))
LEAST_FIRST_FALL, LARGEST_LAST_FALL = 0.4, 0.05


def cases(*, num_examples: int, **plan: Any) -> list[dict[str, Any]]:
    """All cases: Poisson sampling at each batch size below `num_examples`, and the whole data set in every step.

    Args:
        num_examples: N.
        **plan: epsilon, num_steps, delta and accountant.
    """
    sizes = (*(size for size in BATCH_SIZES if size < num_examples), num_examples)
    return [{**plan, "num_examples": num_examples, "batch_size": size} for size in sizes]


def measure(case: Mapping[str, Any]) -> dict[str, float]:
    """The least `noise_multiplier`, sigma, and `noise_std`, sigma / B."""
    names = ("epsilon", "batch_size", "num_examples", "num_steps", "delta", "accountant")
    # Poisson sampling at rate 1 takes every example in every step.
    sigma = privacy.noise_multiplier_for(**{name: case[name] for name in names}, sampling="poisson")
    return {"noise_multiplier": sigma, "noise_std": sigma / case["batch_size"]}


def summarize(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The results of a record.

    Returns:
        `falls`, the share of the noise that each doubling takes away, and `above_limit`, the noise of the largest
        sampled batch over that of the whole data set.
    """
    *sampled, whole = [line["noise_std"] for line in lines]
    falls = [1 - after / before for before, after in zip(sampled, sampled[1:], strict=False)]
    return {"falls": falls, "above_limit": sampled[-1] / whole}
