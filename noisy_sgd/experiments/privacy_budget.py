"""What a privacy budget allows, before anything is trained; and what runs on the same data cost together.

    python -m noisy_sgd.experiments.privacy_budget --num_examples=60000 --epsilon=2 --num_steps=2000
    python -m noisy_sgd.experiments.privacy_budget --num_examples=60000 --epsilon=2 --num_steps=2000 --tries=20
    python -m noisy_sgd.experiments.privacy_budget --runs=runs/pre_training,runs/fine_tuning

The first prints the noise of each sensible batch size, and a `train` command with one of them. The second also prints
what a search of 20 such trainings costs. The third reads recorded DP-SGD runs.

The measurements are those of `studies.privacy_budget`.
"""

import contextlib
import dataclasses
import math
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from noisy_sgd import config, records
from noisy_sgd.experiments import flags
from noisy_sgd.experiments.flags import command_line
from noisy_sgd.experiments.support import recorded_measurement, toy_experiment
from noisy_sgd.figures import privacy_budget as figures
from noisy_sgd.privacy import accounting, composition, selection
from noisy_sgd.runs import composition as recorded
from noisy_sgd.studies import privacy_budget

# The training examples of the data sets that `train` reads.
_DATA_SETS = {"digits": 1437, "mnist": 60_000, "imagenet2012": 1_281_167}
_HELP = {
    "num_examples": "N, training examples",
    "epsilon": "the budget",
    "delta": "of the budget, or of all --runs together; by default a power of ten below 1 / N, or the sum of the runs'",
    "num_steps": "S, steps of the training",
    "sampling": command_line.one_of("how batches are drawn", config.SAMPLINGS),
    "accountant": command_line.one_of("the accountant", accounting.ACCOUNTANTS),
    "neighbors": command_line.one_of("what neighboring data sets differ by: one example", accounting.NEIGHBORS),
    "tries": "trainings of a hyper-parameter search, whose cost is printed too",
    "tries_distribution": command_line.one_of(
        "how a random number of tries, of which only the best is released, is drawn", selection.DISTRIBUTIONS
    ),
    "tries_shape": "eta of --tries_distribution=negative_binomial, above -1",
    "run_dir": "where the numbers are recorded",
}


