"""Diagonal linear networks: Figures 3 to 7, and the measurements behind Propositions 1 to 3, as plain lines of numbers.

Step sizes are in units of 1 / lambda_max. Every function returns dictionaries of numbers with their sample sizes. A run
directory records them; the report's claims and the figures are computed from them.

    problem = regression.sparse(seed=0)
    setting, trajectory = diagonal_linear.train(problem, noise_scales=(0.0, 0.5), num_runs=5)
    diagonal_linear.finals(problem, setting, trajectory)     # one line per run
    diagonal_linear.measure(problem, num_runs=5)              # input of figures/diagonal_linear
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from noisy_sgd import keys
from noisy_sgd.data import regression
from noisy_sgd.sde import diagonal_linear as theory
from noisy_sgd.sde import linear_stability, mirror_map
from noisy_sgd.toy import settings, simulation, trajectories

Line = dict[str, Any]
Lines = list[Line]

# gamma lambda_max of the paper's figures.
PAPER_STEP = 1 / 1.3


def train(
    problem: regression.Problem,
    *,
    noise_scales: Sequence[float] = (0.0, 0.5),
    relative_steps: Sequence[float] = (PAPER_STEP,),
    num_runs: int = 5,
    num_steps: int = 30_000,
    alpha: float = 0.1,
    batch_size: int | None = 1,
    seed: int = 0,
    grid: Sequence[int] | None = None,
    watch: Callable[[int], None] | None = None,
) -> tuple[settings.RunSettings, trajectories.Trajectory]:
    """Trains every combination of noise and step size, `num_runs` times, all at once.

    Args:
        problem: a `regression.Problem`.
        noise_scales: sigmas of eq. (18); 0 is SGD.
        relative_steps: gamma lambda_max. Defaults to the paper's 1 / 1.3.
        num_runs: runs per combination. Defaults to 5.
        num_steps: Defaults to 30,000.
        alpha: scale of the initial weights. Defaults to 0.1.
        batch_size: None is gradient descent. Defaults to 1.
        seed: of sampling and noise. Defaults to 0.
        grid: steps at which to record. Defaults to 20 per decade.
        watch: called repeatedly with the number of steps made since the last call. Defaults to None.

    Returns:
        The `settings.RunSettings`, runs ordered as step sizes x noise scales x repetitions, and its trajectory.
    """
    steps, noises = np.array(
        [pair for pair in itertools.product(relative_steps, noise_scales) for _ in range(num_runs)]
    ).T
    setting = settings.RunSettings(
        model="diagonal_linear",
        features=problem.features,
        targets=problem.targets,
        num_runs=len(steps),
        step_size=steps / problem.largest_eigenvalue,
        noise_scale=noises,
        batch_size=batch_size,
        initial=alpha,
    )
    return setting, simulation.simulate(setting, num_steps, seed, reference=problem.solution, grid=grid, watch=watch)


def finals(problem: regression.Problem, setting: settings.RunSettings, trajectory: trajectories.Trajectory) -> Lines:
    """One line per run: step size, noise, step of divergence (-1: none), last distance to beta*, loss and integral."""
    return [
        {
            "algorithm": _name(setting, run),
            "relative_step": setting.step_size[run] * problem.largest_eigenvalue,
            "noise_scale": setting.noise_scale[run],
            "alpha": setting.initial[run, 0, 0],
            "diverged_at": int(trajectory.diverged_at[run]),
            "squared_distance": trajectory.squared_distance[-1, run],
            "loss": trajectory.loss[-1, run],
            "loss_integral": trajectory.loss_integral[-1, run],
            "num_steps": int(trajectory.steps[-1]),
        }
        for run in range(setting.num_runs)
    ]


def curves(setting: settings.RunSettings, trajectory: trajectories.Trajectory) -> Lines:
    """One line per run and recorded step: squared distance to beta* and loss; NaN from where a run diverged."""
    return [
        {
            "algorithm": _name(setting, run),
            "noise_scale": setting.noise_scale[run],
            "run": run,
            "step": int(step),
            "squared_distance": trajectory.squared_distance[row, run],
            "loss": trajectory.loss[row, run],
        }
        for run in range(setting.num_runs)
        for row, step in enumerate(trajectory.steps)
    ]


def limits(problem: regression.Problem, setting: settings.RunSettings, trajectory: trajectories.Trajectory) -> Lines:
    """One line per run that did not diverge: its limit against eq. (21) and Propositions 2 and 3.

    Distances are squared, between the last iterate and the minimizer of phi_alpha - <tilt, .> with
        tilted, untilted                  the exact alpha = sqrt|w+ w-|, with r_inf and without
        tilted_formula, untilted_formula  eq. (21)'s alpha from the loss log; Figures 4 and 7 show the last
        tilted_discrete                   the exact alpha and the tilt that holds at any step size

    Args:
        problem: a `regression.Problem`.
        setting: as returned by `train`.
        trajectory: as returned by `train`.

    Returns:
        A list of dictionaries; `log_ratio` is the median over coordinates of ln(exact alpha / alpha_0) over eq.
        (21)'s, `geometric_alpha` the geometric mean of eq. (21)'s alpha, `proposition_3_left` mu |beta - untilted|, to
        be at most `tilt_norm`.
    """
    lines = []
    beta = setting.predictor(trajectory.weights)
    exact = theory.effective_alpha_from_weights(trajectory.weights)
    noise = theory.orthogonal_part(problem.features, trajectory.accumulated_noise)
    discrete = theory.discrete_tilt(trajectory.weights, problem.features)
    for run in np.flatnonzero(~trajectory.diverged):
        start = setting.initial[run, 0, 0]
        formula = formula_alpha(problem, setting, trajectory, run)
        cases = {
            "tilted": (exact[run], noise[run]),
            "untilted": (exact[run], None),
            "tilted_formula": (formula, noise[run]),
            "untilted_formula": (formula, None),
            "tilted_discrete": (exact[run], discrete[run]),
        }
        points = {name: mirror_map.minimizer(problem.features, problem.targets, *case) for name, case in cases.items()}
        convexity = theory.strong_convexity(beta[run], points["untilted"], exact[run])
        lines.append(
            {
                "relative_step": setting.step_size[run] * problem.largest_eigenvalue,
                "noise_scale": setting.noise_scale[run],
                "log_ratio": np.median(np.log(exact[run] / start) / np.log(formula / start)),
                "geometric_alpha": np.exp(np.mean(np.log(formula))),
                "tilt_norm": np.linalg.norm(discrete[run]),
                "proposition_3_left": convexity * np.linalg.norm(beta[run] - points["untilted"]),
                **{name: np.sum((beta[run] - point) ** 2) for name, point in points.items()},
            }
        )
    return lines


def formula_alpha(
    problem: regression.Problem, setting: settings.RunSettings, trajectory: trajectories.Trajectory, run: int
) -> np.ndarray:
    """Eq. (21)'s alpha of a run, from its loss log."""
    return theory.effective_alpha(
        setting.initial[run, 0, 0],
        problem.features,
        setting.step_size[run],
        setting.noise_scale[run],
        trajectory.loss_integral[-1, run],
        setting.batch_size,
    )


