"""Where noise helps, where it hurts and where it diverges: beyond the paper, whose open question is the best sigma.

Final distances to beta* over a grid of step sizes and noise scales, on data sets of the paper's sparse regression
(`regression.sparse`: n = 40, d = 100, 5 non-zeros), beside the two terms that compete in Propositions 2 and 3: more
noise shrinks alpha, and the minimizer of phi_alpha moves toward the sparse solution; and it lengthens r_inf, which
tilts the limit away from that minimizer. The limit is a function of alpha and tilt alone. Exchanging one of the two for
SGD's shows what the other does by itself.

    lines = noise_threshold.measure(range(12))
    noise_threshold.gains(lines)    # for each step size and sigma: on how many data sets noise helps, and why
    noise_threshold.best(lines)     # the best sigma for each step size, and what it gains on data not used to choose it
"""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from noisy_sgd.data import regression
from noisy_sgd.sde import diagonal_linear as theory
from noisy_sgd.sde import linear_stability, mirror_map
from noisy_sgd.studies import diagonal_linear

Lines = list[dict[str, Any]]

RELATIVE_STEPS = (0.2, 0.4, 0.5, 0.6, 0.7, diagonal_linear.PAPER_STEP, 0.85)
NOISE_SCALES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0)
TERMS = (
    "geometric_alpha",
    "tilt_norm",
    "minimizer_distance",
    "displacement",
    "alpha_alone",
    "tilt_alone",
    "run_distance",
    "sgd_distance",
)


def measure(
    data_seeds: Iterable[int],
    *,
    relative_steps: Sequence[float] = RELATIVE_STEPS,
    noise_scales: Sequence[float] = NOISE_SCALES,
    num_runs: int = 3,
    num_steps: int = 15_000,
    alpha: float = 0.1,
    **options: Any,
) -> Lines:
    """One line per data set, step size and noise scale; all runs on a data set advance together.

    Args:
        data_seeds: of `regression.sparse`, and of sampling and noise.
        relative_steps: gamma lambda_max.
        noise_scales: sigma; the first is 0, SGD.
        num_runs: runs per case. Defaults to 3.
        num_steps: Defaults to 15,000.
        alpha: Defaults to 0.1.
        **options: of `regression.sparse`.

    Returns:
        Lines with the counts of runs and of diverged ones; the `relative_edge`, up to which the linearized steps are
        stable in mean square at beta* (gamma lambda_max); `judged_distance`, the median squared distance to beta* with
        diverged runs infinitely far; `squared_distance`, the median over the others; and, for the first run that did
        not diverge and whose counterpart under SGD did not (NaN if there is none, or if alpha is beyond float64):

        geometric_alpha      geometric mean over coordinates of the exact alpha, sqrt|w+ w-|
        tilt_norm            |r_inf|
        minimizer_distance   from argmin phi_alpha to beta*: the effect of alpha by itself
        displacement         from argmin phi_alpha to argmin phi_alpha - <r_inf, .>: the cost of r_inf by itself
        alpha_alone          from the limit with this run's alpha and SGD's tilt to beta*
        tilt_alone           from the limit with this run's tilt and SGD's alpha to beta*
        run_distance         from this run's end to beta*
        sgd_distance         from its counterpart's end to beta*

        all but the first two squared; the exchanges use the tilt that is exact at any step size.

    Raises:
        ValueError: if the first noise scale is not 0.
    """
    if noise_scales[0] != 0:
        raise ValueError(f"`noise_scales` must start with 0, SGD. Received: noise_scales={noise_scales}")
    lines = []
    for data_seed in data_seeds:
        problem = regression.sparse(data_seed, **options)
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
        shape = (len(relative_steps), len(noise_scales), num_runs)
        distances = trajectory.squared_distance[-1].reshape(shape)
        terms = _terms(problem, trajectory, shape)
        edges = [
            problem.largest_eigenvalue * linear_stability.edge(problem.features, problem.solution, noise)
            for noise in noise_scales
        ]
        for (row, relative_step), (column, noise) in itertools.product(
            enumerate(relative_steps), enumerate(noise_scales)
        ):
            case = distances[row, column]
            lines.append(
                {
                    "data_seed": data_seed,
                    "relative_step": relative_step,
                    "noise_scale": noise,
                    "relative_edge": edges[column],
                    "num_runs": num_runs,
                    "diverged": int(np.isnan(case).sum()),
                    "num_steps": num_steps,
                    "judged_distance": float(np.median(np.nan_to_num(case, nan=np.inf))),
                    "squared_distance": _median(case),
                    **dict(zip(TERMS, terms[row, column].tolist(), strict=True)),
                }
            )
    return lines


