"""Gaussian noise that is correlated over steps: each step takes back a part of the noise of the steps before it.

With draws Z_0, Z_1, ... that are independent, the noise of step k on the sum of clipped gradients is

    sigma C (c_0 Z_k + c_1 Z_(k-1) + c_2 Z_(k-2) + ...),    Z_j = 0 before the first step of an attempt at a run

A sum of steps then holds less noise than each step by itself: with c = (1, -0.9) the noise of step k takes back nine
tenths of the last one's. This is DP-lambda-CGD (arXiv 2601.22334), and with other coefficients banded matrix
factorization (arXiv 2505.12128). The draws are functions of (key, step), so the earlier ones are drawn again and
nothing is stored: the memory, the checkpoints and the replicas are those of independent noise. A step draws noise once
per coefficient.

The noise has a price: `noisy_sgd.mechanisms.toeplitz` says which one. It is known for batches whose examples take part
a fixed number of steps apart (sampling="cyclic"), or once, and there is no amplification by sampling.

    noise = noisy_sgd.CorrelatedNoise.lambda_cgd(0.9)
    optimizer = noisy_sgd.DPSGD(0.5, l2_norm_clip=1.0, noise_multiplier=8.0, batch_size=256, noise=noise)
    model.fit(x, y, epochs=10, sampling="cyclic")
"""

import math
from collections.abc import Sequence
from typing import Any

import dp_accounting
import keras

from noisy_sgd.mechanisms import gaussian, mechanism, toeplitz


@keras.saving.register_keras_serializable(package="noisy_sgd")
class CorrelatedNoise(mechanism.Recipe):
    """The recipe of noise that is correlated over steps, for `noise=` of DPSGD, DPAdam, NoisySGD and others.

    The scale of the optimizer (noise_multiplier times the clip norm, or noise_std) multiplies the sum of all c_j
    Z_(k-j). A step that has all its draws has the norm of the coefficients times that scale.

    Args:
        coefficients: c_0, c_1, ..., the first one positive. (1,) is independent noise, bit for bit.

    Raises:
        ValueError: unless they are finite and the first one is positive.
    """

    def __init__(self, coefficients: Sequence[float]):
        self._coefficients = toeplitz.checked(coefficients)

    @classmethod
    def lambda_cgd(cls, value: float) -> "CorrelatedNoise":
        """Z_k - lambda Z_(k-1) (DP-lambda-CGD, arXiv 2601.22334).

        Args:
            value: lambda, in [0, 1).
        """
        return cls(toeplitz.lambda_cgd(value))

    @classmethod
    def banded_inverse_square_root(cls, bands: int) -> "CorrelatedNoise":
        """The first coefficients of (1 - x)^(1/2), 1, -1/2, -1/8, -1/16, ... (arXiv 2505.12128).

        Args:
            bands: the number of coefficients, at least 1.
        """
        return cls(toeplitz.banded_inverse_square_root(bands))

    @classmethod
    def best(cls, num_steps: int, epochs: int, draws: int | None = None) -> "CorrelatedNoise":
        """The lambda or the bands with the least error of the sums of gradients, at equal privacy.

        The error is the root mean square, over the steps, of the noise in the sum of all gradients up to a step, for
        cyclic batches. What is least there need not train best.

        Args:
            num_steps: of the run.
            epochs: passes over the examples; an epoch is ceil(num_steps / epochs) steps.
            draws: the largest number of coefficients, each of which is a draw per step. Defaults to None, no limit.

        Raises:
            ValueError: for a number below 1, or more epochs than steps.
        """
        return cls(toeplitz.best(num_steps, epochs, draws))

    @property
    def coefficients(self) -> tuple[float, ...]:
        """c_0, c_1, ..."""
        return self._coefficients

    def make(self, l2_norm_clip: float, noise_multiplier: float, batch_size: int, key) -> "CorrelatedGaussianSum":
        """The mechanism of a run; infinity times 0 is no noise."""
        return CorrelatedGaussianSum(self._coefficients, l2_norm_clip, noise_multiplier, key)

    def priced(self, noise_multiplier: float) -> toeplitz.CorrelatedGaussian:
        """What a run with this noise costs: the event of a `noisy_sgd.privacy.Plan` without an optimizer.

        Args:
            noise_multiplier: sigma, the scale of the noise in clip norms.
        """
        return toeplitz.CorrelatedGaussian(self._coefficients, noise_multiplier)

    def get_config(self) -> dict[str, Any]:
        """The arguments that rebuild this object."""
        return {"coefficients": list(self._coefficients)}

    def __repr__(self) -> str:
        return f"CorrelatedNoise(coefficients={list(self._coefficients)})"


