"""Which noise, batch size and number of steps a privacy budget allows, before anything is trained.

For each batch size B, the smallest noise multiplier sigma with which all steps stay within (epsilon, delta). The noise
on the mean gradient is sigma / B, in clip norms. Above sigma = 2 it hardly depends on B (total amount of noise,
`noisy_sgd.privacy.tan`). Below is the privacy wall: epsilon explodes there at the same sigma / B (arXiv 2210.03403).

    budget = privacy_budget.Budget(epsilon=2.0, delta=1e-5, num_examples=60_000, num_steps=2_000)
    lines = privacy_budget.table(budget, privacy_budget.batch_sizes(60_000))
    privacy_budget.suggested(lines)["batch_size"]      # 2048
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from noisy_sgd import sampling
from noisy_sgd.privacy import accounting, calibration, tan
from noisy_sgd.privacy import plan as plans

# Below this noise multiplier is TAN's privacy wall.
WALL = 2.0
_WALL_NOISES = tuple(2.0 ** (power / 4) for power in range(-4, 21, 2))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """What a training may cost, and how it is accounted for; the fields are the arguments of `privacy.epsilon`."""

    epsilon: float
    delta: float
    num_examples: int
    num_steps: int
    sampling: str = "poisson"
    accountant: str = "pld"
    neighbors: str = "add_or_remove"

    def plan(self, noise_multiplier: float, batch_size: int, **changes: Any) -> plans.Plan:
        """The plan of a training with this noise and batch size; `changes` are other fields."""
        now = dataclasses.replace(self, **changes)
        return plans.gaussian(
            noise_multiplier,
            batch_size,
            now.num_examples,
            now.num_steps,
            now.delta,
            sampling=now.sampling,
            accountant=now.accountant,
            neighbors=now.neighbors,
        )

    def require_within_reach(self, batch_sizes: Sequence[int]) -> None:
        """Refuses an epsilon that no noise reaches at one of the batch sizes; the message has the nearest possible one.

        Raises:
            ValueError: with the nearest possible epsilon.
        """
        for batch_size in batch_sizes:
            calibration.reaching_accountant(self.epsilon, lambda noise, size=batch_size: self.plan(noise, size))


def default_delta(num_examples: int) -> float:
    """The largest power of ten below one over the number of examples."""
    return 10.0 ** -(math.floor(math.log10(num_examples)) + 1)


def batch_sizes(num_examples: int) -> tuple[int, ...]:
    """The powers of two from N / 64 to N / 2; 1 for a single example."""
    largest = max(0, math.floor(math.log2(num_examples)) - 1)
    return tuple(2**power for power in range(max(0, largest - 5), largest + 1) if 64 * 2**power >= num_examples)


def table(budget: Budget, sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    """One line per batch size: the noise that the budget asks for, and what that means.

    Yields:
        `noise_multiplier` sigma, `effective_noise` sigma / B, `signal_to_noise` B / sigma (the largest mean gradient,
        one clip norm, over the noise's standard deviation in its direction, of one step), `epochs` S B / N (expected
        ones), the `epsilon` that is spent, and `above_wall`, whether sigma is at least 2.
    """
    noise = 1.0
    for size in sizes:
        noise = _least_noise(budget, size, near=noise)
        yield {
            "batch_size": size,
            "noise_multiplier": noise,
            "effective_noise": noise / size,
            "signal_to_noise": size / noise if noise else math.inf,
            "epochs": budget.num_steps * size / budget.num_examples,
            "epsilon": budget.plan(noise, size).epsilon,
            "above_wall": noise >= WALL,
        }


def suggested(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The line of the smallest batch above the privacy wall, or of the largest batch if none is above it.

    A larger batch costs more computation, and its noise sigma / B is hardly smaller.
    """
    return next((line for line in lines if line["above_wall"]), lines[-1])


def noise(budget: Budget, sizes: Sequence[int]) -> Iterator[dict[str, Any]]:
    """Noise multipliers by batch size for a quarter of the steps, the steps, and four times the steps, by RDP."""
    for num_steps in (max(1, budget.num_steps // 4), budget.num_steps, 4 * budget.num_steps):
        found = 1.0
        for size in sizes:
            by_rdp = dataclasses.replace(budget, num_steps=num_steps, accountant="rdp")
            found = _least_noise(by_rdp, size, near=found, digits=3)
            yield {"num_steps": num_steps, "batch_size": size, "noise_multiplier": found}


def steps(budget: Budget, noise_multiplier: float, batch_size: int) -> Iterator[dict[str, Any]]:
    """Epsilon by the number of steps, from a quarter to twice the budget's, for a noise and a batch size.

    Yields:
        Lines of three `comparison`s, each with a `curve`: by accountant, by neighbors, and by sampling scheme.
    """
    comparisons = {
        "accountant": accounting.ACCOUNTANTS,
        "neighbors": accounting.NEIGHBORS,
        "sampling": tuple(sampling.SCHEMES),
    }
    numbers = sorted({max(1, round(budget.num_steps * share)) for share in (0.25, 0.5, 1, 2)})
    for comparison, choices in comparisons.items():
        for choice in choices:
            for num_steps in numbers:
                changed = budget.plan(noise_multiplier, batch_size, num_steps=num_steps, **{comparison: choice})
                try:
                    epsilon = changed.epsilon
                except ValueError:
                    # A sampling scheme may have no proven bound for one of the neighbors.
                    continue
                yield {"comparison": comparison, "curve": choice, "num_steps": num_steps, "epsilon": epsilon}


def wall(budget: Budget, effective_noise: float) -> Iterator[dict[str, Any]]:
    """Epsilon by the noise multiplier at one sigma / B, by RDP, beside TAN's estimate, which is constant."""
    for noise_multiplier in _WALL_NOISES:
        size = round(noise_multiplier / effective_noise) if effective_noise else 0
        if not 1 <= size <= budget.num_examples:
            continue
        plan = budget.plan(effective_noise * size, size, accountant="rdp")
        eta = tan.eta(effective_noise * size, size, budget.num_examples, budget.num_steps)
        yield {
            "noise_multiplier": effective_noise * size,
            "batch_size": size,
            "epsilon": plan.epsilon,
            "epsilon_tan": tan.epsilon_tan(eta, budget.delta),
        }


def _least_noise(budget: Budget, batch_size: int, *, near: float, digits: int = 5) -> float:
    """The smallest noise multiplier, searched from that of the next smaller batch, of which it is about twice."""
    return calibration.least_noise(
        budget.epsilon, lambda noise: budget.plan(noise, batch_size), digits=digits, near=near or 1.0
    )
