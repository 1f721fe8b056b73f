"""Synthetic examples to try a model or a loss on, never data: whatever they show is public.

A model may not take just any values: ids index a table, logarithms want positive numbers, a padded axis of unknown size
has its limits. So several kinds and sizes are tried until one runs.

    synthetic.first_success("`model`", model.input, lambda examples: model(examples.batch(2)).shape)
"""

import collections.abc
import concurrent.futures
import contextlib
import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from noisy_sgd import keras_internals, keys

COUNT = 3
KINDS = ("normals", "zeros and ones", "fractions")
# Tried for axes of unknown size, in this order: pooling needs many positions, and a table of positions has an end.
SIZES = (16, 4, 64, 256)
WORDS = ("a", "b")
# Kernels of different rounding (another batch size, bfloat16, TensorFloat-32) agree to this share of the largest entry.
OTHER_KERNELS = 1e-2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Examples:
    """Three examples, and another version of each that differs in every entry.

    Attributes:
        firsts: each a nest of [1, ...].
        seconds: likewise.
    """

    firsts: list
    seconds: list

    def batch(self, count: int, moved: int | None = None) -> Any:
        """The first `count` examples in one nest of [count, ...]; the one of index `moved` in its other version."""
        return self.chosen([COUNT + i if i == moved else i for i in range(count)])

    def chosen(self, indices: collections.abc.Sequence[int]) -> Any:
        """The examples of these indices in one nest; `COUNT` + i is the other version of example i."""
        examples = [*self.firsts, *self.seconds]
        return keras.tree.map_structure(lambda *tensors: tf.concat(tensors, axis=0), *[examples[i] for i in indices])


@tf.autograph.experimental.do_not_convert
def run_untraced(function: collections.abc.Callable[[], Any]) -> Any:
    """Returns `function()`, run eagerly in a thread of its own, also while the caller is tracing.

    `tf.init_scope` would leave the trace as well, but it stops every tape of the thread from recording, also a tape
    that a model or a loss opens. The strategy and the dtype policy, which TensorFlow and Keras keep per thread, are set
    in the new thread too.
    """
    strategy = tf.distribute.get_strategy() if tf.distribute.has_strategy() else None
    policy = keras.config.dtype_policy()

    def run():
        keras.config.set_dtype_policy(policy)
        with contextlib.nullcontext() if strategy is None else strategy.scope():
            return function()

    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def first_success(
    subject: str,
    like,
    attempt: collections.abc.Callable[[Examples], Any],
    kinds: tuple[str, ...] = KINDS,
    words: tuple[str, ...] = WORDS,
):
    """What `attempt`, run by `run_untraced`, returns for the first synthetic examples that it does not fail on.

    Args:
        subject: what is tried, for the error.
        like: tensors or symbolic ones, any nest of [B, ...]; only shapes and types are used.
        attempt: attempt(examples).
        kinds: of floats and pixels, in the order to try. Defaults to all.
        words: two strings to take.

    Raises:
        ValueError: where it fails on all, naming the inputs and the first reason.
    """
    flat = keras.tree.flatten(like)
    dtypes = [tf.as_dtype(tensor.dtype) for tensor in flat]
    kinds = kinds if any(dtype.is_floating or dtype == tf.uint8 for dtype in dtypes) else kinds[:1]
    sizes = SIZES if any(None in tuple(tensor.shape)[1:] for tensor in flat) else SIZES[:1]

    def first():
        reason = None
        for size in sizes:
            for kind in kinds:
                try:
                    return attempt(_examples(like, kind, size, words))
                except Exception as error:  # noqa: BLE001 - whatever a model of the user's raises
                    reason = reason or error
        raise refusal(subject, kinds, reason, "have it accept any of them", flat) from reason

    return run_untraced(first)


def refusal(subject: str, kinds, reason: Exception, way_out: str, like) -> ValueError:
    """The error where `first_success` finds no examples that the subject takes.

    Args:
        subject: what was tried.
        kinds: names of what it was tried on.
        reason: the first error it raised.
        way_out: a clause.
        like: the flat tensors whose shapes and types the examples had.
    """
    return ValueError(
        f"{subject} must run on synthetic inputs, which show whether it treats every example alone; it fails on all of "
        f"{', '.join(kinds)} in their shapes and types: {one_line(reason)}; {way_out}. "
        f"Received: inputs={[_described(tensor) for tensor in like]}"
    )


def first_success_of_model(model: keras.Model, inputs, attempt: collections.abc.Callable[[Examples], Any]):
    """`first_success` for a model: the ids fit every vocabulary, and words come from the model's own.

    Args:
        model: a Keras model.
        inputs: its inputs, as in `first_success`.
        attempt: attempt(examples).
    """
    layers = keras_internals.layers(model)
    kinds, words = KINDS, WORDS
    if any(isinstance(layer, keras.layers.Embedding) for layer in layers):
        # A GPU raises no error for ids out of range, and all of them look alike.
        kinds = (KINDS[1], KINDS[0], KINDS[2])
    for layer in layers:
        if not isinstance(layer, keras.layers.StringLookup | keras.layers.TextVectorization):
            continue
        known = [word for word in layer.get_vocabulary() if isinstance(word, str)]
        if len(known) > 1:
            words = tuple(known[-2:])
    symbolic = getattr(model, "inputs", None)
    if symbolic and len(symbolic) == len(keras.tree.flatten(inputs)):
        names = ", ".join(repr(tensor.name) for tensor in symbolic)
        return first_success(f"`model` (inputs {names})", inputs, attempt, kinds, words)
    return first_success("`model`", inputs, attempt, kinds, words)