class CorrelatedGaussianSum(mechanism.Mechanism):
    """The mechanism: a sum of records clipped to a fixed norm, plus correlated noise.

    Args:
        coefficients: c_0, c_1, ...
        l2_norm_clip: C, the sensitivity of the sum of one step.
        noise_multiplier: sigma, the scale of the noise in units of C.
        key: [2] int64, the noise key.
    """

    independent_steps = False

    def __init__(self, coefficients: tuple[float, ...], l2_norm_clip: float, noise_multiplier: float, key):
        self._coefficients = coefficients
        self._l2_norm_clip = l2_norm_clip
        self._noise_multiplier = noise_multiplier
        self._scale = noise_multiplier * l2_norm_clip if noise_multiplier else 0.0
        self._key = key

    @property
    def event(self) -> dp_accounting.DpEvent:
        """Refused: no step has an event of its own.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "`event` of one step does not exist for noise that is correlated over steps: pass the mechanism itself as "
            "the event of a noisy_sgd.privacy.Plan, which prices whole runs. Received: noise=CorrelatedNoise("
            f"{list(self._coefficients)})"
        )

    def event_of_run(self, participation) -> dp_accounting.DpEvent:
        """The event of a run: one Gaussian, of sigma over the sensitivity of its steps together.

        Args:
            participation: a `noisy_sgd.sampling.Participation` that states its `length`.

        Raises:
            ValueError: for a scheme under which the cost is not known.
        """
        return toeplitz.CorrelatedGaussian(self._coefficients, self._noise_multiplier).event_of_run(participation)

    @property
    def variance_shares(self) -> tuple[float, ...]:
        """c_j^2 over their sum."""
        squares = [each**2 for each in self._coefficients]
        return tuple(square / math.fsum(squares) for square in squares)

    def clip_bound(self, state: mechanism.State) -> float:
        """C, in every step."""
        return self._l2_norm_clip

    def stddev(self, state: mechanism.State) -> float:
        """That of a step that has all its draws; the first steps have less."""
        return self._scale * math.hypot(*self._coefficients)

    def add_noise(self, sums, statistic, state: mechanism.State, draw: mechanism.Draw):
        """The sums with this replica's share of the step's noise."""
        if self._scale:
            sums = gaussian.add_noise("isotropic", sums, sums, self._scale, self._key, draw, self._coefficients)
        return sums, statistic

    @property
    def not_private(self) -> str | None:
        """Why nothing is guaranteed, or None."""
        return None if self._scale else "no noise is added (epsilon = infinity)"

    def facts(self) -> dict[str, Any]:
        """The numbers of a privacy statement."""
        multiplier = self._noise_multiplier if math.isfinite(self._l2_norm_clip) else 0.0
        return {
            "l2_norm_clip": self._l2_norm_clip,
            "noise_multiplier": multiplier,
            "noise_correlation": self._coefficients,
        }

    def in_words(self, clipped: str) -> str:
        """What happens to the gradients, as a clause of a privacy statement."""
        shown = ", ".join(f"{each:g}" for each in self._coefficients[:4])
        more = ", ..." if len(self._coefficients) > 4 else ""
        return (
            f"{super().in_words(clipped)} as the scale of each draw, where the noise of a step is {shown}{more} times "
            "its own draw and those of the steps before it"
        )


def coefficients_of(noise: mechanism.Recipe | None) -> tuple[float, ...]:
    """The coefficients of the noise of an optimizer without clipping.

    Args:
        noise: a `CorrelatedNoise`; None for independent noise.

    Raises:
        ValueError: for another recipe, whose noise is scaled to a clip norm.
    """
    if noise is None:
        return (1.0,)
    if not isinstance(noise, CorrelatedNoise):
        raise ValueError(
            "`noise` must be a noisy_sgd.CorrelatedNoise, or None for independent noise, where nothing is clipped. "
            f"Received: noise={noise!r}"
        )
    return noise.coefficients
