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
_LARGEST_DIFFERENCE, _LEVEL = 1.5, 0.05
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


def trend(algorithm: str) -> Measure:
    """Page's trend test of the final accuracies over seeds; reached by its p-value, adjusted over all algorithms."""

    def measure(runs: Runs) -> claims.Outcome | None:
        tables = {name: _by_size(by_seed) for name, by_seed in images.final_values(runs).items()}
        tables = {name: found for name, found in tables.items() if found and len(found[0]) > 2 and len(found[1]) > 1}
        if algorithm not in tables:
            return None
        # A run that diverged has no rank, and its algorithm shows no trend.
        tests = [statistics.falls(values) if np.isfinite(values).all() else 1.0 for _, values in tables.values()]
        p = dict(zip(tables, statistics.holm(tests), strict=True))[algorithm]
        sizes, values = tables[algorithm]
        listed = ", ".join(f"{mean:.1f}" for mean in values.mean(axis=0))
        here = f"p = {p:.2g}, {len(values)} seeds; {listed} % for B = {', '.join(map(str, sizes))}"
        return claims.Outcome(here=here, reached=p < _LEVEL)

    return measure


def noisy_ends_where_sgd_ends(runs: Runs) -> claims.Outcome | None:
    """Final accuracy of Noisy-SGD less SGD's, paired by seed; reached if equivalent within 1.5 points at every size."""
    values = images.final_values(runs)
    by_seed = [values.get(name, {}) for name in ("sgd", "noisy_sgd")]
    tables = [_by_size(one) for one in by_seed]
    if None in tables or tables[0][0] != tables[1][0] or set(by_seed[0]) != set(by_seed[1]) or len(by_seed[0]) < 2:
        return None
    (sizes, plain), (_, noisy) = tables
    differences = (noisy - plain).T
    found = [statistics.estimate(values, 1 - 2 * _LEVEL) for values in differences]
    here = ", ".join(f"{one.mean:+.2f} [{one.low:+.2f}, {one.high:+.2f}]" for one in found)
    reached = all(statistics.equivalent(values, _LARGEST_DIFFERENCE, _LEVEL) for values in differences)
    here = f"{here} points (90 % intervals) for B = {', '.join(map(str, sizes))}, {len(plain)} seeds"
    return claims.Outcome(here=here, reached=reached)


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


def _column(run: records.Record, value: str) -> list[float]:
    return [line[value] for line in run.metrics if line.get(value) is not None]


def _by_size(by_seed: dict[int, dict[int, float]]) -> tuple[list[int], np.ndarray] | None:
    """The batch sizes, and percentages [seeds, batch sizes]; None if seeds differ in their sizes."""
    grids = {tuple(sorted(by_size)) for by_size in by_seed.values()}
    if len(grids) != 1:
        return None
    (sizes,) = grids
    return list(sizes), np.array([[100 * by_seed[seed][size] for size in sizes] for seed in sorted(by_seed)])


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
            text=f"{label}: the final accuracy falls from batch size to batch size (Page's trend test over seeds, p < "
            "0.05 after Holm's adjustment over the algorithms)",
            paper="every one of three doublings (ImageNet)",
            experiment=SWEEP,
            measure=trend(name),
        )
        for name, label in canvas.LABELS.items()
    ),
    claims.Claim(
        text="Noisy-SGD ends where SGD ends (equivalent within 1.5 points at every batch size, two one-sided tests at "
        "5 %)",
        paper="+0.5, +0.6, +0.3, +0.2 points (ImageNet, B = 128, 256, 512, 1024)",
        experiment=SWEEP,
        measure=noisy_ends_where_sgd_ends,
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
)
