"""Figure 1's own numbers: final accuracies on ImageNet, batch size by batch size.

They are compared with runs on ImageNet alone; other runs leave the rows at "not run".

    claims.judge_runs(imagenet_claims.CLAIMS, records.find("runs/imagenet"))

Covered by tests/experiments/reproduce_test.py.
"""

from collections.abc import Callable, Sequence

import numpy as np

from noisy_sgd import records
from noisy_sgd.experiments.report import claims, paper_values
from noisy_sgd.figures import canvas, images

_TOLERANCE = 1.5
_DATASET = "imagenet2012"


def final_accuracies(algorithm: str) -> Callable[[Sequence[records.Record]], claims.Outcome | None]:
    """Mean final accuracies against the paper's at the same batch sizes; reached within 1.5 points at each."""

    def measure(runs: Sequence[records.Record]) -> claims.Outcome | None:
        found = [run for run in runs if run.config["data"]["dataset"] == _DATASET]
        by_seed = images.final_values(found).get(algorithm, {})
        expected = paper_values.FIGURE_1[algorithm]
        means = {
            size: 100 * float(np.mean([by_size[size] for by_size in by_seed.values() if size in by_size]))
            for size in expected
            if any(size in by_size for by_size in by_seed.values())
        }
        if not means:
            return None
        here = ", ".join(f"{mean:.1f} % at B = {size}" for size, mean in means.items())
        reached = all(abs(mean - expected[size]) <= _TOLERANCE for size, mean in means.items())
        return claims.Outcome(here=f"{here}; {len(by_seed)} seeds", reached=reached)

    return measure


CLAIMS = tuple(
    claims.Claim(
        text=f"ImageNet, {canvas.LABELS[name]}: the final accuracies of Figure 1 (within 1.5 points at every batch "
        "size that was run)",
        paper=", ".join(f"{value:.1f} % at B = {size}" for size, value in values.items()),
        experiment="batch_size_sweep",
        measure=final_accuracies(name),
    )
    for name, values in paper_values.FIGURE_1.items()
)
