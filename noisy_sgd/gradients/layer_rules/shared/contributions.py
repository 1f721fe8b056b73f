"""What a group of weights contributes to norms and clipped sums, by which route, and what each route costs.

The squared norm of example i's gradient is a sum of one number per group of weights; with the clip factors c_i known,
the group's clipped sum is sum_i c_i g_i. A route is one way to both:

    per_example    form g_i, keep it until the factors are known: the sum is one contraction of factors and gradients,
                   and the ordinary full gradient is never computed
    formed_twice   form g_i for its norm only, then the full gradient of factor-scaled output gradients
    gram           <a_s, a_t> <b_s, b_t> over pairs of positions, then the full gradient likewise

The engine takes the route that is cheapest by the estimates below. Among routes that are about as cheap it takes the
one that needs least memory. Gradients are kept where they take no more memory than the layer's input and output
gradient, which are then freed.
"""

import collections.abc
import dataclasses
import math

import tensorflow as tf

from noisy_sgd.gradients.layer_rules.shared import devices

# Rates behind the estimates, in seconds: for one large matrix product, for many small ones, and for reading or writing
# memory. The CPU's rates are measured on two cores of a 2023 server with oneDNN. The accelerator's rates have only the
# usual ratio of arithmetic to memory. Only ratios within one device kind matter.
SECONDS_PER_FLOP = {"cpu": 5e-12, "accelerator": 2e-14}
SECONDS_PER_SMALL_FLOP = {"cpu": 1e-11, "accelerator": 4e-14}
SECONDS_PER_BYTE = {"cpu": 1e-10, "accelerator": 4e-13}

# Memory that all kept per-example gradients together may take beyond the inputs and output gradients they replace.
SPARE_BYTES = 8 * 2**20
# On a CPU, XLA adds squares one by one, and the sum of millions of equal squares is wrong by 1e-4. More squares than
# this are added in parts.
ADDED_ONE_BY_ONE = 2**19
LARGEST_PART = 4096
# Less memory than this is no reason to take a slower route.
NEGLIGIBLE_BYTES = 16 * 2**20
# The estimates are no more accurate than this share. Among routes that differ by less, memory decides.
AS_GOOD = 0.15


@dataclasses.dataclass(frozen=True, kw_only=True)
class Microbatch:
    """The microbatch that a rule works on, and the device that the trace is for.

    Attributes:
        units: the number of examples; None where the trace does not know it.
        views: augmentation views per example; tensors have a leading axis of units * views.
        device: "cpu" or "accelerator". Everything that XLA compiles counts as an accelerator, which runs no loop over
            examples.
        dtype: of norms, factors and sums; float32, or float64 for float64 weights.
    """

    units: int | None
    views: int
    device: str
    dtype: tf.DType

    @property
    def assumed_units(self) -> int:
        """The number of examples that the estimates assume."""
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
        sums: sums(factors [units], tensors) -> sums over examples, one per weight.
        squares_at: squares_at(masks) -> squared norms [units] of the gradients multiplied by masks of 0 and 1, one per
            weight. Defaults to None: the route to the norms does not allow it.
    """

    weights: list
    squared_norms: tf.Tensor
    tensors: list[tf.Tensor]
    sums: collections.abc.Callable[[tf.Tensor, list[tf.Tensor]], list[tf.Tensor]]
    squares_at: collections.abc.Callable[[list[tf.Tensor]], tf.Tensor] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Route:
    """One way to a contribution: its name, estimated seconds, and how to build it.

    Attributes:
        kept_bytes: memory of the per-example gradients that the route keeps until the factors are known.
        temporary_bytes: further memory that the route needs while it is built.
    """

    name: str
    seconds: float
    kept_bytes: float
    build: collections.abc.Callable[[], Contribution]
    temporary_bytes: float = 0.0


def kept(weight, per_example: tf.Tensor) -> Contribution:
    """The contribution of a weight from its per-example gradients [units, *shape of the weight].

    Raises:
        ValueError: for gradients of another shape.
    """
    if not per_example.shape[1:].is_compatible_with(weight.shape) or per_example.shape.rank == 0:
        raise ValueError(
            f"`per_example` must be [units, *{tuple(weight.shape)}], one gradient of the weight {weight.name!r} per "
            "example; sum over the axes that the weight does not have. Received: "
            f"per_example.shape={per_example.shape}"
        )
    if None in per_example.shape.with_rank(1 + len(weight.shape))[1:]:
        per_example = tf.ensure_shape(per_example, [None, *weight.shape])
    if len(weight.shape) != 1:
        per_example = tf.reshape(per_example, [-1, math.prod(weight.shape)])
    return kept_together([weight], [per_example])


def kept_rows(weight, pieces: list[tf.Tensor], arrange) -> Contribution:
    """As `kept`, from gradients in pieces [units, any size]; `arrange` puts sums [1, size] into the weight's shape."""

    def sums(factors, tensors):
        return [arrange([weighted_rows(factors, rows) for rows in tensors])]

    squared_norms = tf.add_n([row_squares(rows) for rows in pieces])
    return Contribution(weights=[weight], squared_norms=squared_norms, tensors=pieces, sums=sums)


