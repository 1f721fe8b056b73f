"""Does noise that is correlated over steps amplify the implicit bias without tilting it? Diagonal linear networks.

Noise Z_k - lambda Z_(k-1) in place of eq. (18)'s Z_k keeps the noise's quadratic variation, which shrinks alpha, and
takes back most of its sum, which is the tilt r_inf (`noisy_sgd.sde.correlated_noise`). The arms:

    independent       lambda = 0, over a grid of sigma; sigma = 0 is SGD
    equal             lambda, scaled to the variance sigma^2 of a single step, sigma = 0.5
    nominal           lambda, scaled by (1 - lambda^2)^(-1/2): the sensitivity of a single participation. The variance
                      of a step is then sigma^2 (1 + lambda^2) / (1 - lambda^2), 9.5 sigma^2 at 0.9
    same_variance     independent noise with that variance: is it the correlation, or only more noise?
    tuned             lambda = 0.9 at the best scale of each draw, chosen on other data sets

Nothing is clipped, so that none of this is private: the scaling is that of a private run and no more. All arms of a run
share their draws and their examples.

    lines = [measure(case) for case in tuning_cases(2, 3, 1000)]
    lines += [measure(case) for case in final_cases(2, 3, 1000, best_scales(lines))]
    summary(lines)

Rules, written before the final run, at alpha = 0.1, gamma lambda_max = 0.385 and lambda = 0.9, over 20 data sets. A
data set counts by the median over its runs of the squared distance to beta*, a diverged run infinitely far; an equal
pair is lost. "Wins" are at least 16 of 20 (one-sided sign test, p = 0.006):

    rows 1 to 3   "nominal" wins in distance over SGD, over "same_variance", and over the best independent noise, whose
                  sigma is chosen on other data sets
    row 4         "tuned" wins in distance over the best independent noise
    row 5         at equal variance of a step ("equal" against "independent" at 0.5) |r_inf| is smaller (wins), at an
                  alpha whose geometric mean is the same within a factor of 1.1 in the median
    row 6         at equal alpha: |r_inf| of "nominal" is smaller (wins) than that of independent noise at the sigma
                  that gives the same geometric mean of alpha, between the sigmas of the grid (log |r_inf| linear in
                  log alpha); lost where the grid does not reach that alpha
    row 7         eq. (21) with the variance of a step gives the exact alpha of "nominal" within a factor of 1.1, in the
                  median

The data sets are those from 300 up; scales are chosen on those from 1300 up. Others served to explore.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from noisy_sgd.data import regression
from noisy_sgd.sde import correlated_noise as theory
from noisy_sgd.sde import diagonal_linear
from noisy_sgd.toy import draws, settings, simulation

Line = dict[str, Any]
Lines = Sequence[Mapping[str, Any]]

FIRST_DATA_SEED, FIRST_TUNING_SEED = 300, 1300
LAMBDAS = (0.5, 0.9, 0.99)
RELATIVE_STEPS = (0.1, 0.2, 0.385, 0.5, 0.6, 0.77)
ALPHAS = (0.1, 0.01)
NOISE_SCALE = 0.5
SIGMAS = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75, 1.0, 1.5, 2.0)
# Of each draw of "tuned".
SCALES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
# What the rows judge.
ALPHA, STEP, LAMBDA = 0.1, 0.385, 0.9
LEAST_SHARE = 16 / 20
LARGEST_FACTOR = 1.1
_MEASURED = ("squared_distance", "diverged", "geometric_alpha", "over_formula", "tilt_norm", "loss")


@dataclasses.dataclass(frozen=True)
class Arm:
    """One noise of a run.

    Attributes:
        kind: one of the arms above.
        value: lambda, also of the noise whose variance "same_variance" has; 0 for "independent".
        scale: of each draw.
    """

    kind: str
    value: float
    scale: float

    @property
    def coefficients(self) -> tuple[float, float]:
        """c_0 and c_1."""
        return (1.0, 0.0 if self.kind in ("independent", "same_variance") else -self.value)


def arms(tuned_scale: float = 1.0) -> list[Arm]:
    """All arms of the final runs at one step size; the scale of "tuned" is that of each draw."""
    found = [Arm("independent", 0.0, sigma) for sigma in SIGMAS]
    for value in LAMBDAS:
        nominal = NOISE_SCALE / np.sqrt(1 - value**2)
        step = np.sqrt(1 + value**2)
        found += [
            Arm("equal", value, NOISE_SCALE / step),
            Arm("nominal", value, nominal),
            Arm("same_variance", value, nominal * step),
        ]
    return [*found, Arm("tuned", LAMBDA, tuned_scale)]


def _tuning_arms() -> list[Arm]:
    return [Arm("independent", 0.0, sigma) for sigma in SIGMAS] + [Arm("tuned", LAMBDA, scale) for scale in SCALES]


def tuning_cases(num_data_sets: int, num_runs: int, num_steps: int) -> list[Line]:
    """The runs by which scales are chosen, one case per data set and alpha."""
    sizes = {"num_runs": num_runs, "num_steps": num_steps}
    return [
        {"stage": "tuning", "data_seed": seed, "alpha": alpha, **sizes}
        for seed in range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + num_data_sets)
        for alpha in ALPHAS
    ]


def final_cases(num_data_sets: int, num_runs: int, num_steps: int, scales: Mapping[str, Any]) -> list[Line]:
    """The runs that are judged, one case per data set and alpha.

    Args:
        num_data_sets: from `FIRST_DATA_SEED` up.
        num_runs: of each arm.
        num_steps: of each run.
        scales: of `best_scales`.
    """
    sizes = {"num_runs": num_runs, "num_steps": num_steps}
    return [
        {"stage": "final", "data_seed": seed, "alpha": alpha, **sizes, **scales[f"{alpha:g}"]}
        for seed in range(FIRST_DATA_SEED, FIRST_DATA_SEED + num_data_sets)
        for alpha in ALPHAS
    ]


def best_scales(lines: Lines) -> dict[str, dict[str, list[float]]]:
    """For each alpha the scales with the least median over data sets of the distance to beta*, by step size.

    Args:
        lines: of `measure` on `tuning_cases`, with null for an infinite distance.

    Returns:
        `best_sigmas` of independent noise, and `tuned_scales` of each draw at lambda = 0.9.
    """
    found = {}
    for alpha in ALPHAS:
        here = [line for line in lines if line["stage"] == "tuning" and line["alpha"] == alpha]
        medians = np.median(_columns(here, len(_tuning_arms()))["squared_distance"], axis=0)
        independent, tuned = medians[:, : len(SIGMAS)], medians[:, len(SIGMAS) :]
        found[f"{alpha:g}"] = {
            "best_sigmas": [SIGMAS[place] for place in np.argmin(independent, axis=1)],
            "tuned_scales": [SCALES[place] for place in np.argmin(tuned, axis=1)],
        }
    return found


def measure(case: Mapping[str, Any]) -> Line:
    """One data set at one alpha: all arms at all step sizes, side by side.

    Args:
        case: of `tuning_cases` or `final_cases`.

    Returns:
        Lists over step sizes x arms: medians over runs of `squared_distance` to beta*, a diverged run infinitely far;
        `diverged` runs; and medians over the other runs, NaN if there is none, of the geometric mean of the exact alpha
        (`geometric_alpha`), of its ratio to eq. (21)'s (`over_formula`), of |r_inf| (`tilt_norm`) and of the `loss` at
        the end.
    """
    problem, runs, num_steps = regression.sparse(case["data_seed"]), case["num_runs"], case["num_steps"]
    if case["stage"] == "tuning":
        by_step = [_tuning_arms() for _ in RELATIVE_STEPS]
    else:
        by_step = [arms(scale) for scale in case["tuned_scales"]]
    flat = [
        (step, arm) for step, listed in zip(RELATIVE_STEPS, by_step, strict=True) for arm in listed for _ in range(runs)
    ]
    setting = settings.RunSettings(
        model="diagonal_linear",
        features=problem.features,
        targets=problem.targets,
        num_runs=len(flat),
        step_size=np.array([step for step, _ in flat]) / problem.largest_eigenvalue,
        noise_scale=np.array([arm.scale for _, arm in flat]),
        noise_coefficients=np.array([arm.coefficients for _, arm in flat]),
        initial=case["alpha"],
    )
    trajectory = simulation.simulate(
        setting,
        num_steps,
        case["data_seed"],
        reference=problem.solution,
        grid=[num_steps],
        source=_Shared(setting, runs, case["data_seed"]),
    )
    lost = trajectory.diverged
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        exact = np.mean(np.log(diagonal_linear.effective_alpha_from_weights(trajectory.weights)), axis=-1)
        values = {
            "geometric_alpha": np.exp(exact),
            "over_formula": np.exp(exact - _log_formula(problem, setting, trajectory, case["alpha"])),
            "tilt_norm": np.linalg.norm(
                diagonal_linear.orthogonal_part(problem.features, np.nan_to_num(trajectory.accumulated_noise)), axis=-1
            ),
            "loss": trajectory.loss[-1],
        }
    distances = np.nan_to_num(trajectory.squared_distance[-1], nan=np.inf)
    found = {
        "squared_distance": np.median(distances.reshape(-1, runs), axis=1).tolist(),
        "diverged": lost.reshape(-1, runs).sum(axis=1).tolist(),
    }
    for name, value in values.items():
        found[name] = [_median(part) for part in np.where(lost, np.nan, value).reshape(-1, runs)]
    return found


def table(lines: Lines) -> list[Line]:
    """One line per alpha, step size and arm.

    Args:
        lines: of `measure`; those of the tuning are not read.

    Returns:
        Lines with medians over data sets (infinite where most are lost), the share of `diverged` runs, and on how many
        of `data_sets` the arm is nearer to beta* than SGD (`wins`), the best independent noise (`wins_best`) and
        independent noise of the same variance of a step (`wins_same_variance`, of "nominal" alone).
    """
    found = []
    for alpha, (place, step) in itertools.product(ALPHAS, enumerate(RELATIVE_STEPS)):
        here = _final(lines, alpha)
        if not here:
            continue
        listed = arms(here[0]["tuned_scales"][place])
        columns = {name: values[:, place] for name, values in _columns(here, len(listed)).items()}
        distances = columns["squared_distance"]
        best = SIGMAS.index(here[0]["best_sigmas"][place])
        for index, arm in enumerate(listed):
            wins = np.sum(distances[:, [index]] < distances, axis=0)
            rival = index + 1 if arm.kind == "nominal" else None
            found.append(
                {
                    "alpha": alpha,
                    "relative_step": step,
                    "arm": arm.kind,
                    "value": arm.value,
                    "scale": float(arm.scale),
                    "data_sets": len(here),
                    "squared_distance": float(np.median(distances[:, index])),
                    "diverged": float(columns["diverged"][:, index].sum() / (len(here) * here[0]["num_runs"])),
                    "wins": int(wins[0]),
                    "wins_best": int(wins[best]),
                    "wins_same_variance": None if rival is None else int(wins[rival]),
                    **{
                        name: _median(columns[name][:, index])
                        for name in ("geometric_alpha", "over_formula", "tilt_norm", "loss")
                    },
                }
            )
    return found


def tilts(lines: Lines) -> Line:
    """|r_inf| where the rows judge it: at equal variance of a step, and at equal alpha.

    Args:
        lines: of `measure`.

    Returns:
        `data_sets`; on how many |r_inf| is smaller at equal variance (`smaller_at_equal_variance`), the medians of its
        ratio and of that of alpha (`tilt_ratio`, `alpha_ratio`); on how many it is smaller at equal alpha
        (`smaller_at_equal_alpha`) of those where the grid of sigma reaches that alpha (`reached`), and the median ratio
        there (`tilt_ratio_at_equal_alpha`).
    """
    here, place, listed = _final(lines, ALPHA), RELATIVE_STEPS.index(STEP), arms()
    columns = {name: values[:, place] for name, values in _columns(here, len(listed)).items()}
    tilt, alpha = columns["tilt_norm"], columns["geometric_alpha"]
    kinds = [(arm.kind, arm.value) for arm in listed]
    equal, nominal = kinds.index(("equal", LAMBDA)), kinds.index(("nominal", LAMBDA))
    independent = SIGMAS.index(NOISE_SCALE)
    ratios = tilt[:, equal] / tilt[:, independent]
    at_equal_alpha = np.array(
        [
            one[nominal] / _tilt_at(alphas[nominal], alphas[1 : len(SIGMAS)], one[1 : len(SIGMAS)])
            for one, alphas in zip(tilt, alpha, strict=True)
        ]
    )
    return {
        "data_sets": len(here),
        "smaller_at_equal_variance": int(np.sum(ratios < 1)),
        "tilt_ratio": _median(ratios),
        "alpha_ratio": _median(alpha[:, equal] / alpha[:, independent]),
        "smaller_at_equal_alpha": int(np.sum(at_equal_alpha < 1)),
        "reached": int(np.isfinite(at_equal_alpha).sum()),
        "tilt_ratio_at_equal_alpha": _median(at_equal_alpha),
    }


def summary(lines: Lines) -> Line:
    """What the rows judge, with the chosen scales and the table of all arms.

    Args:
        lines: of `measure`, with null in place of infinity and NaN.
    """
    found = table(lines)
    judged = {
        line["arm"]: line
        for line in found
        if (line["alpha"], line["relative_step"], line["value"]) == (ALPHA, STEP, LAMBDA)
    }
    comparisons = [
        {
            "arm": arm,
            "rival": rival,
            "wins": judged[arm][key],
            "data_sets": judged[arm]["data_sets"],
            "p": float(stats.binomtest(judged[arm][key], judged[arm]["data_sets"], alternative="greater").pvalue),
        }
        for arm, rival, key in (
            ("nominal", "SGD", "wins"),
            ("nominal", "independent noise of the same variance", "wins_same_variance"),
            ("nominal", "the best independent noise", "wins_best"),
            ("tuned", "the best independent noise", "wins_best"),
        )
    ]
    return {
        "scales": best_scales(lines),
        "comparisons": comparisons,
        "tilts": tilts(lines),
        "over_formula": judged["nominal"]["over_formula"],
        "table": found,
    }


class _Shared:
    """Draws of a few runs, repeated for every arm and step size."""

    def __init__(self, setting: settings.RunSettings, runs: int, seed: int):
        self._copies = setting.num_runs // runs
        self._own = dataclasses.replace(setting.source(seed), num_runs=runs, normals_shape=(runs, setting.dimension))
        # The blocks of a few runs would be too large for all of them.
        self._parts = 8
        self.steps = self._own.steps // self._parts

    def __call__(self, block: int) -> draws.Block:
        """The draws of a block, a part of one of the runs' own blocks."""
        whole, part = divmod(block, self._parts)
        drawn = self._own(whole)
        rows = slice(part * self.steps, (part + 1) * self.steps)
        return draws.Block(
            indices=np.tile(drawn.indices[rows], (1, self._copies, 1)),
            normals=np.tile(drawn.normals[rows], (1, self._copies, 1)),
        )


