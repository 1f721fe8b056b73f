"""What a user asked for, checked: one frozen dataclass a flag group, and no TensorFlow.

Every rule about what may be typed stands here, so that what cannot work ends in one sentence before anything heavy
is imported or anything is written. What a flag leaves open is resolved here, so that a record shows what was used.

    noisy = Algorithm(algorithm="noisy_sgd", batch_size=64, effective_noise=0.01)
    Config(algorithm=noisy).resolved()["algorithm"]["noise_multiplier"]    # 0.64: sigma / B times B
"""

import dataclasses
import math
from typing import Any

ALGORITHMS = ("sgd", "noisy_sgd", "dp_sgd")
DATASETS = ("digits", "mnist", "imagenet2012")
AUGMENTATIONS = ("none", "crop", "flip_and_crop")
MODELS = ("nf_resnet_tiny", "nf_resnet_small", "nf_resnet50", "wrn_16_4", "mlp", "mnist_cnn")
PRECISIONS = ("float32", "bfloat16")
SAMPLINGS = ("shuffled", "poisson")
CLIPPINGS = ("flat", "automatic", "normalized", "per_layer")
STRATEGIES = ("default", "mirrored", "multi_worker", "tpu")

_LARGEST_DEFAULT_MICROBATCH = 256
_DEFAULT_IMAGE_SIZE = 224
_LARGEST_SWEEP = 100_000
# Where a run's files lie, how often it is saved and what is shown: none of it changes a number.
_NOT_COMPUTED = (
    "run_dir", "tpu", "resume", "checkpoint_dir", "checkpoint_every", "checkpoint_minutes", "keep_checkpoints",
    "show_private_metrics",
)  # fmt: skip


class ConfigError(ValueError):
    """What was asked for cannot be run; the message is one sentence for the person who asked."""


def require(holds: bool, name: str, constraint: str, value: Any, way_out: str) -> None:
    """Refuses a typed value, naming the flag, what it must be, what was received and the way out."""
    if not holds:
        raise ConfigError(f"`--{name}` {constraint} (Received: {name}={value}); {way_out}")


