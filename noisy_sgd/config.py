"""What a user asked for, checked: one frozen dataclass a flag group, and no TensorFlow.

Every rule about what may be typed stands here, so that a run that cannot work ends in one sentence before anything heavy is imported
or anything is written. Values that a flag leaves open are resolved here too, so that a run's record shows what was really used.

    config = Config(algorithm=Algorithm(algorithm="noisy_sgd", batch_size=64, effective_noise=0.01), data=Data(dataset="digits"))
    config.algorithm.resolved_noise_multiplier    # sigma = 0.64: effective noise sigma / B times B
"""

import dataclasses
import math
from typing import Any

ALGORITHMS = ("sgd", "noisy_sgd", "dp_sgd")
DATASETS = ("digits", "mnist")
MODELS = ("nf_resnet_small", "nf_resnet_50", "wrn_16_4", "mlp", "mnist_cnn")
WORKLOADS = ("mlp", "mnist_cnn", "wrn_16_4", "nf_resnet_small")
STRATEGIES = ("default", "mirrored")

_LARGEST_DEFAULT_MICROBATCH = 256


class ConfigError(ValueError):
    """What was asked for cannot be run; the message is one sentence for the person who asked."""


def _refuse(name: str, constraint: str, value: Any, way_out: str) -> None:
    raise ConfigError(f"`--{name}` {constraint} (Received: {name}={value}); {way_out}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        _refuse(name, f"must be one of {', '.join(choices)}", value, "choose one of these")


def _check_at_least(name: str, value: int, smallest: int) -> None:
    if value < smallest:
        _refuse(name, f"must be at least {smallest}", value, f"give a whole number from {smallest} up")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Which images; `num_train_examples` keeps only that many of the training images, None all of them."""

    dataset: str = "digits"
    data_dir: str | None = None
    num_train_examples: int | None = None

    def __post_init__(self):
        _check_choice("dataset", self.dataset, DATASETS)
        if self.num_train_examples is not None:
            _check_at_least("num_train_examples", self.num_train_examples, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """Which network: a name, or the path of a saved functional Keras model."""

    model: str = "nf_resnet_small"

    def __post_init__(self):
        if not self.model.endswith(".keras") and self.model not in MODELS:
            _refuse(
                "model",
                f"must be one of {', '.join(MODELS)} or a file that ends in .keras",
                self.model,
                "choose one of these",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm:
    """The optimizer, its batch and its noise.

    The noise is typed either as `noise_multiplier` (sigma) or as `effective_noise` (sigma / B). On the mean gradient its standard
    deviation is sigma / B for Noisy-SGD (eq. 11) and sigma C / B for DP-SGD (eq. 2). Zero noise has to be typed, never assumed.
    """

    algorithm: str = "sgd"
    batch_size: int = 64
    microbatch_size: int | None = None
    num_steps: int = 1000
    learning_rate: float = 0.5
    momentum: float = 0.0
    noise_multiplier: float | None = None
    effective_noise: float | None = None
    l2_norm_clip: float | None = None
    noise_seed: int | None = None
    delta: float | None = None

    def __post_init__(self):
        _check_choice("algorithm", self.algorithm, ALGORITHMS)
        _check_at_least("batch_size", self.batch_size, 1)
        _check_at_least("num_steps", self.num_steps, 1)
        self._check_microbatch()
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            _refuse("learning_rate", "must be positive and finite", self.learning_rate, "0.5 is what the paper uses")
        if not 0 <= self.momentum < 1:
            _refuse("momentum", "must be at least 0 and less than 1", self.momentum, "0 is plain descent")
        self._check_noise()
        self._check_privacy()

    def _check_microbatch(self) -> None:
        if self.microbatch_size is None:
            return
        _check_at_least("microbatch_size", self.microbatch_size, 1)
        if self.batch_size % self.microbatch_size:
            _refuse(
                "batch_size",
                f"must be a multiple of `--microbatch_size`={self.microbatch_size}",
                self.batch_size,
                f"{-(-self.batch_size // self.microbatch_size) * self.microbatch_size} would be",
            )

    def _check_noise(self) -> None:
        typed = {
            name: getattr(self, name)
            for name in ("noise_multiplier", "effective_noise")
            if getattr(self, name) is not None
        }
        for name, value in typed.items():
            if not (value >= 0 and math.isfinite(value)):
                _refuse(name, "must be at least 0 and finite", value, "0 means no noise")
        if len(typed) == 2:
            raise ConfigError(
                "`--noise_multiplier` (sigma) and `--effective_noise` (sigma / B) say the same thing twice "
                f"(Received: noise_multiplier={self.noise_multiplier}, effective_noise={self.effective_noise}); give one of them"
            )
        if self.algorithm == "sgd":
            for name, value in {**typed, "noise_seed": self.noise_seed}.items():
                if value is not None:
                    _refuse(
                        name,
                        "belongs to noisy_sgd and dp_sgd only",
                        value,
                        "choose `--algorithm=noisy_sgd`, or leave it out",
                    )
        elif not typed:
            _refuse(
                "noise_multiplier",
                f"or `--effective_noise` is needed by {self.algorithm}",
                None,
                "give sigma or sigma / B, and an explicit 0 to have no noise",
            )

    def _check_privacy(self) -> None:
        if self.algorithm != "dp_sgd":
            for name in ("l2_norm_clip", "delta"):
                if getattr(self, name) is not None:
                    _refuse(
                        name,
                        "belongs to dp_sgd only",
                        getattr(self, name),
                        "choose `--algorithm=dp_sgd`, or leave it out",
                    )
            return
        if self.l2_norm_clip is None:
            _refuse("l2_norm_clip", "is needed by dp_sgd", None, "`--l2_norm_clip=1.0` is the usual bound")
        if not self.l2_norm_clip > 0:
            _refuse("l2_norm_clip", "must be positive", self.l2_norm_clip, "`--l2_norm_clip=1.0` is the usual bound")
        if math.isinf(self.l2_norm_clip) and self.resolved_noise_multiplier > 0:
            _refuse(
                "l2_norm_clip", "must be finite when there is noise", self.l2_norm_clip, "give a bound, or no noise"
            )
        if self.delta is not None and not 0 < self.delta < 1:
            _refuse(
                "delta",
                "must lie between 0 and 1",
                self.delta,
                "something below one over the number of examples is usual",
            )

    @property
    def resolved_microbatch_size(self) -> int:
        """What was typed, or the largest divisor of the batch size up to 256."""
        if self.microbatch_size is not None:
            return self.microbatch_size
        return next(
            size
            for size in range(min(self.batch_size, _LARGEST_DEFAULT_MICROBATCH), 0, -1)
            if self.batch_size % size == 0
        )

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
    """Where a run writes, its seed (initialisation, data order), its devices, and how often it evaluates."""

    run_dir: str | None = None
    seed: int = 0
    strategy: str = "default"
    logical_devices: int | None = None
    eval_every: int | None = None

    def __post_init__(self):
        _check_choice("strategy", self.strategy, STRATEGIES)
        if self.logical_devices is not None:
            _check_at_least("logical_devices", self.logical_devices, 1)
        if self.eval_every is not None:
            _check_at_least("eval_every", self.eval_every, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """One training run."""

    data: Data = Data()
    model: Model = Model()
    algorithm: Algorithm = Algorithm()
    run: Run = Run()

    @property
    def eval_every(self) -> int:
        """Steps between two evaluations: what was typed, or a twentieth of the run."""
        return self.run.eval_every or max(1, self.algorithm.num_steps // 20)

    @property
    def noise_seed(self) -> int | None:
        """Noisy-SGD's noise repeats with the run's seed unless told otherwise; DP-SGD's key comes from the operating system."""
        if self.algorithm.algorithm == "noisy_sgd" and self.algorithm.noise_seed is None:
            return self.run.seed
        return self.algorithm.noise_seed

    def resolved(self) -> dict[str, dict[str, Any]]:
        """What a run is, as plain values: nothing left open, and nothing about where its files lie."""
        groups = dataclasses.asdict(self)
        del groups["data"]["data_dir"], groups["run"]["run_dir"]
        sigma = self.algorithm.resolved_noise_multiplier
        groups["algorithm"].update(
            microbatch_size=self.algorithm.resolved_microbatch_size,
            noise_multiplier=sigma,
            effective_noise=sigma / self.algorithm.batch_size,
            noise_std=self.algorithm.noise_std,
        )
        groups["algorithm"]["noise_seed"] = self.noise_seed
        groups["run"]["eval_every"] = self.eval_every
        return groups


def sweep(
    *,
    algorithms: tuple[str, ...],
    batch_sizes: tuple[int, ...],
    num_seeds: int,
    data: Data,
    model: Model,
    run: Run,
    options: dict[str, Any],
) -> dict[str, Config]:
    """Figure 1's protocol as named runs: everything in `options` is fixed (steps, learning rate, sigma / B), the batch size varies.

    SGD takes the options without the noise, Noisy-SGD without the clip norm. The name of a run is the folder it is recorded in.
    """
    _check_at_least("num_seeds", num_seeds, 1)
    for name, values in (("algorithm", algorithms), ("batch_size", batch_sizes)):
        if not values or len(set(values)) < len(values):
            _refuse(
                name, "must list one or more different values", ",".join(map(str, values)), "separate them by commas"
            )
    foreign = {
        "sgd": ("effective_noise", "l2_norm_clip", "delta", "noise_seed"),
        "noisy_sgd": ("l2_norm_clip", "delta"),
        "dp_sgd": (),
    }
    runs = {}
    for name in algorithms:
        _check_choice("algorithm", name, ALGORITHMS)
        kept = {option: value for option, value in options.items() if option not in foreign[name]}
        for batch_size in batch_sizes:
            algorithm = Algorithm(algorithm=name, batch_size=batch_size, **kept)
            for seed in range(run.seed, run.seed + num_seeds):
                runs[f"{name}-batch_{batch_size}-seed_{seed}"] = Config(
                    data=data, model=model, algorithm=algorithm, run=dataclasses.replace(run, seed=seed)
                )
    return runs
