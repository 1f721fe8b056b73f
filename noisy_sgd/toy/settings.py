"""The settings of toy runs: the problem, the algorithm and its numbers, for many independent runs at once.

    setting = settings.RunSettings(
        model="diagonal_linear", features=x, targets=y, num_runs=5, step_size=0.1, noise_scale=0.5, initial=0.1
    )

Gradient descent is `batch_size=None` without noise, SGD is `batch_size=1` without noise, Noisy-SGD has a `noise_scale`.

Tested by tests/toy/simulation_test.py.
"""

import dataclasses

import numpy as np

from noisy_sgd import checks
from noisy_sgd.toy import draws

MODELS = ("diagonal_linear", "least_squares")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """A problem, and how R runs are trained on it.

    Attributes:
        model: "diagonal_linear", with L = |r|^2 / 4n, or "least_squares", with L = |r|^2 / 2n.
        features: X [n, d].
        targets: Y [n].
        num_runs: R.
        step_size: gamma, a number or [R].
        noise_scale: sigma, a number or [R]. Defaults to 0.
        batch_size: examples per step, drawn with replacement; None for all of them (gradient descent). Defaults to 1.
        initial: initial weights, broadcast to [R, 2, d] for the network (alpha) and [R, d] for least squares. Defaults
            to 0.1.
        vanishing_noise: whether the noise shrinks with the loss; constant noise is for least squares. Defaults to True.
        shared_noise: whether plus and minus weights share the draw, with opposite signs. Defaults to True.
        depth: of the network, beta = w+^depth - w-^depth. Defaults to 2, the paper's.
        noise_coefficients: c_0, c_1, ... of noise that is correlated over steps, [q] or [R, q]: Z of a step is the sum
            of c_j times the draw of j steps before. Defaults to (1.0,), independent noise.
    """

    model: str
    features: np.ndarray
    targets: np.ndarray
    num_runs: int
    step_size: float | np.ndarray
    noise_scale: float | np.ndarray = 0.0
    batch_size: int | None = 1
    initial: float | np.ndarray = 0.1
    vanishing_noise: bool = True
    shared_noise: bool = True
    depth: int = 2
    noise_coefficients: np.ndarray | tuple[float, ...] = (1.0,)

    def __post_init__(self):
        checks.choice("model", self.model, MODELS)
        features = np.ascontiguousarray(self.features, dtype=np.float64)
        targets = np.asarray(self.targets, dtype=np.float64)
        if features.ndim != 2 or 0 in features.shape or targets.shape != features.shape[:1]:
            raise ValueError(
                "`features` must be [n, d] and `targets` [n], with n and d at least 1. "
                f"Received: shapes={features.shape}, {targets.shape}"
            )
        checks.at_least("num_runs", self.num_runs, 1)
        if self.batch_size is not None:
            checks.at_least("batch_size", self.batch_size, 1)
        if self.model == "diagonal_linear" and not self.vanishing_noise:
            raise ValueError(
                "`vanishing_noise` must be True for a diagonal linear network, whose noise is eq. (18)'s. "
                "Received: vanishing_noise=False"
            )
        if self.depth < 2 or (self.depth > 2 and self.model != "diagonal_linear"):
            raise ValueError(
                "`depth` must be at least 2, and is for model='diagonal_linear'. "
                f"Received: depth={self.depth}, model={self.model!r}"
            )
        object.__setattr__(self, "features", features)
        object.__setattr__(self, "targets", targets)
        for name, smallest in (("step_size", np.nextafter(0.0, 1.0)), ("noise_scale", 0.0)):
            value = np.asarray(getattr(self, name), dtype=np.float64)
            holds = value.shape in ((), (self.num_runs,)) and (np.isfinite(value) & (value >= smallest)).all()
            constraint = f"must be {'positive' if smallest else 'at least 0'}, a number or one per run"
            checks.require(holds, name, constraint, getattr(self, name))
            object.__setattr__(self, name, np.broadcast_to(value, (self.num_runs,)))
        coefficients = np.asarray(self.noise_coefficients, np.float64)
        holds = coefficients.ndim and coefficients.size and coefficients.shape[:-1] in ((), (self.num_runs,))
        holds = bool(holds) and bool(np.isfinite(coefficients).all())
        checks.require(holds, "noise_coefficients", "must be finite, [q] or [num_runs, q]", self.noise_coefficients)
        object.__setattr__(self, "noise_coefficients", coefficients)
        object.__setattr__(self, "initial", np.broadcast_to(np.asarray(self.initial, np.float64), self.weights_shape))

    @property
    def dimension(self) -> int:
        """d."""
        return self.features.shape[1]

    @property
    def weights_shape(self) -> tuple[int, ...]:
        """[R, 2, d] for the network, [R, d] for least squares."""
        pair = (2,) if self.model == "diagonal_linear" else ()
        return (self.num_runs, *pair, self.dimension)

    @property
    def loss_divisor(self) -> float:
        """What |r|^2 is divided by in the loss: 4 n or 2 n."""
        return (4.0 if self.model == "diagonal_linear" else 2.0) * len(self.targets)

    @property
    def normals_shape(self) -> tuple[int, ...] | None:
        """Shape of one step's noise: [R, d], or [2, R, d] for separate draws; None without noise."""
        if not self.noise_scale.any():
            return None
        pair = (2,) if self.model == "diagonal_linear" and not self.shared_noise else ()
        return (*pair, self.num_runs, self.dimension)

    def source(self, seed) -> draws.Source:
        """The draws these runs need."""
        return draws.Source(
            seed=seed,
            num_runs=self.num_runs,
            num_examples=len(self.targets),
            batch_size=self.batch_size,
            normals_shape=self.normals_shape,
        )

    def predictor(self, weights):
        """beta [R, d] of weights [R, 2, d] or [R, d]."""
        if self.model == "least_squares":
            return weights
        if self.depth > 2:
            return weights[:, 0] ** self.depth - weights[:, 1] ** self.depth
        return (weights[:, 0] - weights[:, 1]) * (weights[:, 0] + weights[:, 1])
