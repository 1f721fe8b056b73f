"""What a group of weights contributes to norms and clipped sums, by which route, and what each route costs.

The squared norm of example i's gradient is a sum of one number a group of weights; with the clip factors c_i known,
the group's clipped sum is sum_i c_i g_i. A route is one way to both:

    per_example    form g_i, keep it until the factors are known: the sum is one contraction of factors and gradients,
                   and the ordinary full gradient is never computed
    formed_twice   form g_i for its norm only, then the full gradient of factor-scaled output gradients
    gram           <a_s, a_t> <b_s, b_t> over pairs of positions, then the full gradient likewise

The engine takes the cheapest by the estimates below, as long as the kept per-example gradients stay within a budget.
"""

import collections.abc
import dataclasses
import math

import tensorflow as tf

# Rates behind the estimates, in seconds: of one large and of many small matrix products, and of passing over memory.
# Those of the CPU are measured on two cores of a 2023 server with oneDNN; of an accelerator only the usual ratio of
# arithmetic to memory is known. Only ratios within one device kind matter.
SECONDS_PER_FLOP = {"cpu": 5e-12, "accelerator": 2e-14}
SECONDS_PER_SMALL_FLOP = {"cpu": 1e-11, "accelerator": 4e-14}
SECONDS_PER_BYTE = {"cpu": 1e-10, "accelerator": 4e-13}

# Per-example gradients may be kept up to this share of what the layers' inputs and outputs take anyway, or this many
# bytes where that is more.
KEPT_SHARE_OF_ACTIVATIONS = 0.25
KEPT_BYTES = 64 * 2**20


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """The microbatch and the device that a trace is for.

    Attributes:
        units: examples, where known while tracing; None where not.
        views: views of an example; tensors have a leading axis of units * views.
        device: "cpu" or "accelerator" (everything that XLA compiles counts as one): there no loop over examples.
        dtype: of norms, factors and sums; float32, or float64 for float64 weights.
    """

    units: int | None
    views: int
    device: str
    dtype: tf.DType

    @property
    def assumed_units(self) -> int:
        """Examples to count with in estimates."""
        return 64 if self.units is None else self.units

    def cast(self, tensor) -> tf.Tensor:
        """The tensor in the precision of norms and sums."""
        return tf.cast(tensor, self.dtype)

    def sum_views(self, per_view) -> tf.Tensor:
        """[units * views, ...] -> [units, ...], summed over the views; in the precision of norms and sums."""
        per_view = self.cast(per_view)
        if self.views == 1:
            return per_view
        shape = tf.concat([[-1, self.views], tf.shape(per_view)[1:]], axis=0)
        summed = tf.reduce_sum(tf.reshape(per_view, shape), axis=1)
        return tf.ensure_shape(summed, [self.units, *per_view.shape[1:]])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contribution:
    """What a group of weights contributes.

    Attributes:
        weights: the Keras variables of the group.
        squared_norms: [units].
        tensors: what the sums are formed from, each with a leading axis of units or units * views. The engine
            zeroes the rows of examples that must not contribute.
        sums: sums(factors [units], tensors) -> sums over examples, one a weight.
    """

    weights: list
    squared_norms: tf.Tensor
    tensors: list[tf.Tensor]
    sums: collections.abc.Callable[[tf.Tensor, list[tf.Tensor]], list[tf.Tensor]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Route:
    """One way to a contribution: its name, estimated seconds, bytes it keeps per example, and how to build it."""

    name: str
    seconds: float
    kept_bytes: float
    build: collections.abc.Callable[[], Contribution]


def kept(weight, per_example: tf.Tensor) -> Contribution:
    """The contribution of a weight whose per-example gradients [units, *shape of the weight] are at hand."""
    rows = tf.reshape(per_example, [-1, math.prod(weight.shape)])
    return kept_rows(weight, [rows], lambda sums: tf.reshape(sums[0], weight.shape))


def kept_rows(weight, pieces: list[tf.Tensor], arrange) -> Contribution:
    """The same in pieces [units, any size], whose sums [1, size] `arrange` takes to the shape of the weight."""

    def sums(factors, tensors):
        return [arrange([weighted_rows(factors, rows) for rows in tensors])]

    squared_norms = tf.add_n([row_squares(rows) for rows in pieces])
    return Contribution(weights=[weight], squared_norms=squared_norms, tensors=pieces, sums=sums)


def row_squares(rows: tf.Tensor) -> tf.Tensor:
    """[n, size] -> the squared norm of each row."""
    return tf.linalg.matvec(tf.square(rows), tf.ones(tf.shape(rows)[1:], rows.dtype))


def weighted_rows(factors: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """[n], [n, size] -> sum of factor * row, [1, size]."""
    return tf.matmul(factors[None], rows)


def choose(groups: list[list[Route]], activation_bytes: float) -> list[Route]:
    """The cheapest route of every group, with what they keep together inside the budget.

    Where the cheapest ones keep too much, groups give way to their next cheapest route in the order of what that
    saves for what it costs.

    Args:
        groups: for each group of weights its routes; at least one of them keeps nothing.
        activation_bytes: what the layers' inputs and outputs take.

    Returns:
        One route a group.
    """
    budget = max(KEPT_BYTES, KEPT_SHARE_OF_ACTIVATIONS * activation_bytes)
    chosen = [min(routes, key=lambda route: route.seconds) for routes in groups]
    while sum(route.kept_bytes for route in chosen) > budget:
        candidates = []
        for index, (current, routes) in enumerate(zip(chosen, groups, strict=True)):
            lighter = [route for route in routes if route.kept_bytes < current.kept_bytes]
            if lighter:
                other = min(lighter, key=lambda route: route.seconds)
                price = (other.seconds - current.seconds) / (current.kept_bytes - other.kept_bytes)
                candidates.append((price, index, other))
        if not candidates:
            break
        _, index, other = min(candidates, key=lambda candidate: candidate[:2])
        chosen[index] = other
    return chosen
