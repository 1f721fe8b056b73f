"""What the paper claims about images (its Figures 1 and 2), as functions from recorded runs to outcomes.

Figure 1's protocol is scaled down to small images. The directions of the effects are expected, the absolute accuracies
are not. Each claim says by which rule it counts as reached. Accuracies are percentages, intervals 95 % over seeds.

    outcome = image_claims.slope("dp_sgd")(records.find("results/batch_size_sweep"))
    outcome.here, outcome.reached
"""

from collections.abc import Callable, Sequence

import numpy as np

from noisy_sgd import records, statistics
from noisy_sgd.experiments.report import claims
from noisy_sgd.figures import canvas, images

Runs = Sequence[records.Record]
Measure = Callable[[Runs], claims.Outcome | None]

SWEEP = "batch_size_sweep"
_LARGEST_DIFFERENCE = 1.5
_NORM_TOLERANCE = 0.01
_EARLY = 0.1


def slope(algorithm: str) -> Measure:
    """The fall of the final accuracy per doubling of the batch size; reached if its interval lies below 0."""

    def measure(runs: Runs) -> claims.Outcome | None:
        by_seed = images.final_values(runs).get(algorithm, {})
        if len(by_seed) < 2 or any(len(by_size) < 2 for by_size in by_seed.values()):
            return None
        found = statistics.slope_per_doubling(by_seed)
        low, high = 100 * found.low, 100 * found.high
        sizes = sorted(next(iter(by_seed.values())))
        here = f"{100 * found.mean:+.2f} [{low:+.2f}, {high:+.2f}] points per doubling, B = {sizes[0]} to {sizes[-1]}, "
        return claims.Outcome(here=f"{here}{found.count} seeds", reached=high < 0)

    return measure


def monotone(algorithm: str) -> Measure:
    """Mean final accuracies by batch size; reached if every doubling lowers the mean over seeds."""

    def measure(runs: Runs) -> claims.Outcome | None:
        means = _mean_by_size(images.final_values(runs).get(algorithm, {}))
        if len(means) < 2:
            return None
        values = [means[size] for size in sorted(means)]
        sizes = ", ".join(str(size) for size in sorted(means))
        listed = ", ".join(f"{value:.1f}" for value in values)
        return claims.Outcome(here=f"{listed} % for B = {sizes}", reached=bool(np.all(np.diff(values) < 0)))

    return measure


def noisy_ends_near_sgd(runs: Runs) -> claims.Outcome | None:
    """Final accuracy of Noisy-SGD less SGD's; reached if seed means differ by less than 1.5 points at every size."""
    values = images.final_values(runs)
    if not {"sgd", "noisy_sgd"} <= set(values):
        return None
    noisy, plain = _mean_by_size(values["noisy_sgd"]), _mean_by_size(values["sgd"])
    differences = [noisy[size] - plain[size] for size in sorted(noisy) if size in plain]
    here = f"{', '.join(f'{difference:+.2f}' for difference in differences)} points"
    return claims.Outcome(here=here, reached=bool(np.max(np.abs(differences)) < _LARGEST_DIFFERENCE))


def noisy_starts_slower(runs: Runs) -> claims.Outcome | None:
    """Accuracy of Noisy-SGD less SGD's after a tenth of the steps, paired by size and seed; reached if below 0."""
    early = {}
    for run in runs:
        algorithm, target = run.config["algorithm"], _EARLY * run.config["algorithm"]["num_steps"]
        curve = {line["step"]: line[run.accuracy] for line in run.metrics if line.get(run.accuracy) is not None}
        if curve:
            step = min(curve, key=lambda step: abs(step - target))
            early[algorithm["algorithm"], algorithm["batch_size"], run.config["run"]["seed"]] = 100 * curve[step]
    seeds: dict[int, list[float]] = {}
    for (algorithm, size, seed), value in early.items():
        if algorithm == "noisy_sgd" and ("sgd", size, seed) in early:
            seeds.setdefault(seed, []).append(value - early["sgd", size, seed])
    if len(seeds) < 2:
        return None
    found = statistics.estimate([float(np.mean(differences)) for differences in seeds.values()])
    here = f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}] points, mean over batch sizes"
    return claims.Outcome(here=here, reached=found.high < 0)


