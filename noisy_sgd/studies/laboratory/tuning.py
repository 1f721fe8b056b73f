"""How a study chooses learning rates: on a preset grid, by seeds and images that no final run has.

The lines of the runs that choose have the stage `TUNING`, those that are judged the stage `FINAL`.

    tuning.cases(setting, [{"optimizer": "dp_sgd"}])
    rates = tuning.means(lines, lambda line: line["optimizer"])     # optimizer -> learning rate -> mean accuracy
    max(rates["dp_sgd"], key=rates["dp_sgd"].get)
    tuning.final_cases(setting, [{"optimizer": "dp_sgd"}], lines, lambda line: line["optimizer"])
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from noisy_sgd.studies.laboratory import settings

TUNING, FINAL = "tuning", "final"

Line = Mapping[str, Any]


def cases(
    setting: settings.Tuned, groups: Sequence[Mapping[str, Any]], *, rate: str = "learning_rate"
) -> list[dict[str, Any]]:
    """The runs that choose: every group at every learning rate of the grid, for every tuning seed.

    Args:
        setting: with the grid and the seeds.
        groups: what has a learning rate of its own; neighbors should share a compiled step.
        rate: the name of the learning rate in a case. Defaults to "learning_rate".
    """
    return [
        {"stage": TUNING, **group, rate: learning_rate, "seed": seed}
        for group in groups
        for learning_rate in setting.learning_rates
        for seed in setting.tuning_seeds
    ]


def means(
    lines: Sequence[Line],
    group: Callable[[Line], Hashable],
    *,
    rate: str = "learning_rate",
    value: str = "accuracy",
) -> dict[Any, dict[float, float]]:
    """The mean over the tuning seeds of each group's value at each learning rate, in the order of the lines.

    Args:
        lines: of all stages; only those of the stage `TUNING` count.
        group: from a line to what has a learning rate of its own.
        rate: the name of the learning rate in a line. Defaults to "learning_rate".
        value: the name of the value. Defaults to "accuracy".
    """
    found: dict[Any, dict[float, list[float]]] = {}
    for line in lines:
        if line["stage"] == TUNING:
            found.setdefault(group(line), {}).setdefault(line[rate], []).append(line[value])
    return {key: {rate: float(np.mean(values)) for rate, values in by_rate.items()} for key, by_rate in found.items()}


def final_cases(
    setting: settings.Tuned,
    groups: Sequence[Mapping[str, Any]],
    lines: Sequence[Line],
    group: Callable[[Line], Hashable],
    *,
    first_seed: int = 0,
) -> list[dict[str, Any]]:
    """The runs that are judged, each group with its learning rate of the highest mean accuracy in the tuning runs.

    Args:
        setting: with the grid and the number of seeds.
        groups: as in `cases`.
        lines: of the tuning runs, at least.
        group: as in `means`.
        first_seed: the seeds are those from here up. Defaults to 0.
    """
    found = means(lines, group)
    return [
        {"stage": FINAL, **each, "learning_rate": max(setting.learning_rates, key=found[group(each)].get), "seed": seed}
        for each in groups
        for seed in range(first_seed, first_seed + setting.num_seeds)
    ]


def by_seed(
    lines: Sequence[Line], group: Callable[[Line], Hashable], chosen: Hashable, value: str = "accuracy"
) -> np.ndarray:
    """A value of the final runs of a group, in the order of the seeds.

    Args:
        lines: of all stages; only those of the stage `FINAL` count.
        group: as in `means`.
        chosen: the group.
        value: the name of the value. Defaults to "accuracy".
    """
    found = {line["seed"]: line[value] for line in lines if line["stage"] == FINAL and group(line) == chosen}
    return np.array([found[seed] for seed in sorted(found)])
