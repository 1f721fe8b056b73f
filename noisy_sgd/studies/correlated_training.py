"""Does noise that is correlated over steps pay? Private training at equal epsilon, with and without amplification.

Four arms, each with the noise that the stated epsilon allows, at delta = 1e-5:

    poisson       independent noise on Poisson-sampled batches, with amplification by sampling
    shuffled      independent noise on shuffled batches, without amplification
    two_draws     cyclic batches, noise Z_k - lambda Z_(k-1) with the lambda of `CorrelatedNoise.best`
    many_draws    cyclic batches, the best noise of at most `draws` draws per step

All arms take the same number of steps and the same bound on the gradients. Learning rates are chosen per arm and
epsilon, by other seeds and other images than those of the final runs. The final seeds are those from 20 up: a first run
on others had at most eight draws, among which two are best, so that two arms were one; and a grid that ended too early.

    setting = Setting(num_seeds=5)
    lines = [{**case, **measure(setting, case)} for case in stages(setting)[0]([])]
    final_cases(setting, lines)
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from noisy_sgd import checks, privacy, sampling, statistics
from noisy_sgd.studies import verdicts
from noisy_sgd.studies.laboratory import images, settings, tuning

POISSON, SHUFFLED, TWO_DRAWS, MANY_DRAWS = ARMS = ("poisson", "shuffled", "two_draws", "many_draws")
_SAMPLED = {POISSON: "poisson", SHUFFLED: "shuffled", TWO_DRAWS: "cyclic", MANY_DRAWS: "cyclic"}
FIRST_SEED = 20
_DELTA = 1e-5

Line = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting(settings.Network, settings.Tuned):
    """What is trained, and how often; beside the images, the network and the loss.

    Attributes:
        epsilons: at delta = 1e-5.
        batch_size: B, expected under Poisson sampling.
        num_epochs: passes over the training set, ceil(N / B) steps each.
        l2_norm_clip: C.
        draws: the largest number of draws per step of "many_draws".
    """

    num_train_examples: int = 10_000
    epsilons: tuple[float, ...] = (1.0, 8.0)
    batch_size: int = 250
    num_epochs: int = 10
    l2_norm_clip: float = 1.0
    draws: int = 64
    learning_rates: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4)

    def __post_init__(self):
        super().__post_init__()
        distinct = len(set(self.epsilons)) == len(self.epsilons) > 0 and min(self.epsilons) > 0
        checks.require(distinct, "epsilons", "must list distinct numbers above 0", self.epsilons)
        checks.batch(self.batch_size, self.num_train_examples)
        checks.count("num_epochs", self.num_epochs)
        checks.count("draws", self.draws, least=2)
        checks.real("l2_norm_clip", self.l2_norm_clip, above=0)

    @property
    def groups(self) -> list[dict[str, Any]]:
        """Epsilon and arm of the runs that share a compiled step."""
        return [{"epsilon": epsilon, "arm": arm} for epsilon in self.epsilons for arm in ARMS]

    @property
    def num_steps(self) -> int:
        """Of every run."""
        return self.num_epochs * -(-self.num_train_examples // self.batch_size)


def stages(setting: Setting) -> list[Callable[[Sequence[Line]], list[dict[str, Any]]]]:
    """From the lines of the earlier stages to the cases of the next."""
    return [lambda lines: tuning.cases(setting, setting.groups), lambda lines: final_cases(setting, lines)]


def final_cases(setting: Setting, lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The runs that are judged, each group with its learning rate of the highest mean accuracy in the tuning runs."""
    return tuning.final_cases(setting, setting.groups, lines, _group, first_seed=FIRST_SEED)


def noise(setting: Setting, arm: str):
    """The recipe of an arm's noise; None for independent noise."""
    if arm in (POISSON, SHUFFLED):
        return None
    # Takes seconds to import; a command line is read without it.
    from noisy_sgd.mechanisms import correlated

    draws = 2 if arm == TWO_DRAWS else setting.draws
    return correlated.CorrelatedNoise.best(setting.num_steps, setting.num_epochs, draws=draws)


