"""Where noise helps, where it hurts and where it diverges: beyond the paper, whose open question is the best sigma.

Final distances over a grid of step sizes and noise scales, on several data sets, beside the two terms that compete in
Propositions 2 and 3: more noise shrinks alpha_inf, and the minimiser of phi_alpha_inf moves towards the sparse
solution; and it lengthens r_inf, which pulls the limit away from that minimiser.

    lines = noise_threshold.measure(data_seeds=(0, 1))
    noise_threshold.best(lines)     # the best sigma for each step size
"""

import numpy as np

from noisy_sgd.data import regression
from noisy_sgd.experiments import diagonal_linear
from noisy_sgd.sde import diagonal_linear as theory
from noisy_sgd.sde import mirror_map

RELATIVE_STEPS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 1 / 1.3, 0.85)
NOISE_SCALES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0)


def measure(
    data_seeds, *, relative_steps=RELATIVE_STEPS, noise_scales=NOISE_SCALES, num_runs=4, num_steps=30_000, alpha=0.1
):
    """One line a data set, step size and noise scale.

    Args:
        data_seeds: of `regression.sparse`.
        relative_steps: gamma lambda_max.
        noise_scales: sigma.
        num_runs: a case. Defaults to 4.
        num_steps: Defaults to 30,000.
        alpha: Defaults to 0.1.

    Returns:
        Lines with the number of runs and of diverged ones and, over the others, the medians of the squared distance to
        beta*, of the geometric mean of the exact alpha, of |r_inf|, of the distance of argmin phi_alpha to beta* (what
        a smaller alpha alone gives), and of the limit's distance to that minimiser (what r_inf and finite steps add).
        NaN where all runs diverged.
    """
    lines = []
    for data_seed in data_seeds:
        problem = regression.sparse(data_seed)
        setting, trajectory = diagonal_linear.train(
            problem,
            noise_scales=noise_scales,
            relative_steps=relative_steps,
            num_runs=num_runs,
            num_steps=num_steps,
            alpha=alpha,
            seed=data_seed,
            grid=[num_steps],
        )
        terms = _terms(problem, setting, trajectory).reshape(len(relative_steps), len(noise_scales), num_runs, -1)
        for (row, relative_step), (column, noise) in (
            ((i, s), (j, n)) for i, s in enumerate(relative_steps) for j, n in enumerate(noise_scales)
        ):
            case = terms[row, column]
            kept = case[np.isfinite(case[:, 0])]
            medians = np.median(kept, axis=0) if len(kept) else np.full(case.shape[1], np.nan)
            names = ("squared_distance", "geometric_alpha", "tilt_norm", "minimizer_distance", "gap")
            lines.append(
                {
                    "data_seed": data_seed,
                    "relative_step": relative_step,
                    "noise_scale": noise,
                    "num_runs": num_runs,
                    "diverged": num_runs - len(kept),
                    "num_steps": num_steps,
                    **dict(zip(names, medians.tolist(), strict=True)),
                }
            )
    return lines


def best(lines):
    """For each step size the noise scale with the smallest median over data sets, divergence counting as infinitely
    far.

    Args:
        lines: of `measure`.

    Returns:
        Lines: the step size, the best sigma, its median distance, SGD's, and the share of runs that diverged at each.
    """
    found = []
    for step in sorted({line["relative_step"] for line in lines}):
        cases = {}
        for noise in sorted({line["noise_scale"] for line in lines}):
            case = [line for line in lines if (line["relative_step"], line["noise_scale"]) == (step, noise)]
            # A data set on which most runs diverge counts as lost.
            values = [np.inf if 2 * line["diverged"] > line["num_runs"] else line["squared_distance"] for line in case]
            share = sum(line["diverged"] for line in case) / sum(line["num_runs"] for line in case)
            cases[noise] = float(np.median(values)), share
        winner = min(cases, key=lambda noise: cases[noise][0])
        found.append(
            {
                "relative_step": step,
                "best_noise_scale": winner,
                "squared_distance": cases[winner][0],
                "diverged": cases[winner][1],
                "sgd_squared_distance": cases[min(cases)][0],
                "sgd_diverged": cases[min(cases)][1],
            }
        )
    return found


def _terms(problem, setting, trajectory):
    """Per run: distance, geometric mean of alpha, |r_inf|, distance of the untilted minimiser, gap; NaN if diverged."""
    terms = np.full((setting.num_runs, 5), np.nan)
    beta = setting.predictor(trajectory.weights)
    alphas = theory.effective_alpha_from_weights(trajectory.weights)
    for run in np.flatnonzero(~trajectory.diverged):
        point = mirror_map.minimizer(problem.features, problem.targets, alphas[run])
        tilt = theory.orthogonal_part(problem.features, trajectory.accumulated_noise[run])
        terms[run] = (
            trajectory.squared_distance[-1, run],
            np.exp(np.mean(np.log(alphas[run]))),
            np.linalg.norm(tilt),
            np.sum((point - problem.solution) ** 2),
            np.sum((beta[run] - point) ** 2),
        )
    return terms