def noise_norm_is_exact(runs: Runs) -> claims.Outcome | None:
    """Mean squared norm of the drawn noise against d (sigma / B)^2; reached within 1 %."""
    ratios = []
    for run in runs:
        drawn = _column(run, "squared_noise_norm")
        if run.config["algorithm"]["algorithm"] == "noisy_sgd" and drawn and run.config["algorithm"]["noise_std"]:
            ratios.append(np.mean(drawn) / (run.results["num_parameters"] * run.config["algorithm"]["noise_std"] ** 2))
    if not ratios:
        return None
    ratio = float(np.mean(ratios))
    return claims.Outcome(here=f"{ratio:.4f} times d (sigma / B)^2", reached=abs(ratio - 1) < _NORM_TOLERANCE)


def noise_exceeds_gradient(runs: Runs) -> claims.Outcome | None:
    """Squared norms of noise over gradient, smallest batch, after a tenth of the steps; reached if above 1."""
    noisy = [run for run in runs if run.config["algorithm"]["algorithm"] == "noisy_sgd"]
    noisy = [run for run in noisy if _column(run, "squared_gradient_norm")]
    if not noisy:
        return None
    smallest = min(run.config["algorithm"]["batch_size"] for run in noisy)
    noisy = [run for run in noisy if run.config["algorithm"]["batch_size"] == smallest]
    noise, gradient = (
        np.mean([np.mean(_column(run, name, first=_EARLY * run.config["algorithm"]["num_steps"])) for run in noisy])
        for name in ("squared_noise_norm", "squared_gradient_norm")
    )
    here = f"{noise:.3g} / {gradient:.3g} = {noise / gradient:.2f} at B = {smallest}"
    return claims.Outcome(here=here, reached=bool(noise > gradient))


def _column(run: records.Record, value: str, first: float = 0) -> list[float]:
    return [line[value] for line in run.metrics if line.get(value) is not None and line["step"] > first]


def _mean_by_size(by_seed: dict[int, dict[int, float]]) -> dict[int, float]:
    sizes = {size for by_size in by_seed.values() for size in by_size}
    return {
        size: 100 * float(np.mean([by_size[size] for by_size in by_seed.values() if size in by_size])) for size in sizes
    }


_PAPER_SLOPES = {
    "sgd": "59.3 to 50.6 %, -2.9 per doubling (ImageNet, B = 128 to 1024)",
    "noisy_sgd": "59.8 to 50.8 %, -3.0 per doubling (ImageNet, B = 128 to 1024)",
    "dp_sgd": "49.1 to 43.2 %, -2.0 per doubling (ImageNet, B = 128 to 1024)",
}

CLAIMS = (
    *(
        claims.Claim(
            text=f"{label}: at fixed steps, learning rate and sigma / B, larger batches end with lower test accuracy "
            "(slope per doubling below 0 with its 95 % interval)",
            paper=_PAPER_SLOPES[name],
            experiment=SWEEP,
            measure=slope(name),
        )
        for name, label in canvas.LABELS.items()
    ),
    *(
        claims.Claim(
            text=f"{label}: every doubling of the batch size lowers the mean final accuracy",
            paper="every one of three doublings (ImageNet)",
            experiment=SWEEP,
            measure=monotone(name),
        )
        for name, label in canvas.LABELS.items()
    ),
    claims.Claim(
        text="Noisy-SGD ends where SGD ends (seed means within 1.5 points at every batch size)",
        paper="+0.5, +0.6, +0.3, +0.2 points (ImageNet, B = 128, 256, 512, 1024)",
        experiment=SWEEP,
        measure=noisy_ends_near_sgd,
    ),
    claims.Claim(
        text="Noisy-SGD is slower at first (accuracy below SGD's after a tenth of the steps, 95 % interval below 0)",
        paper="-3.3 points after 10,000 of 72,000 steps (ImageNet, B = 128)",
        experiment=SWEEP,
        measure=noisy_starts_slower,
    ),
    claims.Claim(
        text="The noise's squared norm is d (sigma / B)^2 (within 1 %)",
        paper="9.31 (d = 25 million)",
        experiment=SWEEP,
        measure=noise_norm_is_exact,
    ),
    claims.Claim(
        text="The noise is larger than the mini-batch gradient after a tenth of the steps (ratio of mean squared norms "
        "above 1 at the smallest batch size)",
        paper="1.6 to 2.0 after 10,000 steps (ImageNet, B = 128)",
        experiment=SWEEP,
        measure=noise_exceeds_gradient,
    ),
)