def require_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses what is not in the list."""
    require(value in choices, name, f"must be one of {', '.join(choices)}", value, "choose one of these")


def require_at_least(name: str, value: int | None, smallest: int) -> None:
    """Refuses a count that is too small, or larger than what a tensor can count; None was not typed."""
    way_out = f"give a whole number from {smallest} up"
    require(value is None or value >= smallest, name, f"must be at least {smallest}", value, way_out)
    require(value is None or value < 2**31, name, f"must be at most {2**31 - 1}", value, "give a smaller one")


def require_distinct(name: str, values: tuple[Any, ...]) -> None:
    """Refuses an empty list, or one that names something twice."""
    distinct = bool(values) and len(set(values)) == len(values)
    listed = ",".join(map(str, values))
    require(distinct, name, "must list one or more different values", listed, "separate them by commas")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Which images, and what is done to them.

    `num_train_examples` keeps so many (None: all), `label_noise` is the fraction of wrong labels; `augmentation`
    changes a training image anew whenever it is seen; `image_size` is the side of ImageNet's images, in pixels.
    """

    dataset: str = "digits"
    data_dir: str | None = None
    num_train_examples: int | None = None
    label_noise: float = 0.0
    augmentation: str = "none"
    image_size: int | None = None

    def __post_init__(self):
        noise = self.label_noise
        require(0 <= noise <= 1, "label_noise", "must lie between 0 and 1", noise, "0 keeps every label")
        require_choice("dataset", self.dataset, DATASETS)
        require_at_least("num_train_examples", self.num_train_examples, 1)
        require_choice("augmentation", self.augmentation, AUGMENTATIONS)
        require_at_least("image_size", self.image_size, 1)
        if self.dataset == "imagenet2012":
            require(noise == 0, "label_noise", "is not offered for imagenet2012", noise, "leave it out")
        else:
            meant = self.image_size is None
            constraint = f"means nothing to {self.dataset}, whose images have a size of their own"
            way_out = "leave it out, or choose `--dataset=imagenet2012`"
            require(meant, "image_size", constraint, self.image_size, way_out)

    @property
    def resolved_image_size(self) -> int | None:
        """Side of ImageNet's images in pixels: what was typed, or 224; None for images with a size of their own."""
        return self.image_size or (_DEFAULT_IMAGE_SIZE if self.dataset == "imagenet2012" else None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """Which network: a name, or the path of a saved functional Keras model; `hidden` are an mlp's units.

    `precision` is that of the layers' arithmetic; weights, norms, sums and noise are float32 in any case.
    `pixel_range` is what a saved model gets: "raw" for the data's pixels, "LOW,HIGH" for those scaled to that range,
    "auto" for raw where it begins with a rescaling of its own, and otherwise 0 to 1.
    """

    model: str = "nf_resnet_tiny"
    hidden: tuple[int, ...] | None = None
    precision: str = "float32"
    pixel_range: str = "auto"

    def __post_init__(self):
        listed = ",".join(map(str, self.hidden or ()))
        usable = self.hidden is None or (self.model == "mlp" and min(self.hidden, default=0) >= 1)
        constraint = "needs `--model=mlp` and one or more positive whole numbers"
        require(usable, "hidden", constraint, listed, "leave it out otherwise")
        require_choice("precision", self.precision, PRECISIONS)
        pixel_bounds(self.pixel_range)
        if self.is_saved:
            constraint, way_out = "cannot be given to a saved model, which has its own", "leave it out"
            require(self.precision == "float32", "precision", constraint, self.precision, way_out)
        else:
            require_choice("model", self.model, (*MODELS, "PATH.keras"))
            constraint = f"means nothing to {self.model}, which knows the data's own range"
            require(self.pixel_range == "auto", "pixel_range", constraint, self.pixel_range, "leave it out")

    @property
    def is_saved(self) -> bool:
        """Whether the network is a saved model, and not one that goes by a name."""
        return self.model.endswith(".keras")


def pixel_bounds(pixel_range: str) -> tuple[float, float] | None:
    """The two numbers of a range such as "0,1"; None for "raw" and "auto"."""
    if pixel_range in ("raw", "auto"):
        return None
    try:
        low, high = map(float, pixel_range.split(","))
    except ValueError:
        low = high = math.nan
    usable = low < high and math.isfinite(high - low)
    constraint, way_out = "must be raw, auto, or two rising numbers with a comma between them", "most models expect 0,1"
    require(usable, "pixel_range", constraint, pixel_range, way_out)
    return low, high


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm:
    """The optimizer, its batch and its noise.

    The noise is typed as `noise_multiplier` (sigma) or as `effective_noise` (sigma / B). Its standard deviation on the
    mean gradient is sigma / B for Noisy-SGD (eq. 11) and sigma C / B for DP-SGD (eq. 2). No noise has to be typed.
    `ema_decay` averages the weights that are evaluated. `sampling` draws the batches: of fixed size in shuffled order,
    or each example for itself. `clipping` is how a gradient is brought within `l2_norm_clip`; with `target_quantile`
    that bound is learned. An example's gradient is the mean over `augmentation_multiplicity` changed copies of its
    image. `max_epsilon` ends a DP-SGD run with the last step that it allows.
    """

    algorithm: str = "sgd"
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
    delta: float | None = None
    sampling: str = "shuffled"
    clipping: str = "flat"
    target_quantile: float | None = None
    augmentation_multiplicity: int = 1
    max_epsilon: float | None = None

    def __post_init__(self):
        require_choice("algorithm", self.algorithm, ALGORITHMS)
        require_choice("sampling", self.sampling, SAMPLINGS)
        require_choice("clipping", self.clipping, CLIPPINGS)
        for name in ("augmentation_multiplicity", "batch_size", "num_steps", "microbatch_size"):
            require_at_least(name, getattr(self, name), 1)
        remainder = self.batch_size % (self.microbatch_size or 1)
        constraint = f"must be a multiple of `--microbatch_size`={self.microbatch_size}"
        next_multiple = self.batch_size + (self.microbatch_size or 1) - remainder
        require(remainder == 0, "batch_size", constraint, self.batch_size, f"{next_multiple} would be")
        rate, momentum, decay = self.learning_rate, self.momentum, self.ema_decay
        require(0 < rate < math.inf, "learning_rate", "must be positive and finite", rate, "the paper uses 0.5")
        require(0 <= momentum < 1, "momentum", "must be at least 0 and less than 1", momentum, "0 is plain descent")
        require(0 <= decay < 1, "ema_decay", "must be at least 0 and less than 1", decay, "0 is no average")
        self._check_noise()
        self._check_privacy()

    def _check_noise(self) -> None:
        typed = self._typed("noise_multiplier", "effective_noise")
        for name, value in typed.items():
            require(0 <= value < math.inf, name, "must be at least 0 and finite", value, "0 means no noise")
        if len(typed) == 2:
            received = ", ".join(f"{name}={value}" for name, value in typed.items())
            both = "`--noise_multiplier` (sigma) and `--effective_noise` (sigma / B) say the same thing twice"
            raise ConfigError(f"{both} (Received: {received}); give one of them")
        if self.algorithm == "sgd":
            self._refuse_foreign("noise_multiplier", "effective_noise", "noise_seed", owner="noisy_sgd")
            return
        constraint = f"or `--effective_noise` is needed by {self.algorithm}"
        way_out = "give sigma, or sigma / B, and an explicit 0 to have no noise"
        require(bool(typed), "noise_multiplier", constraint, None, way_out)

    def _check_privacy(self) -> None:
        if self.algorithm != "dp_sgd":
            self._refuse_foreign("l2_norm_clip", "delta", "clipping", "target_quantile", "max_epsilon", owner="dp_sgd")
            return
        self._check_clipping()
        way_out = "less than one over the number of examples is usual"
        require(self.delta is None or 0 < self.delta < 1, "delta", "must lie between 0 and 1", self.delta, way_out)
        budget = self.max_epsilon
        if budget is not None:
            finite = 0 < budget < math.inf
            require(finite, "max_epsilon", "must be positive and finite", budget, "leave it out to have no limit")
            noisy = self.resolved_noise_multiplier > 0
            require(noisy, "max_epsilon", "needs noise", budget, "give a positive `--noise_multiplier`")

    def _check_clipping(self) -> None:
        clip, way_out = self.l2_norm_clip, "`--l2_norm_clip=1.0` is the usual bound"
        require(clip is not None, "l2_norm_clip", "is needed by dp_sgd", clip, way_out)
        require(clip > 0, "l2_norm_clip", "must be positive", clip, way_out)
        finite, quantile = math.isfinite(clip), self.target_quantile
        bounded = finite or self.resolved_noise_multiplier == 0
        require(bounded, "l2_norm_clip", "must be finite when there is noise", clip, way_out)
        flat, constraint = self.clipping == "flat", f"must be finite for `--clipping={self.clipping}`"
        require(finite or flat, "l2_norm_clip", constraint, clip, way_out)
        if quantile is not None:
            half = "0.5 leaves half of the gradients unclipped"
            require(0 < quantile < 1, "target_quantile", "must lie between 0 and 1", quantile, half)
            constraint = f"cannot go with `--clipping={self.clipping}`"
            require(flat, "target_quantile", constraint, quantile, "only the bound of `--clipping=flat` can be learned")
            require(finite, "l2_norm_clip", "must be finite to be learned from there", clip, way_out)

    def _typed(self, *names: str) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value != getattr(Algorithm, name)}

    def _refuse_foreign(self, *names: str, owner: str) -> None:
        for name, value in self._typed(*names).items():
            constraint = f"means nothing to {self.algorithm}"
            require(False, name, constraint, value, f"leave it out, or choose `--algorithm={owner}`")

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
        """Standard deviation of the noise on the mean gradient, per coordinate."""
        if self.resolved_noise_multiplier == 0:
            return 0.0
        bound = self.l2_norm_clip if self.algorithm == "dp_sgd" else 1.0
        return self.resolved_noise_multiplier * bound / self.batch_size


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """Where a run writes, its seed (initialisation, data order), its devices, how often it evaluates and is saved.

    A checkpoint is written every `checkpoint_every` steps, where that is given, and whenever `checkpoint_minutes` have
    passed since the last; `keep_checkpoints` of them are kept, in `checkpoint_dir` (None: in `run_dir`). `resume` goes
    on from the newest. `tpu` is the name or address of a Cloud TPU.
    """

    run_dir: str | None = None
    seed: int = 0
    strategy: str = "default"
    tpu: str | None = None
    logical_devices: int | None = None
    eval_every: int | None = None
    resume: bool = True
    checkpoint_dir: str | None = None
    checkpoint_every: int | None = None
    checkpoint_minutes: float = 10.0
    keep_checkpoints: int = 3
    show_private_metrics: bool = False

    def __post_init__(self):
        require_choice("strategy", self.strategy, STRATEGIES)
        for name in ("logical_devices", "eval_every", "checkpoint_every", "keep_checkpoints"):
            require_at_least(name, getattr(self, name), 1)
        minutes = self.checkpoint_minutes
        require(minutes > 0, "checkpoint_minutes", "must be positive", minutes, "`inf` saves by the steps alone")
        on_tpu, strategy = self.strategy == "tpu", self.strategy
        way_out = "give its name, or `local` on a TPU machine itself"
        require(self.tpu is not None or not on_tpu, "tpu", "is needed by `--strategy=tpu`", self.tpu, way_out)
        constraint, way_out = f"means nothing to `--strategy={strategy}`", "leave it out, or choose `--strategy=tpu`"
        require(self.tpu is None or on_tpu, "tpu", constraint, self.tpu, way_out)
        split, one_host = self.logical_devices, strategy in ("default", "mirrored")
        require(split is None or one_host, "logical_devices", constraint, split, "leave it out, or choose mirrored")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """One training run."""

    data: Data = Data()
    model: Model = Model()
    algorithm: Algorithm = Algorithm()
    run: Run = Run()

    def __post_init__(self):
        views = self.algorithm.augmentation_multiplicity
        needed = views == 1 or self.data.augmentation != "none"
        constraint, way_out = "above 1 needs an augmentation", "add `--augmentation=crop` or flip_and_crop"
        require(needed, "augmentation_multiplicity", constraint, views, way_out)
        meant = not self.run.show_private_metrics or self.algorithm.algorithm == "dp_sgd"
        constraint = f"means nothing to {self.algorithm.algorithm}, which has no private metrics"
        require(meant, "show_private_metrics", constraint, self.run.show_private_metrics, "leave it out")

    @property
    def eval_every(self) -> int:
        """Steps between two evaluations: what was typed, or a twentieth of the run."""
        return self.run.eval_every or max(1, self.algorithm.num_steps // 20)

    @property
    def noise_seed(self) -> int | None:
        """Noisy-SGD's noise follows the run's seed unless told otherwise; DP-SGD's key is the operating system's."""
        if self.algorithm.algorithm == "noisy_sgd" and self.algorithm.noise_seed is None:
            return self.run.seed
        return self.algorithm.noise_seed

    def resolved(self) -> dict[str, dict[str, Any]]:
        """What a run is, as plain values: nothing left open, and nothing that leaves its numbers as they are."""
        groups = dataclasses.asdict(self)
        del groups["data"]["data_dir"]
        for name in _NOT_COMPUTED:
            del groups["run"][name]
        if not self.model.is_saved:
            del groups["model"]["pixel_range"]
        groups["data"]["image_size"] = self.data.resolved_image_size
        sigma = self.algorithm.resolved_noise_multiplier
        groups["algorithm"].update(
            microbatch_size=self.algorithm.resolved_microbatch_size,
            noise_multiplier=sigma,
            effective_noise=sigma / self.algorithm.batch_size,
            noise_std=self.algorithm.noise_std,
            noise_seed=self.noise_seed,
        )
        groups["run"]["eval_every"] = self.eval_every
        return groups


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """Runs by name; each is recorded in a folder of that name under `run_dir`."""

    run_dir: str
    runs: dict[str, Config]


def sweep(
    algorithms: tuple[str, ...],
    batch_sizes: tuple[int, ...],
    num_seeds: int,
    *,
    base: Config,
    dp_sgd_effective_noise: float | None = None,
    **options: Any,
) -> Sweep:
    """Figure 1's protocol: `options` (steps, learning rate, sigma / B, clipping) are fixed, the batch size varies.

    SGD takes the options without the noise, Noisy-SGD without the clipping; DP-SGD may have a sigma / B of its own.
    """
    require_at_least("num_seeds", num_seeds, 1)
    require_distinct("algorithm", algorithms)
    require_distinct("batch_size", batch_sizes)
    few = num_seeds * len(algorithms) * len(batch_sizes) <= _LARGEST_SWEEP
    require(few, "num_seeds", f"must leave at most {_LARGEST_SWEEP} runs", num_seeds, "give a smaller one")
    private = ("l2_norm_clip", "delta", "clipping", "target_quantile")
    foreign = {"sgd": (*private, "effective_noise"), "noisy_sgd": private}
    runs = {}
    for name in algorithms:
        kept = {option: value for option, value in options.items() if option not in foreign.get(name, ())}
        if name == "dp_sgd" and dp_sgd_effective_noise is not None:
            kept["effective_noise"] = dp_sgd_effective_noise
        for batch_size in batch_sizes:
            algorithm = Algorithm(algorithm=name, batch_size=batch_size, **kept)
            for seed in range(base.run.seed, base.run.seed + num_seeds):
                folder = f"{name}-batch_{batch_size}-seed_{seed}"
                run = dataclasses.replace(base.run, seed=seed, run_dir=f"{base.run.run_dir}/{folder}")
                runs[folder] = dataclasses.replace(base, algorithm=algorithm, run=run)
    return Sweep(run_dir=base.run.run_dir, runs=runs)
