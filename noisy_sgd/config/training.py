"""The flags of training: the algorithm, its batches, its noise and its privacy.

noisy = training.Training(algorithm="noisy_sgd", batch_size=64, effective_noise=0.01)
noisy.resolved_noise_multiplier, noisy.noise_std    # 0.64, which is sigma / B times B; 0.01
"""

import dataclasses
import math
from typing import Any

from noisy_sgd.config import noise_correlation, rules

ALGORITHMS = ("sgd", "noisy_sgd", "dp_sgd")
OPTIMIZERS = ("sgd", "adam", "adamw", "lars", "extrap_sgd")
SAMPLINGS = ("shuffled", "poisson", "random_allocation", "cyclic")
CLIPPINGS = ("flat", "automatic", "normalized", "per_layer")

# The optimizers that are SGD with a changed gradient.
_WITH_MOMENTUM = ("sgd", "lars", "extrap_sgd")
# The algorithms that an option means something to. One that is not listed is for all of them.
_MEANT_FOR = {
    "noise_multiplier": ("noisy_sgd", "dp_sgd"),
    "effective_noise": ("noisy_sgd", "dp_sgd"),
    "noise_seed": ("noisy_sgd", "dp_sgd"),
    "noise_correlation": ("noisy_sgd", "dp_sgd"),
    "l2_norm_clip": ("dp_sgd",),
    "delta": ("dp_sgd",),
    "clipping": ("dp_sgd",),
    "target_quantile": ("dp_sgd",),
    "max_epsilon": ("dp_sgd",),
}
_LARGEST_DEFAULT_MICROBATCH = 256