def unstable(data_seed: int, *, noise_scale: float = 0.5, relative_step: float = PAPER_STEP, **options: Any) -> Line:
    """Whether the steps linearized at beta* are unstable in mean square: under SGD, and under Noisy-SGD.

    Args:
        data_seed: of `regression.sparse`.
        noise_scale: sigma. Defaults to 0.5.
        relative_step: gamma lambda_max. Defaults to the paper's.
        **options: of `regression.sparse`.

    Returns:
        Booleans `unstable_sgd` and `unstable_noisy_sgd`.
    """
    problem = regression.sparse(data_seed, **options)
    step = relative_step / problem.largest_eigenvalue
    return {
        f"unstable_{name}": bool(linear_stability.contraction(problem.features, problem.solution, step, noise) >= 1)
        for name, noise in (("sgd", 0.0), ("noisy_sgd", noise_scale))
    }


def measure(
    problem: regression.Problem,
    *,
    with_descent: bool = True,
    with_limits: bool = False,
    **options: Any,
) -> tuple[Lines, Line]:
    """The numbers behind one figure: the lines of a run directory's metrics.jsonl, and its results.

    Args:
        problem: a `regression.Problem`.
        with_descent: whether to run gradient descent beside SGD and Noisy-SGD. Defaults to True.
        with_limits: whether to compute `limits`, by a few Newton iterations per run. Defaults to False.
        **options: of `train`.

    Returns:
        A list of lines (`curves`), and the results: `finals`, and `limits` where asked for.
    """
    trained = [train(problem, **options)]
    if with_descent:
        trained.append(train(problem, **options | {"noise_scales": (0.0,), "num_runs": 1, "batch_size": None}))
    results = {"finals": [line for pair in trained for line in finals(problem, *pair)]}
    if with_limits:
        results["limits"] = limits(problem, *trained[0])
    return [line for pair in trained for line in curves(*pair)], results


