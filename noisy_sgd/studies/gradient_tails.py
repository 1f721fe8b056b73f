"""The tails of Adam's update noise and of SGD's, at the same weights.

"Towards theoretically understanding why SGD generalizes better than Adam" (Zhou et al. 2020, arXiv 2010.05627) finds
that the noise of Adam's updates has lighter tails than that of SGD's, because Adam averages gradients. At weights w
along an SGD run, mini-batches are drawn again and again. The noise is what an update with batch gradients g_1, g_2,
..., all at w, has beside its mean:

    sgd         g_1
    average     (1 - b1) sum_j b1^j g_j                                  Adam's first moment, b1 = 0.9
    adam        the same over sqrt(v) + 1e-7, v the mean of g_j^2        its second moment in equilibrium at w

The noise is projected on random directions. Two estimators give the index of its tails, 2 for a Gaussian and less for
heavier tails: McCulloch's, from quantiles, for symmetric stable laws (1986), and Hill's, from the largest values, which
is compared with Gaussian samples of the same size. Both also see the control: Gaussian noise in place of projections.

    mcculloch(samples), hill(samples)      # samples [size, directions], centered; one index per direction

Rules, written before the final run: two rows, judged by `studies.verdicts` on each seed's mean over directions and
checkpoints. Adam's indices are larger than SGD's by both estimators, and McCulloch's index of the control is within
0.05 of 2. The second row says the same of the average without the division, which tells whose doing it is.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from noisy_sgd import keys
from noisy_sgd.optimizers import sgd
from noisy_sgd.studies import verdicts
from noisy_sgd.studies.laboratory import cases as laboratory_cases
from noisy_sgd.studies.laboratory import derivatives, training

KINDS = SGD, AVERAGE, ADAM, CONTROL = "sgd", "average", "adam", "control"
CONTROL_MARGIN = 0.05
TRAINED_WITH, LEARNING_RATE = 64, 0.1
NOISE_BATCH_SIZE = 16
NUM_DIRECTIONS, NUM_SAMPLES = 200, 4_000
CHECKPOINTS = (0.0, 0.02, 0.1, 0.4, 1.0)

_BETA_1, _EPSILON = 0.9, 1e-7
# Older gradients have less than 2 % of the average.
_BATCHES_AVERAGED = 40
# The share of the largest absolute values that Hill's estimator takes.
_HILL_SHARE = 0.05
# McCulloch 1986, Table III, symmetric laws: (95 % - 5 % quantile) / (75 % - 25 % quantile), and the index.
_SPREADS = (2.439, 2.5, 2.6, 2.7, 2.8, 3.0, 3.2, 3.5, 4.0, 5.0, 6.0, 8.0, 10.0, 15.0, 25.0)
_INDICES = (2.0, 1.916, 1.808, 1.729, 1.664, 1.563, 1.484, 1.391, 1.279, 1.128, 1.029, 0.896, 0.818, 0.698, 0.593)


def mcculloch(samples: np.ndarray) -> np.ndarray:
    """McCulloch's index of each column of centered samples [size, columns]; at most 2."""
    # Of a symmetric law, the quantiles of absolute values.
    middle, outer = np.quantile(np.abs(samples), (0.5, 0.9), axis=0)
    return np.interp(outer / middle, _SPREADS, _INDICES)


def hill(samples: np.ndarray) -> np.ndarray:
    """Hill's index of each column of centered samples [size, columns], from the largest 5 % of the absolute values."""
    kept = max(1, round(_HILL_SHARE * len(samples)))
    largest = np.sort(np.abs(samples), axis=0)[-kept - 1 :]
    return 1 / np.mean(np.log(largest[1:] / largest[0]), axis=0)


def update_noise(
    gradients: np.ndarray, directions: np.ndarray, key: tuple[int, int], step: int
) -> dict[str, np.ndarray]:
    """Projections of each kind of noise, centered, [NUM_SAMPLES, directions].

    Args:
        gradients: one per example, [n, number of weights].
        directions: [number of weights, directions].
        key: of the draws of batches, with replacement, and of the control; see `keys.derive`.
        step: makes the draws of this step.
    """
    random = keys.stream(key, step, 1)
    mean = gradients.mean(axis=0)
    # The mean of g_j^2 over batches: the square of its mean, and its variance.
    second_moment = mean**2 + gradients.var(axis=0) / NOISE_BATCH_SIZE
    centered = gradients - mean
    plain = centered @ directions
    scaled = centered @ (directions / (np.sqrt(second_moment) + _EPSILON)[:, None])
    shares = (1 - _BETA_1) * _BETA_1 ** np.arange(_BATCHES_AVERAGED)
    one_batch = _weights_of_examples(random, np.ones(1), len(gradients))
    averaged = _weights_of_examples(random, shares, len(gradients))
    return {
        SGD: one_batch @ plain,
        AVERAGE: averaged @ plain,
        ADAM: averaged @ scaled,
        CONTROL: random.standard_normal((NUM_SAMPLES, directions.shape[1])),
    }