def is_meant_for(option: str, algorithm: str) -> bool:
    """Whether an option means something to an algorithm."""
    return algorithm in _MEANT_FOR.get(option, (algorithm,))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """The optimizer, its batch and its noise.

    The noise is typed as `noise_multiplier` (sigma) or as `effective_noise` (sigma / B). Its standard deviation on the
    mean gradient is sigma / B for Noisy-SGD (eq. 11) and sigma C / B for DP-SGD (eq. 2). To have no
    noise, one types 0. `noise_correlation` adds parts of earlier draws to the noise of a step; the noise typed is then
    the scale of each draw. `ema_decay` is that of the moving average of the weights. `optimizer` is the update that
    takes the gradient. `sampling` draws the batches: of fixed size in shuffled order, each example independently at
    each step, each example in one random step of each epoch, or one partition for all epochs. `clipping` is how the
    norm of a gradient is bounded by `l2_norm_clip`; with `target_quantile` that bound is learned. The gradient of an
    example is the mean over `augmentation_multiplicity` changed copies of its image. `max_epsilon` ends a DP-SGD run
    with the last step that it allows.
    """

    algorithm: str = "sgd"
    optimizer: str = "sgd"
    batch_size: int = 64
    microbatch_size: int | None = None
    num_steps: int = 1000
    learning_rate: float = 0.5
    momentum: float = 0.0
    ema_decay: float = 0.0
    noise_multiplier: float | None = None
    effective_noise: float | None = None
    l2_norm_clip: float | None = None
    noise_seed: int | None = None
    noise_correlation: str | None = None
    delta: float | None = None
    sampling: str = "shuffled"
    clipping: str = "flat"
    target_quantile: float | None = None
    augmentation_multiplicity: int = 1
    max_epsilon: float | None = None

    def __post_init__(self):
        rules.require_choice("algorithm", self.algorithm, ALGORITHMS)
        rules.require_choice("optimizer", self.optimizer, OPTIMIZERS)
        rules.require_choice("sampling", self.sampling, SAMPLINGS)
        rules.require_choice("clipping", self.clipping, CLIPPINGS)
        for name in ("augmentation_multiplicity", "batch_size", "num_steps", "microbatch_size"):
            rules.require_at_least(name, getattr(self, name), 1)
        remainder = self.batch_size % (self.microbatch_size or 1)
        constraint = f"must be a multiple of `--microbatch_size`={self.microbatch_size}"
        next_multiple = self.batch_size + (self.microbatch_size or 1) - remainder
        rules.require(remainder == 0, "batch_size", constraint, self.batch_size, f"{next_multiple} would be")
        rate, momentum, decay = self.learning_rate, self.momentum, self.ema_decay
        rules.require(0 < rate < math.inf, "learning_rate", "must be positive and finite", rate, "the paper uses 0.5")
        rules.require(
            0 <= momentum < 1, "momentum", "must be at least 0 and less than 1", momentum, "0 is plain descent"
        )
        rules.require(0 <= decay < 1, "ema_decay", "must be at least 0 and less than 1", decay, "0 is no average")
        self._check_optimizer()
        self._check_noise()
        self._refuse_foreign()
        if self.algorithm == "dp_sgd":
            self._check_clipping()
            self._check_privacy()

    def _check_optimizer(self) -> None:
        if self.takes_momentum:
            return
        constraint = f"must be one of {', '.join(_WITH_MOMENTUM)} for noisy_sgd, which descends along the gradient"
        way_out = "leave it out, or choose `--algorithm=sgd` or `dp_sgd`"
        rules.require(self.algorithm != "noisy_sgd", "optimizer", constraint, self.optimizer, way_out)
        constraint = f"means nothing to {self.optimizer}, which has moments of its own"
        rules.require(self.momentum == 0, "momentum", constraint, self.momentum, "leave it out")

    def _check_noise(self) -> None:
        typed = self._typed("noise_multiplier", "effective_noise")
        for name, value in typed.items():
            rules.require(0 <= value < math.inf, name, "must be at least 0 and finite", value, "0 means no noise")
        if len(typed) == 2:
            received = ", ".join(f"{name}={value}" for name, value in typed.items())
            both = "`--noise_multiplier` (sigma) and `--effective_noise` (sigma / B) say the same thing twice"
            raise rules.ConfigError(f"{both} (Received: {received}); give one of them")
        given = bool(typed) or not is_meant_for("noise_multiplier", self.algorithm)
        constraint = f"or `--effective_noise` is needed by {self.algorithm}"
        way_out = "give sigma, or sigma / B, and an explicit 0 to have no noise"
        rules.require(given, "noise_multiplier", constraint, None, way_out)
        if self.noise_correlation is not None:
            noise_correlation.parsed(self.noise_correlation)

    def _check_privacy(self) -> None:
        way_out = "less than one over the number of examples is usual"
        rules.require(
            self.delta is None or 0 < self.delta < 1, "delta", "must lie between 0 and 1", self.delta, way_out
        )
        budget = self.max_epsilon
        if budget is not None:
            finite = 0 < budget < math.inf
            rules.require(finite, "max_epsilon", "must be positive and finite", budget, "leave it out to have no limit")
            noisy = self.resolved_noise_multiplier > 0
            rules.require(noisy, "max_epsilon", "needs noise", budget, "give a positive `--noise_multiplier`")

    def _check_clipping(self) -> None:
        clip, way_out = self.l2_norm_clip, "`--l2_norm_clip=1.0` is the usual bound"
        rules.require(clip is not None, "l2_norm_clip", "is needed by dp_sgd", clip, way_out)
        rules.require(clip > 0, "l2_norm_clip", "must be positive", clip, way_out)
        finite, quantile = math.isfinite(clip), self.target_quantile
        bounded = finite or self.resolved_noise_multiplier == 0
        rules.require(bounded, "l2_norm_clip", "must be finite when there is noise", clip, way_out)
        flat, constraint = self.clipping == "flat", f"must be finite for `--clipping={self.clipping}`"
        rules.require(finite or flat, "l2_norm_clip", constraint, clip, way_out)
        if quantile is not None:
            half = "0.5 leaves half of the gradients unclipped"
            rules.require(0 < quantile < 1, "target_quantile", "must lie between 0 and 1", quantile, half)
            constraint = f"cannot go with `--clipping={self.clipping}`"
            rules.require(
                flat, "target_quantile", constraint, quantile, "only the bound of `--clipping=flat` can be learned"
            )
            rules.require(finite, "l2_norm_clip", "must be finite to be learned from there", clip, way_out)
        if self.noise_correlation is not None:
            constraint = "must be cyclic with `--noise_correlation`, whose cost is not known for other batches"
            way_out = "add `--sampling=cyclic`"
            rules.require(self.sampling == "cyclic", "sampling", constraint, self.sampling, way_out)
            constraint = "cannot go with `--noise_correlation`, whose clip is fixed"
            rules.require(quantile is None, "target_quantile", constraint, quantile, "leave one of them out")

    def _typed(self, *names: str) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value != getattr(Training, name)}

    def _refuse_foreign(self) -> None:
        for name, value in self._typed(*_MEANT_FOR).items():
            constraint = f"means nothing to {self.algorithm}"
            way_out = f"leave it out, or choose `--algorithm={_MEANT_FOR[name][0]}`"
            rules.require(is_meant_for(name, self.algorithm), name, constraint, value, way_out)

    @property
    def takes_momentum(self) -> bool:
        """Whether the optimizer has a momentum, and a version for noisy_sgd."""
        return self.optimizer in _WITH_MOMENTUM

    @property
    def resolved_microbatch_size(self) -> int:
        """What was typed, or the largest divisor of the batch size up to 256."""
        if self.microbatch_size is not None:
            return self.microbatch_size
        sizes = range(min(self.batch_size, _LARGEST_DEFAULT_MICROBATCH), 0, -1)
        return next(size for size in sizes if self.batch_size % size == 0)

    @property
    def resolved_noise_multiplier(self) -> float:
        """Sigma; 0 for SGD."""
        if self.effective_noise is not None:
            return self.effective_noise * self.batch_size
        return self.noise_multiplier or 0.0

    @property
    def noise_std(self) -> float:
        """Standard deviation of the noise on the mean gradient, per coordinate; with correlation, of each draw."""
        if self.resolved_noise_multiplier == 0:
            return 0.0
        bound = self.l2_norm_clip if self.algorithm == "dp_sgd" else 1.0
        return self.resolved_noise_multiplier * bound / self.batch_size