def gradient_descent_limit(
    problem: regression.Problem,
    *,
    alpha: float = 0.1,
    relative_step: float = 0.003,
    num_steps: int = 500_000,
) -> Line:
    """Distance of gradient descent's end to the mirror map's minimizer, relative to its norm; of order gamma."""
    setting, trajectory = train(
        problem,
        noise_scales=(0.0,),
        relative_steps=(relative_step,),
        num_runs=1,
        num_steps=num_steps,
        alpha=alpha,
        batch_size=None,
        grid=[num_steps],
    )
    limit = mirror_map.minimizer(problem.features, problem.targets, alpha)
    error = np.linalg.norm(setting.predictor(trajectory.weights)[0] - limit) / np.linalg.norm(limit)
    return {"relative_step": relative_step, "num_steps": num_steps, "relative_error": error}


def weight_product(
    problem: regression.Problem,
    *,
    noise_scale: float = 0.5,
    relative_step: float = PAPER_STEP,
    num_runs: int = 5,
    num_steps: int = 500,
    alpha: float = 0.1,
    seed: int = 0,
) -> Line:
    """The identity |w+ w-| = alpha^2 prod |1 - a^2|, by the map of eq. (18) written out: its largest relative error."""
    weights, log_product = np.full((num_runs, 2, problem.features.shape[1]), alpha), 2 * np.log(alpha)
    generator = keys.generator(seed, "noise")
    with np.errstate(all="ignore"):  # a run that diverges overflows; it is not counted
        for _ in range(num_steps):
            a = theory.relative_step(
                weights,
                problem.features,
                problem.targets,
                relative_step / problem.largest_eigenvalue,
                noise_scale,
                generator.integers(len(problem.targets), size=(num_runs, 1)),
                generator.standard_normal((num_runs, weights.shape[-1])),
            )
            weights = theory.update(weights, a)
            log_product = log_product + np.log(np.abs(1 - a**2))
        error = np.abs(np.expm1(2 * np.log(theory.effective_alpha_from_weights(weights)) - log_product))
    finite = np.isfinite(error).all(axis=1)
    return {"num_runs": int(finite.sum()), "num_steps": num_steps, "relative_error": error[finite].max()}