def kept_together(weights, rows: list[tf.Tensor]) -> Contribution:
    """The contribution of several weights from the per-example gradients of each [units, size]."""

    def sums(factors, tensors):
        pairs = zip(weights, tensors, strict=True)
        return [tf.reshape(weighted_rows(factors, own), weight.shape) for weight, own in pairs]

    def squares_at(masks):
        kept = [tf.reshape(tf.cast(mask, own.dtype), [1, -1]) for mask, own in zip(masks, rows, strict=True)]
        return tf.add_n([row_squares(own * mask) for own, mask in zip(rows, kept, strict=True)])

    squared_norms = tf.add_n([row_squares(own) for own in rows])
    return Contribution(
        weights=list(weights), squared_norms=squared_norms, tensors=rows, sums=sums, squares_at=squares_at
    )


def row_squares(rows: tf.Tensor) -> tf.Tensor:
    """[..., size] -> [...], the squared norm of each row."""
    if devices.kind() == "cpu":
        # Two operations would write all squares to memory, and read them again.
        return tf.square(tf.raw_ops.EuclideanNorm(input=rows, axis=-1))
    squares = tf.square(rows)
    size = squares.shape[-1]
    if size is not None and size > ADDED_ONE_BY_ONE:
        part = next(part for part in range(LARGEST_PART, 0, -1) if size % part == 0)
        shape = tf.concat([tf.shape(squares)[:-1], [size // part, part]], axis=0)
        parts = tf.reduce_sum(tf.reshape(squares, shape), axis=-1)
        # Without an operation between the two sums, XLA merges them into one.
        squares = tf.maximum(parts, tf.zeros([], parts.dtype))
    return tf.reduce_sum(squares, axis=-1)


def weighted_rows(factors: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """[n], [n, size] -> sum of factor * row, [1, size]."""
    return tf.matmul(tf.expand_dims(factors, 0), rows)


def choose(routes: list[Route], replaced_bytes: float, spare_bytes: float) -> Route:
    """The cheapest route of a group of weights within the memory limit, or one about as cheap that needs less memory.

    Args:
        routes: the group's routes; at least one of them keeps nothing.
        replaced_bytes: memory of the layer's inputs and output gradients, which kept gradients replace.
        spare_bytes: memory that kept gradients may take beyond that.

    Returns:
        One of them.
    """
    fewest = min(route.kept_bytes for route in routes)
    allowed = [route for route in routes if route.kept_bytes <= max(replaced_bytes + spare_bytes, fewest)]
    cheapest = min(route.seconds for route in allowed)
    as_good = [route for route in allowed if route.seconds <= (1 + AS_GOOD) * cheapest]
    return min(as_good, key=lambda route: (_needed(route), route.seconds))


def _needed(route: Route) -> float:
    """The bytes that a route needs; all negligible amounts count as equal."""
    return max(route.kept_bytes + route.temporary_bytes, NEGLIGIBLE_BYTES)
