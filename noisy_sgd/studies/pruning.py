"""Does pruning before private training help DP-SGD? After Watson et al. 2023, "Inference and Interference".

The smallest weights of the hidden kernel are pruned before any private example is seen, and stay 0: the mask is applied
to the gradients before they are clipped, and to the noise (see `laboratory.masked`). The weights come from a random
initialization, or from a network trained on public images of other classes: digits 0 to 4 that are not in the private
training set, which has all ten. DP-SGD with Poisson sampling; epsilon is that of `noisy_sgd.privacy`, and is the same
for all fractions. Learning rates are chosen for each start, fraction, width and epsilon on a preset grid by other
seeds, on images on which nothing is judged, and at no charge to epsilon, like every comparison of tuned settings.

    setting = Setting(dataset="digits", num_steps=100, num_seeds=5)
    lines = []
    for stage in stages(setting):
        lines += [{**case, **measure(setting, case)} for case in stage(lines)]
    summary(setting, lines)["rows"]
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from noisy_sgd import privacy, sampling
from noisy_sgd.optimizers import sgd
from noisy_sgd.studies import verdicts
from noisy_sgd.studies.laboratory import arms, images, masked, networks, settings, training, tuning

RANDOM, PUBLIC = STARTS = ("random", "public")
# Heavy pruning, of which the claim says that it helps.
HEAVY = 0.9
PUBLIC_CLASSES = 5
PUBLIC_BATCH_SIZE = 64

Line = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting(settings.Tuned):
    """What is trained, and how often; beside the images.

    Attributes:
        num_public_examples: of the first classes, for the start from public weights; fewer where there are fewer.
        widths: units of the hidden layer.
        fractions: of the hidden kernel that are pruned; the first is 0.
        epsilons: of the private training, at `delta`. The rows are about the first, which all widths are measured at;
            the others are measured at the first width.
        delta: of all epsilons.
        batch_size: B, the expected size of a batch.
        l2_norm_clip: C.
        num_steps: of the private training.
        num_public_steps: of the training on public images, with SGD of `public_learning_rate`.
        public_learning_rate: likewise.
        ema_decay: of the weights' average, whose accuracy is recorded beside that of the last weights.
    """

    num_public_examples: int = 2_000
    widths: tuple[int, ...] = (128, 1024)
    fractions: tuple[float, ...] = (0.0, 0.5, 0.9, 0.95, 0.99)
    epsilons: tuple[float, ...] = (3.0, 1.0, 8.0)
    delta: float = 1e-5
    batch_size: int = 256
    l2_norm_clip: float = 1.0
    num_steps: int = 300
    num_public_steps: int = 500
    public_learning_rate: float = 0.1
    ema_decay: float = 0.98
    learning_rates: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)

    @property
    def points(self) -> list[tuple[float, int]]:
        """The pairs of epsilon and width that are measured."""
        first, *others = self.epsilons
        return [(first, width) for width in self.widths] + [(epsilon, self.widths[0]) for epsilon in others]

    def groups(self, epsilon: float, width: int) -> list[dict[str, Any]]:
        """What is compared at an epsilon and a width; neighbors share a compiled step."""
        return [
            {"epsilon": epsilon, "width": width, "fraction": fraction, "start": start}
            for fraction in self.fractions
            for start in STARTS
        ]


def stages(setting: Setting) -> list[functools.partial]:
    """From the lines of the earlier stages to the cases of the next: for each epsilon and width, tuning and judging."""
    return [
        functools.partial(cases, setting, epsilon, width)
        for epsilon, width in setting.points
        for cases in (_tuning_cases, _final_cases)
    ]


def _tuning_cases(setting: Setting, epsilon: float, width: int, lines: Sequence[Line]) -> list[dict[str, Any]]:
    return tuning.cases(setting, setting.groups(epsilon, width), rate="rate")


def _final_cases(setting: Setting, epsilon: float, width: int, lines: Sequence[Line]) -> list[dict[str, Any]]:
    chosen = _chosen(lines)
    return [
        {"stage": tuning.FINAL, **group, "rate": chosen[_group(group)][0], "seed": seed}
        for group in setting.groups(epsilon, width)
        for seed in range(setting.num_seeds)
    ]


def measure(setting: Setting, case: Mapping[str, Any]) -> dict[str, float]:
    """Prunes, trains privately, and evaluates on the images for choosing or for judging.

    Returns:
        `accuracy`, `averaged_accuracy` of the weights' average, `train_loss`, and `noise_multiplier`.
    """
    seed, width, fraction = case["seed"], case["width"], case["fraction"]
    data, trainer = images.of(setting, seed), _trainer(setting, case["epsilon"], width, fraction > 0)
    network = _network(setting, width, fraction > 0)(seed)
    source = masked.kernels(network) if case["start"] == RANDOM else _public_kernels(setting, width, seed)
    trainer.start(
        data.train.images,
        data.train.labels,
        seed=seed,
        learning_rate=case["rate"],
        weights=masked.pruned(network, source, fraction),
    )
    trainer.advance(setting.num_steps)
    test = data.chosen if case["stage"] == tuning.TUNING else data.judged
    last, fitted = trainer.evaluate(test.images, test.labels), trainer.evaluate(data.train.images, data.train.labels)
    with trainer.average.applied(trainer.model):
        averaged = trainer.evaluate(test.images, test.labels)
    return {
        "accuracy": last.accuracy,
        "averaged_accuracy": averaged.accuracy,
        "train_loss": fitted.loss,
        "noise_multiplier": noise_multiplier(setting, case["epsilon"]),
    }


@functools.cache
def noise_multiplier(setting: Setting, epsilon: float) -> float:
    """The noise multiplier that gives all runs this epsilon, whatever is pruned."""
    return privacy.noise_multiplier_for(
        epsilon, setting.batch_size, setting.num_train_examples, setting.num_steps, setting.delta, sampling="poisson"
    )


def summary(setting: Setting, lines: Sequence[Line]) -> dict[str, Any]:
    """The data set, the chosen learning rates, and the rows with their verdicts.

    The rows, on accuracies in points at the first epsilon:

        START, width W       some fraction of at least 0.9 less no pruning (any part)
        START, wider         the gain at the largest width less the gain at the smallest, each by the heavy fraction
                             with the highest accuracy on the tuning seeds
    """
    chosen, epsilon = _chosen(lines), setting.epsilons[0]
    heavy = [fraction for fraction in setting.fractions if fraction >= HEAVY]

    def gain(start, width, fraction):
        """Points gained over no pruning, seed by seed."""
        by_fraction, own = {}, (tuning.FINAL, epsilon, start, width)
        for line in lines:
            if (line["stage"], line["epsilon"], line["start"], line["width"]) == own:
                by_fraction.setdefault(line["fraction"], {})[line["seed"]] = 100 * line["accuracy"]
        return np.array([by_fraction[fraction][seed] - value for seed, value in sorted(by_fraction[0.0].items())])

    def best(start, width):
        return max(heavy, key=lambda fraction: chosen[epsilon, width, fraction, start][1])

    rows = []
    for start in STARTS:
        for width in setting.widths:
            parts = {f"{100 * fraction:g} % pruned": gain(start, width, fraction) for fraction in heavy}
            rows.append(verdicts.Row(f"{start}, width {width}", parts, verdicts.ANY))
        narrow, wide = min(setting.widths), max(setting.widths)
        more = gain(start, wide, best(start, wide)) - gain(start, narrow, best(start, narrow))
        part = f"{100 * best(start, wide):g} % at {wide} less {100 * best(start, narrow):g} % at {narrow}"
        rows.append(verdicts.Row(f"{start}, wider", {part: more}))
    return {
        "dataset": images.resolved(setting.dataset, setting.data_dir),
        "noise_multipliers": {f"{epsilon:g}": noise_multiplier(setting, epsilon) for epsilon in setting.epsilons},
        "rates": [
            {**group, "rate": chosen[_group(group)][0]} for point in setting.points for group in setting.groups(*point)
        ],
        "rows": verdicts.judge(rows),
    }


def _chosen(lines: Sequence[Line]) -> dict[tuple, tuple[float, float]]:
    """The learning rate with the highest mean accuracy, and that accuracy, for each group."""
    means = tuning.means(lines, _group, rate="rate")
    return {group: max(by_rate.items(), key=lambda pair: pair[1]) for group, by_rate in means.items()}


def _group(case: Mapping[str, Any]) -> tuple[float, int, float, str]:
    return case["epsilon"], case["width"], case["fraction"], case["start"]


def _network(setting: Setting, width: int, is_pruned: bool) -> networks.Builder:
    """The masked network; without pruning the ordinary one, so that it trains by ordinary DP-SGD."""
    data = images.of(setting, settings.FIRST_TUNING_SEED)
    return masked.builder(data, width=width) if is_pruned else networks.builder("mlp", data, width=width)


@functools.lru_cache(maxsize=64)
def _public_kernels(setting: Setting, width: int, seed: int) -> list[np.ndarray]:
    """The kernels after training on public images, from the initialization of the seed."""
    public = images.others(
        images.resolved(setting.dataset, setting.data_dir),
        seed,
        num_train_examples=setting.num_train_examples,
        num_examples=setting.num_public_examples,
        num_classes=PUBLIC_CLASSES,
        data_dir=setting.data_dir,
    )
    trainer = _public_trainer(setting, width)
    trainer.start(public.images, public.labels, seed=seed, learning_rate=setting.public_learning_rate)
    trainer.advance(setting.num_public_steps)
    return masked.kernels(trainer.model)


@functools.lru_cache(maxsize=1)
def _public_trainer(setting: Setting, width: int) -> training.Trainer:
    optimizer = arms.optimizer(arms.PLAIN, batch_size=PUBLIC_BATCH_SIZE, noise_std=0.0, l2_norm_clip=1.0)
    return training.Trainer(_network(setting, width, False), optimizer, batch_size=PUBLIC_BATCH_SIZE)


# The trainers of one width: with and without pruning. Each holds a compiled step.
@functools.lru_cache(maxsize=2)
def _trainer(setting: Setting, epsilon: float, width: int, is_pruned: bool) -> training.Trainer:
    return training.Trainer(
        _network(setting, width, is_pruned),
        sgd.DPSGD(1.0, setting.l2_norm_clip, noise_multiplier(setting, epsilon), setting.batch_size, seed=0),
        batch_size=setting.batch_size,
        sampled=sampling.Poisson,
        ema_decay=setting.ema_decay,
    )