def moved_weights(model: keras.Model) -> list:
    """(weight, value) of all trained weights, moved at random: a weight of zero would hide what comes before it."""
    rng = keys.arbitrary(1)

    def moved(weight):
        return weight.value + tf.cast(0.1 * rng.standard_normal(weight.shape, np.float32), weight.dtype)

    return [(weight, moved(weight)) for weight in model.trainable_variables]


def stateless_call(model: keras.Model, values: list, inputs, training: bool):
    """Calls a model with other values of its weights, and leaves it as it was.

    Args:
        model: a Keras model.
        values: (weight, value), as from `moved_weights`.
        inputs: a nest of tensors.
        training: as in Keras.

    Returns:
        (outputs, state): a flat list, and {id(variable): (its name, its value after the call)}.
    """
    # Keras' own variables do not change in the scope; TensorFlow's would.
    attributes = [value for layer in keras_internals.layers(model) for value in vars(layer).values()]
    variables = [value for value in attributes if isinstance(value, tf.Variable)]
    before = [tf.identity(variable) for variable in variables]
    try:
        with keras.StatelessScope(state_mapping=values) as scope:
            outputs = model(inputs, training=training)
        state = {id(variable): (variable.path, scope.get_current_value(variable)) for variable in model.variables}
        state = {key: (name, value) for key, (name, value) in state.items() if value is not None}
        state.update({id(variable): (variable.name, tf.identity(variable)) for variable in variables})
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
    return tf.nest.flatten(outputs), state


def nearly_equal(a, b, relative: bool = False, tolerance: float = 1e-4) -> bool:
    """Whether two tensors are equal to `tolerance`, which is a share of the largest entry where `relative` is True."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape or np.array_equal(a, b):
        return a.shape == b.shape
    if a.dtype.kind in "SUO":
        return False
    a, b = a.astype(np.float64), b.astype(np.float64)
    scale = np.abs(a[np.isfinite(a)]).max(initial=0.0) if relative else 1.0
    return np.allclose(a, b, rtol=max(1e-3, tolerance), atol=tolerance * scale, equal_nan=True)


def signature(tensors, of_shape: collections.abc.Callable[[tf.TensorShape], Any]) -> str:
    """What tells one kind of inputs from another: types, structure, and of the shapes what `of_shape` keeps."""

    def described(tensor):
        mask = keras_internals.mask(tensor)
        shapes = [of_shape(tf.TensorShape(part.shape)) for part in (tensor, *(() if mask is None else (mask,)))]
        kind = type(tensor).__name__ if isinstance(tensor, tf.RaggedTensor | tf.SparseTensor) else ""
        return f"{kind} {tf.as_dtype(tensor.dtype).name} {shapes}"

    return repr(keras.tree.map_structure(described, tensors))


def kind(model: keras.Model, inputs, *, sizes: bool = False) -> str:
    """What tells one kind of a model's inputs from another: types, structure and numbers of axes.

    A model whose own `call` goes by any of them may be another model for each kind.

    Args:
        model: a Keras model.
        inputs: its inputs, as in `first_success`.
        sizes: whether inputs are of another kind if an example has other sizes, too. Defaults to False.
    """
    flat, declared = keras.tree.flatten(inputs), model.inputs if keras_internals.converts_inputs(model) else ()
    if len(flat) == len(declared):
        inputs = [tf.TensorSpec(tensor.shape, like.dtype) for tensor, like in zip(flat, declared, strict=True)]
    return signature(inputs, lambda shape: shape[1:] if sizes else shape.rank)


def check_finite(tensors) -> None:
    """Raises FloatingPointError for a tensor without a finite entry, which would look the same whatever is moved."""
    if not all(np.any(np.isfinite(np.asarray(tensor, np.float64))) for tensor in tensors):
        raise FloatingPointError("what it returns is not finite")


def _examples(like, kind, size, words):
    rng = keys.arbitrary(0)
    firsts = [keras.tree.map_structure(lambda t: _entries(t, kind, size, words, rng), like) for _ in range(COUNT)]
    return Examples(firsts=firsts, seconds=keras.tree.map_structure(lambda t: _moved(t, words), firsts))


def _entries(like, kind, size, words, rng):
    """[1, ...] of one kind."""
    shape = [1, *(size if known is None else known for known in tuple(like.shape)[1:])]
    dtype = tf.as_dtype(like.dtype)
    # Pixels of 0 and 1 are nearly the same.
    choice = rng.integers(0, 256 if dtype == tf.uint8 and kind == "normals" else 2, shape)
    if dtype == tf.string:
        return tf.gather(tf.constant(words), choice)
    if not dtype.is_floating or kind == "zeros and ones":
        return tf.cast(choice, dtype)
    values = rng.normal(scale=10.0, size=shape) if kind == "normals" else rng.uniform(0.1, 0.4, size=shape)
    return tf.cast(values, dtype)


def _moved(tensor, words):
    if tensor.dtype == tf.string:
        return tf.where(tensor == words[0], words[1], words[0])
    return tf.logical_not(tensor) if tensor.dtype == tf.bool else 1 - tensor


def _described(tensor):
    return f"{tf.as_dtype(tensor.dtype).name}{list(tensor.shape)}"


def one_line(error: Exception) -> str:
    """The error's type and the beginning of its text."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