def cases(*, num_seeds: int, **common: Any) -> list[dict[str, Any]]:
    """One case per seed; `common` is dataset, network, num_train_examples and num_steps."""
    return [{**common, "seed": seed} for seed in range(num_seeds)]


def measure(case: Mapping[str, Any], data_dir: str | None = None) -> dict[str, Any]:
    """Trains one run, and looks at the tails of the noise at its checkpoints.

    Returns:
        `points`, each with `step`, `train_loss`, and by kind of noise `mcculloch` and `hill`, means over directions.
    """
    data = laboratory_cases.load(case, data_dir)
    common = ("dataset", "network", "num_train_examples")
    trainer, compiled = _trainer(tuple((name, case[name]) for name in common), data_dir)
    train = data.train
    trainer.start(train.images, train.labels, seed=case["seed"], learning_rate=LEARNING_RATE)
    key, points = keys.derive(case["seed"], "synthetic data"), []
    for share in CHECKPOINTS:
        trainer.advance(round(share * case["num_steps"]) - trainer.step)
        gradients = compiled.gradients(train.images, train.labels)
        directions = keys.stream(key, trainer.step, 0).standard_normal((gradients.shape[1], NUM_DIRECTIONS), np.float32)
        noise = update_noise(gradients, directions, key, trainer.step)
        points.append(
            {
                "step": trainer.step,
                "train_loss": trainer.evaluate(train.images, train.labels).loss,
                "mcculloch": {kind: float(mcculloch(noise[kind]).mean()) for kind in KINDS},
                "hill": {kind: float(hill(noise[kind]).mean()) for kind in KINDS},
            }
        )
    return {"points": points}


def rows(lines: Sequence[Mapping[str, Any]]) -> list[verdicts.Row]:
    """The two rows."""

    def means(index, kind):
        return np.array([np.mean([point[index][kind] for point in line["points"]]) for line in lines])

    control = verdicts.equal(means("mcculloch", CONTROL) - 2, CONTROL_MARGIN, "(control - 2)")
    return [
        verdicts.Row(
            f"{kind}_has_lighter_tails",
            {
                "McCulloch": means("mcculloch", kind) - means("mcculloch", SGD),
                "Hill": means("hill", kind) - means("hill", SGD),
                **control,
            },
        )
        for kind in (ADAM, AVERAGE)
    ]


def summarize(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The results of a record: its judged `rows`, and by index the `means` over seeds and checkpoints of every kind."""
    points = [point for line in lines for point in line["points"]]
    means = {
        index: {kind: float(np.mean([point[index][kind] for point in points])) for kind in KINDS}
        for index in ("mcculloch", "hill")
    }
    return {"rows": verdicts.judge(rows(lines)), "means": means}


def _weights_of_examples(random, shares, num_examples):
    """How much each example's gradient counts in each sample: [NUM_SAMPLES, num_examples], rows of sum(shares)."""
    weights = np.zeros((NUM_SAMPLES, num_examples), np.float32)
    rows = np.arange(NUM_SAMPLES)[:, None]
    for share in shares:
        drawn = random.integers(num_examples, size=(NUM_SAMPLES, NOISE_BATCH_SIZE))
        np.add.at(weights, (rows, drawn), np.float32(share / NOISE_BATCH_SIZE))
    return weights


@functools.lru_cache(maxsize=1)
def _trainer(fields, data_dir):
    case = dict(fields)
    build = laboratory_cases.builder({**case, "seed": 0}, data_dir)
    batch_size = min(TRAINED_WITH, case["num_train_examples"])
    trainer = training.Trainer(build, sgd.NoisySGD(1.0, 0.0, seed=0), batch_size=batch_size)
    return trainer, derivatives.Derivatives(trainer.model)