def gains(lines: Lines) -> Lines:
    """For each step size and positive sigma: how often and how much noise helps, and through which term.

    Args:
        lines: of `measure`.

    Returns:
        Lines: the counts of data sets, of those on which noise beats SGD with diverged runs infinitely far
        (`wins`, two-sided `p` of the sign test), of those with survivors of both and of wins among these; the share of
        diverged runs; and medians over data sets of log10 of a distance over SGD's: of the judged distances (`change`,
        infinite where most are lost) and, for the single runs that have them, of `alpha_alone`, `tilt_alone` and
        `run_distance`. Negative is nearer to beta*.
    """
    found = []
    for step, noise in _cases(lines):
        if noise == 0:
            continue
        here, plain = _pick(lines, step, noise), _pick(lines, step, 0.0)
        judged, judged_plain = (np.array([line["judged_distance"] for line in case]) for case in (here, plain))
        survived, survived_plain = (np.array([line["squared_distance"] for line in case]) for case in (here, plain))
        both = np.isfinite(survived) & np.isfinite(survived_plain)
        decided = np.isfinite(judged) | np.isfinite(judged_plain)
        wins = int(np.sum(judged < judged_plain))
        found.append(
            {
                "relative_step": step,
                "noise_scale": noise,
                "data_sets": len(here),
                "wins": wins,
                "p": float(stats.binomtest(wins, int(decided.sum())).pvalue) if decided.any() else np.nan,
                "with_survivors": int(both.sum()),
                "wins_of_survivors": int(np.sum(survived[both] < survived_plain[both])),
                "diverged_share": sum(line["diverged"] for line in here) / sum(line["num_runs"] for line in here),
                "change": float(np.median(_log_ratio(judged, judged_plain))),
                **{
                    name: _median(np.log10([line[name] / line["sgd_distance"] for line in here]))
                    for name in ("alpha_alone", "tilt_alone", "run_distance")
                },
            }
        )
    return found


def best(lines: Lines) -> Lines:
    """For each step size the sigma with the smallest median over data sets of log distance over SGD's.

    Diverged runs count as infinitely far. The gain of the best of several is biased upward. Therefore sigma is chosen
    again without each data set, and judged on that data set.

    Args:
        lines: of `measure`.

    Returns:
        Lines: step size, `best_noise_scale`, its median `change` (log10, 0 for SGD itself), the median distances of
        the best and of SGD, shares of diverged runs; `held_out_change`, the median change on a data set by the
        sigma that was chosen without it, and `held_out_wins`, on how many data sets that helped.
    """
    found = []
    for step in sorted({step for step, _ in _cases(lines)}):
        noises = [noise for one, noise in _cases(lines) if one == step]
        judged = np.array([[line["judged_distance"] for line in _pick(lines, step, noise)] for noise in noises])
        changes = np.array([_log_ratio(values, judged[0]) for values in judged])
        count = judged.shape[1]
        winner = int(np.argmin(np.median(changes, axis=1)))
        held_out = np.array(
            [
                changes[np.argmin(np.median(np.delete(changes, one, axis=1), axis=1)), one] if count > 1 else np.nan
                for one in range(count)
            ]
        )
        share = [
            sum(line["diverged"] for line in case) / sum(line["num_runs"] for line in case)
            for case in (_pick(lines, step, noises[winner]), _pick(lines, step, 0.0))
        ]
        found.append(
            {
                "relative_step": step,
                "best_noise_scale": noises[winner],
                "change": float(np.median(changes[winner])),
                "squared_distance": float(np.median(judged[winner])),
                "diverged_share": share[0],
                "sgd_squared_distance": float(np.median(judged[0])),
                "sgd_diverged_share": share[1],
                "held_out_change": float(np.median(held_out)),
                "held_out_wins": int(np.sum(held_out < 0)),
                "data_sets": count,
            }
        )
    return found


def _terms(problem, trajectory, shape):
    """`TERMS` of one run per step size and noise, [steps, noises, terms]."""
    terms = np.full((*shape[:2], len(TERMS)), np.nan)
    alphas = theory.effective_alpha_from_weights(trajectory.weights).reshape(*shape, -1)
    tilts = theory.orthogonal_part(problem.features, trajectory.accumulated_noise).reshape(*shape, -1)
    exact = theory.discrete_tilt(trajectory.weights, problem.features).reshape(*shape, -1)
    kept = ~trajectory.diverged.reshape(shape)
    distances = trajectory.squared_distance[-1].reshape(shape)

    def limit(alpha, tilt=None):
        try:
            return mirror_map.minimizer(problem.features, problem.targets, alpha, tilt)
        except ValueError:  # outside the range of float64
            return np.full(problem.solution.shape, np.nan)

    for case in itertools.product(*map(range, shape[:2])):
        for repetition in np.flatnonzero(kept[case] & kept[case[0], 0])[:1]:
            run, sgd = (*case, repetition), (case[0], 0, repetition)
            points = {
                "minimizer_distance": limit(alphas[run]),
                "alpha_alone": limit(alphas[run], exact[sgd]),
                "tilt_alone": limit(alphas[sgd], exact[run]),
            }
            found = {name: np.sum((point - problem.solution) ** 2) for name, point in points.items()}
            tilted = limit(alphas[run], tilts[run])
            found["displacement"] = np.sum((tilted - points["minimizer_distance"]) ** 2)
            found["geometric_alpha"] = np.exp(np.mean(np.log(alphas[run])))
            found["run_distance"], found["sgd_distance"] = distances[run], distances[sgd]
            found["tilt_norm"] = np.linalg.norm(tilts[run])
            terms[case] = [found[name] for name in TERMS]
    return terms


def _cases(lines):
    return sorted({(line["relative_step"], line["noise_scale"]) for line in lines})


def _pick(lines, step, noise):
    case = [line for line in lines if (line["relative_step"], line["noise_scale"]) == (step, noise)]
    return sorted(case, key=lambda line: line["data_seed"])


def _median(values):
    values = np.asarray(values)[np.isfinite(values)]
    return float(np.median(values)) if values.size else float("nan")


def _log_ratio(values, reference):
    """log10 of distances over SGD's; 0 where both are lost."""
    decided = np.isfinite(values) | np.isfinite(reference)
    return np.log10(np.where(decided, values, 1.0)) - np.log10(np.where(decided, reference, 1.0))
