"""A sweep over batch sizes: Figure 1's protocol as runs by name.

sweeps.sweep(("sgd", "noisy_sgd"), (16, 64), 3, base=configuration.Config(), effective_noise=0.01).runs
"""

import dataclasses
from typing import Any

from noisy_sgd.config import configuration, rules, training

_LARGEST_SWEEP = 100_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Runs by name; each is recorded in a folder of that name under `run_dir`."""

    run_dir: str
    runs: dict[str, configuration.Config]


def sweep(
    algorithms: tuple[str, ...],
    batch_sizes: tuple[int, ...],
    num_seeds: int,
    *,
    base: configuration.Config,
    dp_sgd_effective_noise: float | None = None,
    **options: Any,
) -> Sweep:
    """Figure 1's protocol: `options` (steps, learning rate, sigma / B, clipping) are fixed, the batch size varies.

    Each algorithm takes the options that mean something to it; DP-SGD may have a sigma / B of its own.
    """
    rules.require_at_least("num_seeds", num_seeds, 1)
    rules.require_distinct("algorithm", algorithms)
    rules.require_distinct("batch_size", batch_sizes)
    few = num_seeds * len(algorithms) * len(batch_sizes) <= _LARGEST_SWEEP
    rules.require(few, "num_seeds", f"must leave at most {_LARGEST_SWEEP} runs", num_seeds, "give a smaller one")
    runs = {}
    for name in algorithms:
        kept = {option: value for option, value in options.items() if training.is_meant_for(option, name)}
        if name == "dp_sgd" and dp_sgd_effective_noise is not None:
            kept["effective_noise"] = dp_sgd_effective_noise
        for batch_size in batch_sizes:
            trained = training.Training(algorithm=name, batch_size=batch_size, **kept)
            for seed in range(base.run.seed, base.run.seed + num_seeds):
                folder = f"{name}-batch_{batch_size}-seed_{seed}"
                run = dataclasses.replace(base.run, seed=seed, run_dir=f"{base.run.run_dir}/{folder}")
                runs[folder] = dataclasses.replace(base, training=trained, run=run)
    return Sweep(run_dir=base.run.run_dir, runs=runs)