def compare(
    data_seed: int,
    *,
    noise_scale: float = 0.5,
    relative_step: float = PAPER_STEP,
    num_runs: int = 5,
    num_steps: int = 30_000,
    **options: Any,
) -> Line:
    """One data set under gradient descent, SGD and Noisy-SGD (figure 3): one line.

    Args:
        data_seed: of `regression.sparse`, and of sampling and noise.
        noise_scale: sigma. Defaults to 0.5.
        relative_step: gamma lambda_max. Defaults to the paper's.
        num_runs: of SGD and of Noisy-SGD. Defaults to 5.
        num_steps: Defaults to 30,000.
        **options: of `regression.sparse`.

    Returns:
        Final squared distances: a number for "gd", a list with NaN for diverged runs for "sgd" and "noisy_sgd"; and
        what `unstable` says.
    """
    problem = regression.sparse(data_seed, **options)
    shared = {"relative_steps": (relative_step,), "num_steps": num_steps, "seed": data_seed, "grid": [num_steps]}
    _, descent = train(problem, noise_scales=(0.0,), num_runs=1, batch_size=None, **shared)
    _, noisy = train(problem, noise_scales=(0.0, noise_scale), num_runs=num_runs, **shared)
    distances = noisy.squared_distance[-1]
    return {
        "data_seed": data_seed,
        "relative_step": relative_step,
        "noise_scale": noise_scale,
        **unstable(data_seed, noise_scale=noise_scale, relative_step=relative_step, **options),
        "gd": descent.squared_distance[-1, 0],
        "sgd": distances[:num_runs].tolist(),
        "noisy_sgd": distances[num_runs:].tolist(),
    }


def order(lines: Lines) -> Line:
    """Figure 3's order GD > SGD > Noisy-SGD over data sets, by medians over runs: among survivors, and with divergence
    as a loss.

    Args:
        lines: of `compare`.

    Returns:
        Counts: of data sets, of those with survivors of both algorithms, of those in order; of those on which
        Noisy-SGD wins against SGD, or loses, with divergence as a loss; of diverged runs.
    """
    survivors = [line for line in lines if np.isfinite(line["sgd"]).any() and np.isfinite(line["noisy_sgd"]).any()]

    def in_order(line, median):
        return bool(line["gd"] > median(line["sgd"]) > median(line["noisy_sgd"]))

    def with_losses(values):
        return np.median(np.nan_to_num(values, nan=np.inf))

    def total(name):
        return sum(int(np.isnan(line[name]).sum()) for line in lines)

    judged = [[with_losses(line[name]) for line in lines] for name in ("noisy_sgd", "sgd")]
    return {
        "data_sets": len(lines),
        "data_sets_with_survivors": len(survivors),
        "in_order": sum(in_order(line, np.nanmedian) for line in survivors),
        "noisy_better_than_sgd": sum(np.nanmedian(line["noisy_sgd"]) < np.nanmedian(line["sgd"]) for line in survivors),
        "in_order_divergence_lost": sum(in_order(line, with_losses) for line in lines),
        "noisy_wins": sum(noisy < plain for noisy, plain in zip(*judged, strict=True)),
        "noisy_losses": sum(noisy > plain for noisy, plain in zip(*judged, strict=True)),
        "runs_each": len(lines[0]["sgd"]),
        "diverged_sgd": total("sgd"),
        "diverged_noisy_sgd": total("noisy_sgd"),
        **{
            f"median_{name}": np.median([np.nanmedian(line[name]) for line in survivors]) if survivors else np.nan
            for name in ("gd", "sgd", "noisy_sgd")
        },
    }


def trend(noise_scales: Sequence[float], values: Sequence[float]) -> Line:
    """Whether values rise with the noise: Spearman's rank correlation over runs, and its one-sided p.

    Args:
        noise_scales: one per run.
        values: one per run; NaN is left out.

    Returns:
        Correlation, p and the number of runs.
    """
    noise_scales, values = np.asarray(noise_scales, np.float64), np.asarray(values, np.float64)
    finite = np.isfinite(values)
    found = stats.spearmanr(noise_scales[finite], values[finite], alternative="greater")
    return {"correlation": float(found.statistic), "p": float(found.pvalue), "num_runs": int(finite.sum())}


def _name(setting, run):
    if setting.noise_scale[run]:
        return "noisy_sgd"
    return "gd" if setting.batch_size is None else "sgd"