@contextlib.contextmanager
def _naming_flags() -> Iterator[None]:
    """Turns the library's ValueError into one that names the flags of this binary."""
    try:
        yield
    except ValueError as error:
        raise config.ConfigError(re.sub("`(delta|epsilon|runs)`", r"`--\1`", str(error))) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(toy_experiment.Settings):
    """The budget, or the recorded runs.

    Attributes:
        num_examples: N.
        epsilon: the budget.
        delta: None for a power of ten below 1 / N.
        num_steps: S.
        batch_sizes: None for powers of two from N / 64 to N / 2.
        sampling: as in `noisy_sgd.privacy.epsilon`, like the two that follow.
        accountant: "pld" or "rdp".
        neighbors: "add_or_remove" or "replace_one".
        tries: of a search; None for no search.
        tries_distribution: of the number of tries.
        tries_shape: of "negative_binomial".
        runs: run directories to compose; if there are any, nothing else is done.
        run_dir: where it is recorded.
    """

    num_examples: int = 60_000
    epsilon: float = 2.0
    delta: float | None = None
    num_steps: int = 2000
    batch_sizes: tuple[int, ...] | None = None
    sampling: str = "poisson"
    accountant: str = "pld"
    neighbors: str = "add_or_remove"
    tries: int | None = None
    tries_distribution: str = "geometric"
    tries_shape: float | None = None
    runs: tuple[str, ...] = ()
    run_dir: str = "runs/privacy_budget"

    def __post_init__(self):
        delta, way_out = self.delta, "less than one over the number of examples is usual"
        config.require(delta is None or 0 < delta < 1, "delta", "must lie between 0 and 1", delta, way_out)
        if self.runs:
            return
        config.require_at_least("num_examples", self.num_examples, 1)
        config.require_at_least("num_steps", self.num_steps, 1)
        toy_experiment.require_positive("epsilon", self.epsilon)
        config.require_choice("sampling", self.sampling, config.SAMPLINGS)
        config.require_choice("accountant", self.accountant, accounting.ACCOUNTANTS)
        config.require_choice("neighbors", self.neighbors, accounting.NEIGHBORS)
        config.require_distinct("batch_size", self.sizes)
        smallest, largest = min(self.sizes), max(self.sizes)
        config.require_at_least("batch_size", smallest, 1)
        constraint, way_out = "must be at most `--num_examples`", f"{self.num_examples} is the largest"
        config.require(largest <= self.num_examples, "batch_size", constraint, largest, way_out)
        self._check_tries()
        with _naming_flags():
            self.budget.require_within_reach(self.sizes)

    def _check_tries(self) -> None:
        config.require_at_least("tries", self.tries, 1)
        config.require_choice("tries_distribution", self.tries_distribution, selection.DISTRIBUTIONS)
        shape, needed = self.tries_shape, self.tries_distribution == "negative_binomial"
        usable = shape is None or -1 < shape < math.inf
        config.require(usable, "tries_shape", "must be above -1 and finite", shape, "0.5 is between 0 and 1")
        constraint, way_out = (
            "is needed by `--tries_distribution=negative_binomial`",
            "1 is geometric, 0 is logarithmic",
        )
        config.require(shape is not None or not needed, "tries_shape", constraint, shape, way_out)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The batch sizes, in rising order."""
        if self.batch_sizes is None:
            return privacy_budget.batch_sizes(self.num_examples)
        return tuple(sorted(self.batch_sizes))

    @property
    def budget(self) -> privacy_budget.Budget:
        """The budget that the study takes."""
        return privacy_budget.Budget(
            epsilon=self.epsilon,
            delta=self.delta or privacy_budget.default_delta(self.num_examples),
            num_examples=self.num_examples,
            num_steps=self.num_steps,
            sampling=self.sampling,
            accountant=self.accountant,
            neighbors=self.neighbors,
        )

    def resolved(self) -> dict[str, Any]:
        """The budget and the batch sizes; what is printed besides is not recorded."""
        return {**dataclasses.asdict(self.budget), "batch_sizes": self.sizes}

    @property
    def unread(self) -> dict[str, str]:
        """Recorded runs have their own numbers; a number of tries is what its distribution belongs to."""
        if self.runs:
            names = ("batch_size", *(name for name in _HELP if name != "delta"))
            return dict.fromkeys(names, "means nothing to `--runs`")
        unread = {}
        if self.tries is None:
            unread = dict.fromkeys(("tries_distribution", "tries_shape"), "needs `--tries`")
        elif self.tries_distribution != "negative_binomial":
            unread = {"tries_shape": "needs `--tries_distribution=negative_binomial`"}
        return unread


def parse(argv: Sequence[str]) -> Settings:
    """What a privacy budget allows, before anything is trained; and what runs on the same data cost together."""
    values, title = command_line.flag_set(), "privacy budget"
    command_line.define(values, title, Settings, _HELP)
    sizes = "comma-separated batch sizes; by default the powers of two from N / 64 to N / 2"
    command_line.define_list(values, title, "batch_size", None, sizes)
    runs = "comma-separated run directories of DP-SGD on the same data: prints what they cost together, and ends"
    command_line.define_list(values, title, "runs", None, runs)
    command_line.parse(values, argv, parse)
    batch_sizes = None if values["batch_size"].value is None else command_line.whole_numbers(values, "batch_size")
    typed = command_line.typed(values, Settings) | {"runs": tuple(values["runs"].value or ())}
    settings = Settings(batch_sizes=batch_sizes, **typed)
    command_line.refuse_typed(values, settings.unread)
    return settings


def main(settings: Settings) -> None:
    """Prints the cost of the recorded runs, or the table of the budget with its figures."""
    if settings.runs:
        with flags.refusals(), _naming_flags():
            print(recorded.composed(settings.runs, settings.delta).text)
        return
    record = run(settings)
    lines = [line for line in record.metrics if line["measurement"] == "table"]
    _print_table(settings.budget, lines)
    best = privacy_budget.suggested(lines)
    if settings.tries is not None:
        _print_tries(settings, best)
    print(_command(settings.budget, best))
    toy_experiment.draw(record, draw)


def run(settings: Settings) -> records.Record:
    """Finds the noise of every batch size, and the lines of the figures, unless a finished record of that exists."""

    def measured(append, advance):
        budget, sizes = settings.budget, settings.sizes
        lines = list(privacy_budget.table(budget, sizes))
        best = privacy_budget.suggested(lines)
        noise, size = best["noise_multiplier"], best["batch_size"]
        measurements = {
            "table": lines,
            "noise": privacy_budget.noise(budget, sizes),
            "steps": privacy_budget.steps(budget, noise, size),
            "wall": privacy_budget.wall(budget, best["effective_noise"]),
        }
        for name, found in measurements.items():
            for line in found:
                append({"measurement": name, **line})
            advance(1)
        return best

    return recorded_measurement.run(settings.run_dir, settings.resolved(), measured, total=4, unit="measurements")


def draw(record: records.Record, directory: pathlib.Path) -> list[pathlib.Path]:
    """Draws the table, the noise, epsilon over the steps, and the privacy wall; returns all paths."""
    return [
        *figures.draw_table(record, directory),
        *figures.draw_noise(record, directory),
        *figures.draw_steps(record, directory),
        *figures.draw_wall(record, directory),
    ]


def _print_table(budget: privacy_budget.Budget, lines: Sequence[dict[str, Any]]) -> None:
    print(
        f"{budget.num_steps} steps on {budget.num_examples} examples within epsilon = {budget.epsilon:g} at delta = "
        f"{budget.delta:g} ({budget.sampling}, {budget.neighbors}, {budget.accountant}):"
    )
    print(f"{'batch size':>10}  {'sigma':>8}  {'sigma / B':>9}  {'B / sigma':>9}  {'epochs':>7}")
    for line in lines:
        remark = "" if line["above_wall"] else f"  below the privacy wall (sigma < {privacy_budget.WALL:g})"
        print(
            f"{line['batch_size']:>10}  {line['noise_multiplier']:>8g}  {line['effective_noise']:>9.3g}  "
            f"{line['signal_to_noise']:>9.4g}  {line['epochs']:>7.3g}{remark}"
        )
    print("sigma / B: noise on the mean gradient, in clip norms; B / sigma: signal to noise of one step, at most.")


def _print_tries(settings: Settings, line: dict[str, Any]) -> None:
    plan = settings.budget.plan(line["noise_multiplier"], line["batch_size"])
    tries, name = settings.tries, settings.tries_distribution
    together = composition.composed([plan] * tries, plan.delta)
    print(f"{tries} trainings with batch size {line['batch_size']}, all of which are seen: {together.text}")
    best = selection.best_of(plan, tries, name, shape=settings.tries_shape)
    shape = "" if settings.tries_shape is None else f", eta = {settings.tries_shape:g}"
    print(
        f"only the best of a secret random number of trainings, {tries} on average ({name}{shape}; Papernot & Steinke "
        f"2022), each with hyper-parameters drawn at random: epsilon = {accounting.rounded_up(best)}"
    )


def _command(budget: privacy_budget.Budget, line: dict[str, Any]) -> str:
    """A command of `train` for a line of the table; where `train` has too few examples, the optimizer in Python."""
    noise, size = repr(line["noise_multiplier"]), line["batch_size"]
    dataset = next((name for name, count in _DATA_SETS.items() if budget.num_examples <= count), None)
    if dataset is None:
        return (
            "train in Python with noisy_sgd.DPSGD(learning_rate, l2_norm_clip=1.0, "
            f"noise_multiplier={noise}, batch_size={size})"
        )
    part = "" if budget.num_examples == _DATA_SETS[dataset] else f" --num_train_examples={budget.num_examples}"
    return (
        f"train with batch size {size}:\npython -m noisy_sgd.experiments.train --dataset={dataset}{part} "
        f"--algorithm=dp_sgd --sampling={budget.sampling} --batch_size={size} --num_steps={budget.num_steps} "
        f"--l2_norm_clip=1 --noise_multiplier={noise} --delta={budget.delta!r}"
    )


if __name__ == "__main__":
    flags.run(parse, main)
