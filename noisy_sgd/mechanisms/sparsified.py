"""A mechanism on some of the coordinates: the noise of the others is zero, as their gradients are.

    rate_t = final_rate min(1, t / ramp_steps)        m_t in {0, 1}^d, each coordinate 0 with probability rate_t

The coordinates are drawn from a public key and the step, alike on all replicas and without regard to the data. So what
is released is the noised sum of records whose other coordinates are zero: the sensitivity is still C, and the cost that
of the inner mechanism.

    chosen = sparsified.RandomCoordinates(final_rate=0.9, ramp_steps=1000, seed=0)
    mechanism = sparsified.Sparsified(inner, chosen)

Covered by tests/optimizers/sparsification_test.py.
"""

import math

import tensorflow as tf

from noisy_sgd import checks, keys
from noisy_sgd.mechanisms import mechanism, wrapped


class RandomCoordinates:
    """Draws the coordinates of a step.

    Args:
        final_rate: the fraction of the coordinates that is left out in the end, in [0, 1).
        ramp_steps: the number of steps over which the rate rises from 0, at least 1.
        seed: integer, public.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(self, final_rate: float, ramp_steps: int, seed: int):
        self.final_rate = checks.real("final_rate", final_rate, least=0, below=1)
        self.ramp_steps = checks.count("ramp_steps", ramp_steps)
        self.seed = checks.seed("mask_seed", seed)

    def rate(self, step) -> tf.Tensor:
        """The fraction of the coordinates that is left out in this step, a float32 scalar."""
        return self.final_rate * tf.minimum(1.0, tf.cast(step, tf.float32) / self.ramp_steps)

    def of(self, like: list, step) -> list[tf.Tensor]:
        """One tensor of 0 and 1 per tensor, of its shape and dtype.

        Args:
            like: the weights, or sums of their gradients, in the same order in every call.
            step: scalar integer.
        """
        first, second = keys.derive(self.seed, "sparsification")
        sizes = [math.prod(tensor.shape) for tensor in like]
        seed = tf.stack([tf.constant(first, tf.int64), tf.constant(second, tf.int64) + tf.cast(step, tf.int64)])
        uniform = tf.random.stateless_uniform([sum(sizes)], seed, alg="philox")
        kept = tf.split(uniform >= self.rate(step), sizes)
        return [tf.cast(tf.reshape(part, tensor.shape), tensor.dtype) for part, tensor in zip(kept, like, strict=True)]


class Sparsified(wrapped.Wrapped):
    """The noise of another mechanism on the coordinates of a step.

    Args:
        inner: the other mechanism.
        chosen: draws the coordinates.
    """

    def __init__(self, inner: mechanism.Mechanism, chosen: RandomCoordinates):
        super().__init__(inner)
        self._chosen = chosen

    def add_noise(self, sums, statistic, state: mechanism.State, draw: mechanism.Draw):
        """This replica's part of the noised sums, 0 where a coordinate is left out, and of the noised statistic."""
        sums, statistic = super().add_noise(sums, statistic, state, draw)
        kept = self._chosen.of(sums, draw.step)
        return [value * one for value, one in zip(sums, kept, strict=True)], statistic

    def in_words(self, clipped: str) -> str:
        """What happens to the gradients."""
        return (
            f"set to zero at random coordinates, each with probability at most {self._chosen.final_rate:g} and drawn "
            "without the data, "
            f"{super().in_words(clipped)} at the other coordinates"
        )