def _final(lines: Lines, alpha: float) -> list[Mapping[str, Any]]:
    return [line for line in lines if line["stage"] == "final" and line["alpha"] == alpha]


def _columns(lines: Lines, count: int) -> dict[str, np.ndarray]:
    """What was measured, [data sets, step sizes, arms]; null is NaN, and for a distance infinity."""
    shape = (len(lines), len(RELATIVE_STEPS), count)
    found = {name: np.array([line[name] for line in lines], np.float64).reshape(shape) for name in _MEASURED}
    found["squared_distance"] = np.nan_to_num(found["squared_distance"], nan=np.inf)
    return found


def _tilt_at(alpha: float, alphas: np.ndarray, tilts: np.ndarray) -> float:
    """|r_inf| of independent noise at an alpha, log-linear between its sigmas; NaN where these do not reach it."""
    usable = np.isfinite(alphas) & np.isfinite(tilts) & (alphas > 0)
    if not usable.any() or not np.isfinite(alpha) or alpha <= 0:
        return float("nan")
    order = np.argsort(alphas[usable])
    known = np.log(alphas[usable][order])
    found = np.interp(np.log(alpha), known, np.log(tilts[usable][order]), left=np.nan, right=np.nan)
    return float(np.exp(found))


def _log_formula(problem, setting, trajectory, alpha) -> np.ndarray:
    """Mean logarithm of eq. (21)'s alpha with the variance of one step, [runs]."""
    found = np.full(setting.num_runs, np.nan)
    for run in np.flatnonzero(~trajectory.diverged):
        formula = theory.effective_alpha(
            alpha,
            problem.features,
            setting.step_size[run],
            setting.noise_scale[run],
            setting.noise_coefficients[run],
            trajectory.loss_integral[-1, run],
        )
        found[run] = np.mean(np.log(formula))
    return found


def _median(values) -> float:
    values = np.asarray(values, np.float64)
    values = values[np.isfinite(values)]
    return float(np.median(values)) if values.size else float("nan")
