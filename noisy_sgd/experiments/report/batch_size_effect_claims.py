"""The rows of Figure 1, controlled: whether accuracy falls with the batch size, and what noise and clipping change.

Written before the final runs. The learning rate is chosen per arm, one for all batch sizes; the weights are averaged.
"falls" is Page's trend test over the seeds, adjusted by Holm over all arms of a record, at the level 0.05. "The same"
is two one-sided tests at 0.05 within 0.1 points per doubling.

    claims.judge(batch_size_effect_claims.CLAIMS, pathlib.Path("results"))
"""

from collections.abc import Callable

from noisy_sgd import records, statistics
from noisy_sgd.experiments.report import claims
from noisy_sgd.figures import batch_size_effect as figures

EXPERIMENT = "batch_size_effect"
LEVEL, MARGIN = 0.05, 0.1
_RULE, _WEIGHTS = "per_arm", "ema_accuracy"


def falls(name: str) -> Callable[[records.Record], claims.Outcome | None]:
    """Whether an arm falls with the batch size, at every bound of the record."""

    def measure(record: records.Record) -> claims.Outcome | None:
        found = figures.accuracies(record, _RULE, _WEIGHTS)
        arms = list(found)
        if any(len(by_seed) < 5 for by_seed in found.values()):
            return None
        tables = [[[by[size] for size in sorted(by)] for by in found[arm].values()] for arm in arms]
        adjusted = dict(zip(arms, statistics.holm([statistics.falls(table) for table in tables]), strict=True))
        own = [arm for arm in arms if arm[0] == name]
        parts = []
        for arm in own:
            slope = statistics.estimate(list(figures.slopes(found[arm]).values()))
            bound = "" if arm[1] is None else f"C = {arm[1]:g}: "
            parts.append(f"{bound}{_interval(slope)} points per doubling, p = {adjusted[arm]:.2g}")
        here = f"{'; '.join(parts)}; {slope.count} seeds of {record.config['dataset']}"
        return claims.Outcome(here=here, reached=all(adjusted[arm] < LEVEL for arm in own))

    return measure


def same(first: str, second: str) -> Callable[[records.Record], claims.Outcome | None]:
    """Whether two arms have the same slope, at every bound of the record."""

    def measure(record: records.Record) -> claims.Outcome | None:
        found = figures.accuracies(record, _RULE, _WEIGHTS)
        bounds = sorted({bound for name, bound in found if name == first and bound is not None}) or [None]
        parts, equal = [], []
        for bound in bounds:
            slopes = [
                figures.slopes(found[name, bound if (name, bound) in found else None]) for name in (first, second)
            ]
            differences = [slopes[0][seed] - slopes[1][seed] for seed in slopes[0]]
            if len(differences) < 5:
                return None
            at = "" if bound is None else f"C = {bound:g}: "
            parts.append(f"{at}{_interval(statistics.estimate(differences))}")
            equal.append(statistics.equivalent(differences, MARGIN, LEVEL))
        seeds = f"{len(differences)} seeds of {record.config['dataset']}"
        here = f"difference of the slopes {'; '.join(parts)} points per doubling; {seeds}"
        return claims.Outcome(here=here, reached=all(equal))

    return measure


def _interval(found: statistics.Estimate) -> str:
    return f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"


_SETTINGS = {
    "quick": "MNIST where it can be loaded and otherwise digits, clean labels, perceptron",
    "mnist": "MNIST, clean labels, perceptron",
    "digits": "digits, clean labels, perceptron",
    "digits_wrong_labels": "digits, 40 % wrong labels, perceptron",
    "cnn": "MNIST, convolutional network",
    "nf_resnet": "MNIST, small NF-ResNet",
    "wide_resnet": "MNIST, WRN-10-1",
    "vision_transformer": "MNIST, small vision transformer",
    "hinge": "MNIST, perceptron, multiclass hinge loss",
    "mnist_correlated": "MNIST, clean labels, perceptron, noise Z_k - 0.9 Z_(k-1)",
}
_PAPER = {
    "plain": "59.3 to 50.6 %, -2.9 per doubling (ImageNet, B = 128 to 1024)",
    "noise": "59.8 to 50.8 %, -3.0 per doubling (ImageNet, B = 128 to 1024)",
    "clip": "not run",
    "noise_clip": "49.1 to 43.2 %, -2.0 per doubling (ImageNet, B = 128 to 1024)",
}

CLAIMS = tuple(
    claim
    for name, words in _SETTINGS.items()
    for claim in (
        *(
            claims.of_run(
                f"{words}: {figures.LABELS[arm]} loses accuracy as the batch size doubles at fixed steps, its learning "
                "rate tuned (Page's trend test, Holm over the arms, p < 0.05)",
                paper,
                EXPERIMENT,
                name,
                falls(arm),
            )
            for arm, paper in _PAPER.items()
        ),
        claims.of_run(
            f"{words}: noise alone has the slope of SGD (within 0.1 points per doubling, two one-sided tests)",
            "-3.0 against -2.9 per doubling (ImageNet)",
            EXPERIMENT,
            name,
            same("noise", "plain"),
        ),
        claims.of_run(
            f"{words}: DP-SGD has the slope of clipping alone (within 0.1 points per doubling, two one-sided tests)",
            "not run: the paper has no arm that only clips",
            EXPERIMENT,
            name,
            same("noise_clip", "clip"),
        ),
        claims.of_run(
            f"{words}: DP-SGD has the slope of noise alone (within 0.1 points per doubling, two one-sided tests)",
            "-2.0 against -3.0 per doubling, at another noise and learning rate (ImageNet)",
            EXPERIMENT,
            name,
            same("noise_clip", "noise"),
        ),
    )
)
