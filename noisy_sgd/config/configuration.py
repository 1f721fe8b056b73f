"""One training run: all groups together, what they require of each other, and what a record keeps of them.

noisy = training.Training(algorithm="noisy_sgd", batch_size=64, effective_noise=0.01)
configuration.Config(training=noisy).resolved()["algorithm"]["noise_multiplier"]    # 0.64: sigma / B times B
"""

import dataclasses
from typing import Any

from noisy_sgd.config import data as data_flags
from noisy_sgd.config import model as model_flags
from noisy_sgd.config import rules
from noisy_sgd.config import run as run_flags
from noisy_sgd.config import training as training_flags

# These change no number of a run: where files are, how often the run is saved, what is shown.
_NOT_COMPUTED = (
    "run_dir", "tpu", "resume", "checkpoint_dir", "checkpoint_every", "checkpoint_minutes", "keep_checkpoints",
    "show_private_metrics", "dry_run",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """One training run."""

    data: data_flags.Data = data_flags.Data()
    model: model_flags.Model = model_flags.Model()
    training: training_flags.Training = training_flags.Training()
    run: run_flags.Run = run_flags.Run()

    def __post_init__(self):
        views = self.training.augmentation_multiplicity
        needed = views == 1 or self.data.augmentation != "none"
        constraint, way_out = "above 1 needs an augmentation", "add `--augmentation=crop` or flip_and_crop"
        rules.require(needed, "augmentation_multiplicity", constraint, views, way_out)
        meant = not self.run.show_private_metrics or self.training.algorithm == "dp_sgd"
        constraint = f"means nothing to {self.training.algorithm}, which has no private metrics"
        rules.require(meant, "show_private_metrics", constraint, self.run.show_private_metrics, "leave it out")

    @property
    def eval_every(self) -> int:
        """Steps between two evaluations: what was typed, or a twentieth of the run."""
        return self.run.eval_every or max(1, self.training.num_steps // 20)

    @property
    def noise_seed(self) -> int | None:
        """By default Noisy-SGD's noise follows the run's seed, and DP-SGD's key comes from the operating system."""
        if self.training.algorithm == "noisy_sgd" and self.training.noise_seed is None:
            return self.run.seed
        return self.training.noise_seed

    def resolved(self) -> dict[str, dict[str, Any]]:
        """All values that the numbers of a run depend on, as a record keeps them; none is left open."""
        groups = dataclasses.asdict(self)
        # The name of this group in records, which stays as it is so that existing records remain valid.
        groups = {"algorithm" if name == "training" else name: group for name, group in groups.items()}
        # An image that cannot be decoded ends a run or contributes nothing; the numbers of other runs do not change.
        for name in ("data_dir", "corrupt_images"):
            del groups["data"][name]
        for name in _NOT_COMPUTED:
            del groups["run"][name]
        if not self.model.is_saved:
            del groups["model"]["pixel_range"]
        # Records older than these options do not have them.
        if self.training.optimizer == "sgd":
            del groups["algorithm"]["optimizer"]
        if self.training.noise_correlation is None:
            del groups["algorithm"]["noise_correlation"]
        if self.data.held_out is None:
            del groups["data"]["held_out"]
        for name in ("convention", "initial_weights"):
            if getattr(self.model, name) is None:
                del groups["model"][name]
        groups["data"]["image_size"] = self.data.resolved_image_size
        sigma = self.training.resolved_noise_multiplier
        groups["algorithm"].update(
            microbatch_size=self.training.resolved_microbatch_size,
            noise_multiplier=sigma,
            effective_noise=sigma / self.training.batch_size,
            noise_std=self.training.noise_std,
            noise_seed=self.noise_seed,
        )
        groups["run"]["eval_every"] = self.eval_every
        return groups