def noise_multiplier(setting: Setting, arm: str, epsilon: float) -> float:
    """Sigma, the scale of each draw, that the epsilon allows an arm."""
    return _noise_multiplier(dataclasses.replace(setting, data_dir=None), arm, epsilon)


def measure(setting: Setting, case: Mapping[str, Any]) -> dict[str, float]:
    """Trains one run, and evaluates it on the images for choosing or for judging."""
    data = images.of(setting, case["seed"])
    trainer = _trainer(setting, *_group(case))
    trainer.start(data.train.images, data.train.labels, seed=case["seed"], learning_rate=case["learning_rate"])
    trainer.advance(setting.num_steps)
    test = data.chosen if case["stage"] == tuning.TUNING else data.judged
    return {"accuracy": trainer.evaluate(test.images, test.labels).accuracy}


def summary(setting: Setting, lines: Sequence[Line]) -> dict[str, Any]:
    """The noise of every arm, its accuracy with a 95 % interval, and the judged rows; in points.

    The rules, written before the final runs, each at every epsilon: correlated noise with two draws, and with many,
    beats independent noise without amplification. Many draws beat two. Many draws beat independent noise with
    amplification, at the largest epsilon; and independent noise with amplification beats many draws, at the smallest.
    """
    smallest, largest = min(setting.epsilons), max(setting.epsilons)

    def better(one: str, other: str, epsilons=setting.epsilons) -> dict[str, np.ndarray]:
        return {
            f"epsilon {epsilon:g}": 100 * (_by_seed(lines, epsilon, one) - _by_seed(lines, epsilon, other))
            for epsilon in epsilons
        }

    rows = [
        verdicts.Row("two_draws_over_shuffled", better(TWO_DRAWS, SHUFFLED)),
        verdicts.Row("many_draws_over_shuffled", better(MANY_DRAWS, SHUFFLED)),
        verdicts.Row("many_draws_over_two", better(MANY_DRAWS, TWO_DRAWS)),
        verdicts.Row("many_draws_over_poisson", better(MANY_DRAWS, POISSON, [largest])),
        verdicts.Row("poisson_over_many_draws", better(POISSON, MANY_DRAWS, [smallest])),
    ]
    table = []
    for group in setting.groups:
        epsilon, arm = _group(group)
        found, recipe = statistics.estimate(100 * _by_seed(lines, epsilon, arm)), noise(setting, arm)
        table.append(
            {
                **group,
                "noise_multiplier": noise_multiplier(setting, arm, epsilon),
                "coefficients": [1.0] if recipe is None else list(recipe.coefficients),
                "accuracy": found.mean,
                "low": found.low,
                "high": found.high,
                "seeds": found.count,
            }
        )
    return {"num_steps": setting.num_steps, "table": table, "rows": verdicts.judge(rows)}


def _by_seed(lines: Sequence[Line], epsilon: float, arm: str) -> np.ndarray:
    return tuning.by_seed(lines, _group, (epsilon, arm))


def _group(case: Mapping[str, Any]) -> tuple[float, str]:
    return case["epsilon"], case["arm"]


@functools.lru_cache
def _noise_multiplier(setting: Setting, arm: str, epsilon: float) -> float:
    return privacy.noise_multiplier_for(
        epsilon,
        setting.batch_size,
        setting.num_train_examples,
        setting.num_steps,
        _DELTA,
        sampling=_SAMPLED[arm],
        noise=noise(setting, arm),
    )


# A few trainers at a time: each holds a compiled step.
@functools.lru_cache(maxsize=4)
def _trainer(setting: Setting, epsilon: float, arm: str):
    # As above.
    from noisy_sgd.optimizers import sgd
    from noisy_sgd.studies.laboratory import losses, networks, training

    optimizer = sgd.DPSGD(
        1.0,
        setting.l2_norm_clip,
        noise_multiplier(setting, arm, epsilon),
        setting.batch_size,
        seed=0,
        noise=noise(setting, arm),
    )
    return training.Trainer(
        networks.builder(setting.network, images.of(setting, 0)),
        optimizer,
        batch_size=setting.batch_size,
        loss=losses.named(setting.loss),
        sampled=sampling.named(_SAMPLED[arm]),
    )
