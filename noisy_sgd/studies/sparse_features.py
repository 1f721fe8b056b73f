"""Do large steps learn sparse features? SGD on diagonal networks, large steps first and small ones after them.

Andriushchenko, Varre, Pillaud-Vivien and Flammarion (2023, arXiv 2210.05337): the longer large steps keep SGD at a high
loss, the sparser is what it finds when the steps become small. On the paper's sparse regressions the question has a
number, the squared distance to the sparse beta* after the small steps.

    line = measure({"data_seed": 100, "num_runs": 5, "num_steps": 60_000})
    line["squared_distance"]       # by length of the phase of large steps; medians, diverged runs infinitely far
    summary([line])

Rules, written before the final run: the distance falls from length to length by Page's trend test over 32 data sets, a
diverged run infinitely far, p < 0.01; the same among the lengths above 0 alone is a second row, after Holm's adjustment
for the two. The data sets are those from 100 up: others served to choose settings.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from noisy_sgd import statistics
from noisy_sgd.data import regression
from noisy_sgd.sde import diagonal_linear as theory
from noisy_sgd.toy import settings, simulation

Line = dict[str, Any]
Lines = list[Line]

FIRST_DATA_SEED = 100
# gamma lambda_max of the two phases, and how many steps the first one has.
LARGE, SMALL = 0.7, 0.05
LENGTHS = (0, 1_000, 10_000, 30_000)
DEFAULT_STEPS = 60_000
LEVEL = 0.01
_ALPHA = 0.1


def measure(case: Mapping[str, int]) -> Line:
    """One data set: SGD's end after `num_steps` small steps, by the length of the phase of large steps before them.

    Args:
        case: `data_seed` of `regression.sparse`, sampling included; `num_runs` for each length; `num_steps` of the
            second phase. If it has fewer than 60,000 steps, the first phases are shorter in proportion.

    Returns:
        A line with lists over the `lengths`: medians over runs of `squared_distance` to beta*, diverged runs
        infinitely far, of the losses at both ends of the second phase (`first_loss`, `last_loss`) and of the geometric
        mean of the exact alpha at the end; `diverged` runs. NaN where a run is lost.
    """
    data_seed, num_runs, num_steps = (case[name] for name in ("data_seed", "num_runs", "num_steps"))
    problem = regression.sparse(data_seed)
    lengths = [round(length * min(1.0, num_steps / DEFAULT_STEPS)) for length in LENGTHS]
    options = {"model": "diagonal_linear", "features": problem.features, "targets": problem.targets}
    first = settings.RunSettings(
        **options, num_runs=num_runs, step_size=LARGE / problem.largest_eigenvalue, initial=_ALPHA
    )
    # All lengths have the same draws: a longer phase continues a shorter one.
    phases = [simulation.simulate(first, length, 2 * data_seed, grid=[length]) for length in lengths if length]
    states = [phase.weights for phase in phases]
    if len(states) < len(lengths):
        states.insert(0, first.initial)
    second = settings.RunSettings(
        **options,
        num_runs=num_runs * len(lengths),
        step_size=SMALL / problem.largest_eigenvalue,
        initial=np.concatenate(states),
    )
    trajectory = simulation.simulate(
        second, num_steps, 2 * data_seed + 1, reference=problem.solution, grid=[0, num_steps]
    )
    shape = (len(lengths), num_runs)
    distances = trajectory.squared_distance[-1].reshape(shape)
    alphas = np.exp(np.mean(np.log(theory.effective_alpha_from_weights(trajectory.weights)), axis=-1))
    return {
        "lengths": lengths,
        "squared_distance": np.median(np.nan_to_num(distances, nan=np.inf), axis=1).tolist(),
        "diverged": np.isnan(distances).sum(axis=1).tolist(),
        "first_loss": np.median(trajectory.loss[0].reshape(shape), axis=1).tolist(),
        "last_loss": np.median(trajectory.loss[-1].reshape(shape), axis=1).tolist(),
        "alpha": np.median(alphas.reshape(shape), axis=1).tolist(),
    }


def summary(lines: Lines) -> Line:
    """Page's trend test over all lengths, and over those above 0.

    Args:
        lines: of `measure`, in which null is a data set most of whose runs diverged.

    Returns:
        `p` of the trend over all lengths and over those above 0 (`p_above_0`), adjusted by Holm's method; medians over
        data sets of distance, alpha and losses by length; diverged and all runs by length.
    """
    distances = np.array([[np.inf if one is None else one for one in line["squared_distance"]] for line in lines])
    p, p_above_0 = statistics.holm([statistics.falls(distances), statistics.falls(distances[:, 1:])])
    return {
        "data_sets": len(lines),
        "lengths": lines[0]["lengths"],
        "p": p,
        "p_above_0": p_above_0,
        "squared_distance": np.median(distances, axis=0).tolist(),
        "nearer_than_without": np.sum(distances[:, 1:] < distances[:, :1], axis=0).tolist(),
        **{
            key: np.nanmedian(np.array([line[key] for line in lines], np.float64), axis=0).tolist()
            for key in ("alpha", "first_loss", "last_loss")
        },
        "diverged": np.sum([line["diverged"] for line in lines], axis=0).tolist(),
        "runs": sum(line["num_runs"] for line in lines),
    }
