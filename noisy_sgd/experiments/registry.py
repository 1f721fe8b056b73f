"""The experiments, in the order of the report: the one place that lists them.

An experiment has one NAME. Its records are in RESULTS/NAME/. A study, which the report can run by a flagfile, has its
binary in experiments/NAME.py, its measurements in studies/NAME.py, and its flagfiles in configs/NAME/. The other
experiments are those of the quick report. Modules are imported when they are first used.

    experiment = registry.studies()["diagonal_linear"]
    settings = experiment.binary.parse(["diagonal_linear", f"--flagfile={experiment.flagfiles[0]}"])
    record = experiment.binary.run(settings)
    rows = claims.judge(experiment.claims, results)
"""

import dataclasses
import importlib
import pathlib
import types

from noisy_sgd.experiments.flags import flagfiles
from noisy_sgd.experiments.report import claims


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An experiment of the report.

    Attributes:
        name: of its binary, and of its folders.
        claimed_in: module of experiments/report/ that holds its `CLAIMS`. Defaults to "": none.
        reported: flagfiles, without folder and ending, that the full report runs. Defaults to none.
        is_study: whether its binary is one that the report can run by a flagfile. Defaults to True.
        title: its heading in the report. Defaults to "": the first line of its binary's description.
    """

    name: str
    claimed_in: str = ""
    reported: tuple[str, ...] = ()
    is_study: bool = True
    title: str = ""

    @property
    def binary(self) -> types.ModuleType:
        """The binary: `parse`, `run` and `draw`."""
        return importlib.import_module(f"noisy_sgd.experiments.{self.name}")

    @property
    def heading(self) -> str:
        """What it asks, in one line: its title, or the first line of its binary's description, or its name."""
        return self.title or (self.binary.__doc__ or self.name).strip().splitlines()[0].rstrip(".")

    @property
    def flagfiles(self) -> tuple[pathlib.Path, ...]:
        """The flagfiles that the full report runs."""
        return tuple(flagfiles.CONFIGS / self.name / f"{name}.flags" for name in self.reported)

    @property
    def claims(self) -> tuple[claims.Claim, ...]:
        """Its rows of the report."""
        if not self.claimed_in:
            return ()
        return importlib.import_module(f"noisy_sgd.experiments.report.{self.claimed_in}").CLAIMS


EXPERIMENTS = (
    Experiment("batch_size_sweep", "image_claims", is_study=False),
    Experiment(
        "batch_size_effect",
        "batch_size_effect_claims",
        ("quick", "mnist", "digits", "digits_wrong_labels", "hinge", "mnist_correlated"),
    ),
    Experiment("private_optimizers", "private_optimizers_claims", ("mnist",)),
    Experiment("correlated_training", "correlated_training_claims", ("mnist",)),
    # Measured by `reproduce` itself.
    Experiment(
        "theory",
        "theory_claims",
        is_study=False,
        title="The theory of sections 3 and 4.2: least squares and diagonal linear networks",
    ),
    Experiment("least_squares"),
    Experiment("diagonal_linear", "diagonal_linear_claims", tuple(f"figure_{number}" for number in range(3, 8))),
    Experiment("many_data_sets", "many_data_sets_claims", ("figures",)),
    Experiment("noise_threshold", "noise_threshold_claims", ("map",)),
    Experiment("correlated_noise", "correlated_noise_claims", ("diagonal_linear",)),
    Experiment("deep_diagonal", "deep_diagonal_claims", ("depths",)),
    Experiment("sde_error", "sde_error_claims", ("orders",)),
    Experiment("direction_matters", "direction_matters_claims", ("two_phases",)),
    Experiment("gradient_variance", "gradient_variance_claims", ("batch_sizes",)),
    Experiment("sparse_features", "sparse_features_claims", ("large_steps",)),
    Experiment("escaping_time", "escaping_time_claims", ("two_wells",)),
    Experiment("privacy_budget"),
    Experiment("tan_search", "tan_search_claims", ("digits", "mnist")),
    Experiment("audit", "audit_claims", ("digits", "correlated")),
    Experiment("landscape", "landscape_claims", ("images",)),
    Experiment("noise_benefit", "noise_benefit_claims", ("images",)),
    Experiment("private_step_sizes", "private_step_sizes_claims", ("images",)),
    Experiment("fixed_epsilon_noise", "fixed_epsilon_noise_claims", ("epsilon_3",)),
    Experiment("gradient_tails", "gradient_tails_claims", ("images",)),
    Experiment("clipping_or_noise", "clipping_or_noise_claims", ("mnist",)),
    Experiment("pruning", "pruning_claims", ("mnist",)),
)


def studies() -> dict[str, Experiment]:
    """The experiments that the report can run by a flagfile, by their names."""
    return {experiment.name: experiment for experiment in EXPERIMENTS if experiment.is_study}
