"""Small against large batches, each with its best learning rate: at equal steps, and at equal epochs.

"On the generalization benefit of noise in stochastic gradient descent" (Smith et al. 2020, arXiv 2006.15081) says that
small batches beat very large ones on test examples also when both take the same number of steps, although the large
batches then fit the training set better. Here the largest batch is the whole training set, so that its runs are
gradient descent. Two budgets are compared:

    steps     every batch size takes `num_steps` steps
    epochs    every batch size sees as many examples as the smallest one in `num_steps` steps

The learning rate of each batch size and budget is chosen on other seeds and other examples (`chosen`).

    first = tuning_cases((100,), dataset="digits", network="mlp", num_train_examples=200, num_steps=50)
    lines = [{**case, **measure(case)} for case in first]
    final_cases(lines, num_seeds=2)

Rules, written before the final run: two rows, judged by `studies.verdicts` on paired differences over seeds, smallest
batch minus largest. At equal steps both the test accuracy and the training loss of the smallest batch are higher. At
equal epochs its test accuracy is.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from noisy_sgd.optimizers import sgd
from noisy_sgd.studies import verdicts
from noisy_sgd.studies.laboratory import cases, training

STEPS, EPOCHS = BUDGETS = ("steps", "epochs")
SMALL_BATCH_SIZES = (16, 64, 256)
LEARNING_RATES = tuple(0.0125 * 2**power for power in range(7))


def batch_sizes(num_train_examples: int) -> tuple[int, ...]:
    """The batch sizes up to the whole training set."""
    return (*(size for size in SMALL_BATCH_SIZES if size < num_train_examples), num_train_examples)


def tuning_cases(seeds: Sequence[int], *, num_steps: int, **common: Any) -> list[dict[str, Any]]:
    """Every learning rate of every batch size and budget, for each seed; neighbors share a compiled step."""
    return [
        {**common, "tuning": True, **group, "learning_rate": rate, "seed": seed}
        for group in _groups(num_steps, common["num_train_examples"])
        for rate in LEARNING_RATES
        for seed in seeds
    ]


def final_cases(tuned: Sequence[Mapping[str, Any]], *, num_seeds: int) -> list[dict[str, Any]]:
    """The chosen learning rate of every batch size and budget, for the seeds of the final run.

    Args:
        tuned: the lines of the tuning cases.
        num_seeds: seeds of the final run, from 0 up.
    """
    rates = chosen_rates(tuned)
    groups = {(line["batch_size"], line["budget"]): line for line in tuned}
    measured = ("chosen_accuracy", "judged_accuracy", "train_loss", "train_accuracy")
    return [
        {
            **{name: value for name, value in line.items() if name not in measured},
            "tuning": False,
            "learning_rate": rates[group],
            "seed": seed,
        }
        for group, line in groups.items()
        for seed in range(num_seeds)
    ]


def chosen_rates(lines: Sequence[Mapping[str, Any]]) -> dict[tuple[int, str], float]:
    """The learning rate with the highest mean accuracy on the examples for choosing, by batch size and budget."""
    tuned = [line for line in lines if line["tuning"]]
    found = {}
    for group in dict.fromkeys((line["batch_size"], line["budget"]) for line in tuned):
        means = {rate: mean_accuracy(tuned, group, rate) for rate in LEARNING_RATES}
        found[group] = max(means, key=lambda rate: means[rate])
    return found


def mean_accuracy(lines: Sequence[Mapping[str, Any]], group: tuple[int, str], rate: float) -> float:
    """Mean accuracy of the tuning seeds on the examples for choosing."""
    values = [
        line["chosen_accuracy"]
        for line in lines
        if line["tuning"] and (line["batch_size"], line["budget"], line["learning_rate"]) == (*group, rate)
    ]
    return sum(values) / len(values)


def measure(case: Mapping[str, Any], data_dir: str | None = None) -> dict[str, Any]:
    """Trains one run.

    Returns:
        `chosen_accuracy`, `judged_accuracy`, `train_accuracy`, and `train_loss`, which is null if the run diverged.
    """
    data = cases.load(case, data_dir)
    common = ("dataset", "network", "num_train_examples", "batch_size")
    trainer = _trainer(tuple((name, case[name]) for name in common), data_dir)
    trainer.start(data.train.images, data.train.labels, seed=case["seed"], learning_rate=case["learning_rate"])
    trainer.advance(case["num_steps"])
    chosen, judged, train = (
        trainer.evaluate(part.images, part.labels) for part in (data.chosen, data.judged, data.train)
    )
    return {
        "chosen_accuracy": chosen.accuracy,
        "judged_accuracy": judged.accuracy,
        "train_accuracy": train.accuracy,
        "train_loss": train.loss,
    }


def rows(lines: Sequence[Mapping[str, Any]]) -> list[verdicts.Row]:
    """The two rows; accuracies in points."""
    final = [line for line in lines if not line["tuning"]]
    found = {(line["batch_size"], line["budget"], line["seed"]): line for line in final}
    sizes, seeds = ({line[name] for line in final} for name in ("batch_size", "seed"))

    def differences(budget, name, scale=1):
        pairs = [(found[min(sizes), budget, seed][name], found[max(sizes), budget, seed][name]) for seed in seeds]
        return [None if None in pair else scale * (pair[0] - pair[1]) for pair in pairs]

    return [
        verdicts.Row(
            "equal_steps",
            {
                "test accuracy (points)": differences(STEPS, "judged_accuracy", 100),
                "training loss": differences(STEPS, "train_loss"),
            },
        ),
        verdicts.Row("equal_epochs", {"test accuracy (points)": differences(EPOCHS, "judged_accuracy", 100)}),
    ]


def summarize(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The results of a record: its judged `rows`, and the `chosen` learning rates."""
    chosen = [
        {"batch_size": size, "budget": budget, "learning_rate": rate}
        for (size, budget), rate in chosen_rates(lines).items()
    ]
    return {"rows": verdicts.judge(rows(lines)), "chosen": chosen}


def _groups(num_steps, num_train_examples):
    sizes = batch_sizes(num_train_examples)
    return [
        {
            "batch_size": size,
            "budget": budget,
            "num_steps": num_steps if budget == STEPS else max(1, round(num_steps * sizes[0] / size)),
        }
        for size in sizes
        for budget in BUDGETS
    ]


@functools.lru_cache(maxsize=1)
def _trainer(fields, data_dir):
    case = dict(fields)
    build = cases.builder({**case, "seed": 0}, data_dir)
    return training.Trainer(build, sgd.NoisySGD(1.0, 0.0, seed=0), batch_size=case["batch_size"])
