"""Does noise help deeper diagonal linear networks? beta = w+^D - w-^D at depths 2, 3 and 4: beyond the paper.

Gradient descent, SGD and Noisy-SGD on the paper's sparse regressions, the noise as in sde/deep_diagonal. Two choices
make depths comparable. The step size is a fraction of SGD's edge of mean-square stability at beta*, of which the
paper's step at depth 2 is 0.7 to 1.2, depending on the data set. All start at beta = 0 from w+ = w- = alpha; alpha^D is
the same at every depth, and the paper's 0.1^2 at depth 2.

    lines = deep_diagonal.measure(range(12))
    deep_diagonal.order(lines)      # per depth and step size: who is nearer to beta*, on how many data sets
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from noisy_sgd.data import regression
from noisy_sgd.sde import deep_diagonal as theory
from noisy_sgd.sde import linear_stability
from noisy_sgd.toy import settings, simulation

Lines = list[dict[str, Any]]

DEPTHS = (2, 3, 4)
FRACTIONS = (0.25, 0.5, 0.75, 0.9)
NOISE_SCALES = (0.0, 0.25, 0.5)
# A run has not reached its limit if its loss is above this fraction of the initial loss.
_UNFINISHED = 1e-3


def measure(
    data_seeds: Iterable[int],
    *,
    depths: Sequence[int] = DEPTHS,
    fractions: Sequence[float] = FRACTIONS,
    noise_scales: Sequence[float] = NOISE_SCALES,
    num_runs: int = 3,
    num_steps: int = 20_000,
    initial_scale: float = 0.01,
    alpha: float | None = None,
    **options: Any,
) -> Lines:
    """One line per data set, depth, step size and algorithm.

    Args:
        data_seeds: of `regression.sparse`, and of sampling and noise.
        depths: Defaults to 2, 3, 4.
        fractions: step sizes in units of the edge. Defaults to 0.25, 0.5, 0.75, 0.9.
        noise_scales: sigmas; 0 is SGD. Defaults to 0, 1/4, 1/2.
        num_runs: of SGD and of Noisy-SGD in each case. Defaults to 3.
        num_steps: Defaults to 20,000.
        initial_scale: alpha^D. Defaults to 0.01.
        alpha: the same at all depths instead. Defaults to None.
        **options: of `regression.sparse`.

    Returns:
        Lines with the counts of runs, of diverged ones, and of unfinished ones, whose loss ended above a thousandth of
        the first; and, over runs that did not diverge, the medians of the squared distance to beta*, of the effective
        over the initial alpha (geometric mean over the coordinates where beta* is 0), of the same by its formula, and
        of the tilt's norm in units of alpha^(2-D); NaN where all diverged. `judged_distance` is the median with
        diverged runs infinitely far.
    """
    lines = []
    for data_seed, depth in itertools.product(data_seeds, depths):
        problem = regression.sparse(data_seed, **options)
        edge = linear_stability.edge(problem.features, problem.solution, depth=depth)
        start = initial_scale ** (1.0 / depth) if alpha is None else alpha
        cases = list(itertools.product(fractions, noise_scales))
        train = {"problem": problem, "depth": depth, "alpha": start, "num_steps": num_steps, "seed": data_seed}
        trained = [
            ("gd", 1, [(fraction, 0.0) for fraction in fractions], {"batch_size": None}),
            ("sgd", num_runs, cases, {"batch_size": 1}),
        ]
        for algorithm, repetitions, chosen, batches in trained:
            finals = _finals(edge=edge, cases=chosen, num_runs=repetitions, **train, **batches)
            for (fraction, noise), values in zip(chosen, finals, strict=True):
                lines.append(
                    {
                        "data_seed": data_seed,
                        "depth": depth,
                        "alpha": start,
                        "fraction": fraction,
                        "relative_step": fraction * edge * problem.largest_eigenvalue,
                        "algorithm": "noisy_sgd" if noise else algorithm,
                        "noise_scale": noise,
                        "num_runs": repetitions,
                        "num_steps": num_steps,
                        **values,
                    }
                )
    return lines


def order(lines: Lines, noise_scale: float = 0.5) -> Lines:
    """Per depth and step size, over data sets: GD against SGD, SGD against Noisy-SGD.

    Args:
        lines: of `measure`.
        noise_scale: of the Noisy-SGD that is compared. Defaults to 0.5.

    Returns:
        Lines: medians over data sets of medians over surviving runs; on how many data sets SGD beats GD and Noisy-SGD
        beats SGD, of those where both have survivors, with the two-sided p of the sign test; the second once more with
        a diverged run counted as infinitely far (`_divergence_lost`, of all data sets); diverged and all runs.
    """
    found = []
    for depth, fraction in sorted({(line["depth"], line["fraction"]) for line in lines}):
        here = [line for line in lines if (line["depth"], line["fraction"]) == (depth, fraction)]
        cases = {
            "gd": [line for line in here if line["algorithm"] == "gd"],
            "sgd": [line for line in here if line["algorithm"] == "sgd"],
            "noisy_sgd": [line for line in here if line["noise_scale"] == noise_scale],
        }
        distances = {name: np.array([line["squared_distance"] for line in case]) for name, case in cases.items()}
        judged = {name: np.array([line["judged_distance"] for line in case]) for name, case in cases.items()}
        line = {"depth": depth, "fraction": fraction, "noise_scale": noise_scale, "data_sets": len(cases["gd"])}
        for name, case in cases.items():
            survivors = distances[name][np.isfinite(distances[name])]
            line[f"{name}_median"] = float(np.median(survivors)) if survivors.size else np.nan
            line[f"{name}_diverged"] = sum(one["diverged"] for one in case)
            line[f"{name}_unfinished"] = sum(one["unfinished"] for one in case)
            line[f"{name}_runs"] = sum(one["num_runs"] for one in case)
        for name, worse, better in (("sgd_better", "gd", "sgd"), ("noisy_better", "sgd", "noisy_sgd")):
            both = np.isfinite(distances[worse]) & np.isfinite(distances[better])
            wins = int(np.sum(distances[better][both] < distances[worse][both]))
            line |= {name: wins, f"{name}_of": int(both.sum())}
            line[f"{name}_p"] = float(stats.binomtest(wins, int(both.sum())).pvalue) if both.any() else np.nan
        line["noisy_better_divergence_lost"] = int(np.sum(judged["noisy_sgd"] < judged["sgd"]))
        found.append(line)
    return found


def _finals(*, problem, depth, alpha, num_steps, seed, edge, cases, num_runs, batch_size):
    """One dictionary of counts and medians per case (fraction, noise); all cases are trained at once."""
    fractions, noises = np.repeat(np.array(cases), num_runs, axis=0).T
    setting = settings.RunSettings(
        model="diagonal_linear",
        features=problem.features,
        targets=problem.targets,
        num_runs=len(noises),
        step_size=fractions * edge,
        noise_scale=noises,
        batch_size=batch_size,
        initial=alpha,
        depth=depth,
    )
    trajectory = simulation.simulate(setting, num_steps, seed, reference=problem.solution, grid=[0, num_steps])
    kept = ~trajectory.diverged
    values = np.full((4, setting.num_runs), np.nan)
    values[0] = trajectory.squared_distance[-1]
    outside, weights = problem.solution == 0, trajectory.weights[kept]
    values[1, kept] = _geometric_mean(theory.effective_alpha(weights, depth)[:, outside] / alpha)
    if batch_size is not None:
        values[2, kept] = _geometric_mean(
            theory.predicted_alpha(
                alpha,
                problem.features[:, outside],
                setting.step_size[kept],
                noises[kept],
                trajectory.loss_integral[-1, kept],
                depth,
                batch_size,
            )
            / alpha
        )
    values[3, kept] = np.linalg.norm(theory.tilt(weights / alpha, problem.features, depth), axis=-1)
    unfinished = kept & (trajectory.loss[-1] > _UNFINISHED * trajectory.loss[0])
    found = []
    for case in np.arange(setting.num_runs).reshape(len(cases), num_runs):
        survivors = case[kept[case]]
        medians = np.median(values[:, survivors], axis=1) if survivors.size else np.full(len(values), np.nan)
        names = ("squared_distance", "alpha_ratio", "alpha_ratio_formula", "tilt_norm")
        found.append(
            {
                "diverged": num_runs - survivors.size,
                "unfinished": int(unfinished[case].sum()),
                **dict(zip(names, medians.tolist(), strict=True)),
                "judged_distance": float(np.median(np.where(kept[case], values[0, case], np.inf))),
            }
        )
    return found


def _geometric_mean(values):
    return np.exp(np.mean(np.log(values), axis=-1))
