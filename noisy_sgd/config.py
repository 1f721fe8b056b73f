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
DATASETS = ("digits", "mnist")
MODELS = ("nf_resnet_tiny", "nf_resnet_small", "nf_resnet50", "wrn_16_4", "mlp", "mnist_cnn")
STRATEGIES = ("default", "mirrored")

_LARGEST_DEFAULT_MICROBATCH = 256


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
    """Refuses a number that is too small; None was not typed."""
    way_out = f"give a whole number from {smallest} up"
    require(value is None or value >= smallest, name, f"must be at least {smallest}", value, way_out)


def require_distinct(name: str, values: tuple[Any, ...]) -> None:
    """Refuses an empty list, or one that names something twice."""
    distinct = bool(values) and len(set(values)) == len(values)
    listed = ",".join(map(str, values))
    require(distinct, name, "must list one or more different values", listed, "separate them by commas")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """Which images; `num_train_examples` keeps so many (None: all), `label_noise` is the fraction of wrong labels."""

    dataset: str = "digits"
    data_dir: str | None = None
    num_train_examples: int | None = None
    label_noise: float = 0.0

    def __post_init__(self):
        noise = self.label_noise
        require(0 <= noise <= 1, "label_noise", "must lie between 0 and 1", noise, "0 keeps every label")
        require_choice("dataset", self.dataset, DATASETS)
        require_at_least("num_train_examples", self.num_train_examples, 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """Which network: a name, or the path of a saved functional Keras model; `hidden` are an mlp's units."""

    model: str = "nf_resnet_tiny"
    hidden: tuple[int, ...] | None = None

    def __post_init__(self):
        listed = ",".join(map(str, self.hidden or ()))
        meant = self.hidden is None or (self.model == "mlp" and all(units >= 1 for units in self.hidden))
        require(meant, "hidden", "needs `--model=mlp` and positive whole numbers", listed, "leave it out otherwise")
        if not self.model.endswith(".keras"):
            require_choice("model", self.model, (*MODELS, "PATH.keras"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Algorithm:
    """The optimizer, its batch and its noise.

    The noise is typed as `noise_multiplier` (sigma) or as `effective_noise` (sigma / B). Its standard deviation on the
    mean gradient is sigma / B for Noisy-SGD (eq. 11) and sigma C / B for DP-SGD (eq. 2). No noise has to be typed.
    `ema_decay` averages the weights that are evaluated.
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

    def __post_init__(self):
        require_choice("algorithm", self.algorithm, ALGORITHMS)
        require_at_least("batch_size", self.batch_size, 1)
        require_at_least("num_steps", self.num_steps, 1)
        require_at_least("microbatch_size", self.microbatch_size, 1)
        remainder = self.batch_size % (self.microbatch_size or 1)
        constraint = f"must be a multiple of `--microbatch_size`={self.microbatch_size}"
        next_multiple = self.batch_size + (self.microbatch_size or 1) - remainder
        require(remainder == 0, "batch_size", constraint, self.batch_size, f"{next_multiple} would be")
        rate, momentum = self.learning_rate, self.momentum
        usable = rate > 0 and math.isfinite(rate)
        require(usable, "learning_rate", "must be positive and finite", rate, "0.5 is what the paper uses")
        require(0 <= momentum < 1, "momentum", "must be at least 0 and less than 1", momentum, "0 is plain descent")
        decay = self.ema_decay
        require(0 <= decay < 1, "ema_decay", "must be at least 0 and less than 1", decay, "0 is no average")
        self._check_noise()
        self._check_privacy()

    def _check_noise(self) -> None:
        typed = self._typed("noise_multiplier", "effective_noise")
        for name, value in typed.items():
            usable = value >= 0 and math.isfinite(value)
            require(usable, name, "must be at least 0 and finite", value, "0 means no noise")
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
            self._refuse_foreign("l2_norm_clip", "delta", owner="dp_sgd")
            return
        clip, way_out = self.l2_norm_clip, "`--l2_norm_clip=1.0` is the usual bound"
        require(clip is not None, "l2_norm_clip", "is needed by dp_sgd", clip, way_out)
        require(clip > 0, "l2_norm_clip", "must be positive", clip, way_out)
        bounded = math.isfinite(clip) or self.resolved_noise_multiplier == 0
        require(bounded, "l2_norm_clip", "must be finite when there is noise", clip, way_out)
        way_out = "less than one over the number of examples is usual"
        require(self.delta is None or 0 < self.delta < 1, "delta", "must lie between 0 and 1", self.delta, way_out)

    def _typed(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

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
    """Where a run writes, its seed (initialisation, data order), its devices, and how often it evaluates."""

    run_dir: str | None = None
    seed: int = 0
    strategy: str = "default"
    logical_devices: int | None = None
    eval_every: int | None = None

    def __post_init__(self):
        require_choice("strategy", self.strategy, STRATEGIES)
        require_at_least("logical_devices", self.logical_devices, 1)
        require_at_least("eval_every", self.eval_every, 1)


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
        """Noisy-SGD's noise follows the run's seed unless told otherwise; DP-SGD's key is the operating system's."""
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
    """Figure 1's protocol: `options` (steps, learning rate, sigma / B, clip norm) are fixed, the batch size varies.

    SGD takes the options without the noise, Noisy-SGD without the clip norm; DP-SGD may have a sigma / B of its own.
    """
    require_at_least("num_seeds", num_seeds, 1)
    require_distinct("algorithm", algorithms)
    require_distinct("batch_size", batch_sizes)
    private = ("l2_norm_clip", "delta")
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
