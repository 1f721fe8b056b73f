"""Do examples mix in a model, or does it keep something of its data? Tried on synthetic inputs, never on data.

A layer, or an operation such as a mean over the batch, may let one example's output depend on another example. Then
several examples are in one "per-example" gradient, and the clip no longer bounds what one of them can change. A
variable that a call changes by what it sees, such as a running mean, carries data past the noise. So the trial changes
one example, and compares the outputs of the other examples and the model's variables.

    model_mixing.check(model, model.input)    # raises ValueError
"""

import weakref

import keras
import numpy as np
import tensorflow as tf

from noisy_sgd import keras_internals
from noisy_sgd.gradients.trials import synthetic

# The kinds of inputs that each model was tried on.
_TRIED: "weakref.WeakKeyDictionary[keras.Model, set]" = weakref.WeakKeyDictionary()
# The calls: in training or not, the indices of the examples (see `synthetic.Examples.chosen`), and the sets of places
# to move together, while the outputs at all other places must stay. Gradients come from calls in training: there every
# example is moved, two examples are equal, and each move makes other examples equal.
_CALLS = ((False, (0, 1), ((0,), (1,))), (True, (0, 1, 2, 0, synthetic.COUNT + 1), ((0, 3, 4), (1, 2))))
# Examples added to a batch, to see whether outputs depend on its size.
_MORE = (1, 2, 1)


def check(model: keras.Model, inputs) -> None:
    """Refuses a model in which one example's outputs depend on another example, or that keeps something of its inputs.

    Every model is tried once per structure, types and numbers of axes of its inputs, and choice of trainable layers.

    Args:
        model: a Keras model; one that is not built yet is built.
        inputs: its inputs, tensors or symbolic ones, any nest of [B, ...]; only shapes and types are used.

    Raises:
        ValueError: if moving one example changes another one's outputs, or a variable's value after a call with
            training=True; or if the model fails on synthetic inputs.
    """
    tried = _TRIED.setdefault(model, set())
    trainable = tuple(layer.trainable for layer in keras_internals.layers(model))
    signature = (trainable, synthetic.kind(model, inputs))
    if signature in tried:
        return
    problem = synthetic.first_success_of_model(model, inputs, lambda examples: _problem(model, examples))
    if problem is not None:
        raise ValueError(problem)
    tried.add(signature)


def _problem(model, examples):
    """A sentence about the first thing wrong with a model, or None."""
    if not model.built:
        synthetic.stateless_call(model, [], examples.batch(1), training=False)
    weights = synthetic.moved_weights(model)
    for training, chosen, moves in _CALLS:
        outputs, state = _called(model, weights, examples.chosen(chosen), training)
        synthetic.check_finite(outputs)
        for places in moves:
            moved = [
                (index + synthetic.COUNT) % (2 * synthetic.COUNT) if place in places else index
                for place, index in enumerate(chosen)
            ]
            others = [place for place in range(len(chosen)) if place not in places]
            found, after = _called(model, weights, examples.chosen(moved), training)
            for before, output in zip(outputs, found, strict=True):
                if not synthetic.nearly_equal(tf.gather(before, others), tf.gather(output, others), relative=True):
                    return (
                        "`model` must treat every example alone: an example's outputs change with another example, so "
                        "no clip bounds what one example can change; take out what works over the batch axis. "
                        f"Received: model={model.name}"
                    )
            for key, (name, value) in state.items() if training else ():
                # Compared exactly: a slow running mean keeps data too.
                if np.asarray(value).tobytes() != np.asarray(after[key][1]).tobytes():
                    return (
                        "`model` must keep nothing of its inputs outside its trained weights: variable "
                        f"{name!r} depends on them after a call with training=True, so data would stay there without "
                        "noise; take out the layer, or compute its statistic beforehand from public data. "
                        f"Received: variable={name}"
                    )
    if _depends_on_size(model, weights, examples, chosen, outputs):
        return (
            "`model` must treat every example alone: an example's outputs change with the number of examples in the "
            f"batch; take out what works over the batch axis. Received: model={model.name}"
        )
    return None


def _called(model, weights, inputs, training):
    """(outputs, state) of `synthetic.stateless_call`; the outputs are copies in NumPy.

    Memory of NumPy's goes back to the system; TensorFlow keeps that of tensors, in pieces too small for a training's.
    """
    outputs, state = synthetic.stateless_call(model, weights, inputs, training)
    return [np.array(output) if isinstance(output, tf.Tensor) else output for output in outputs], state


def _depends_on_size(model, weights, examples, chosen, outputs):
    """Whether outputs change with the number of examples, but not with the order of the examples.

    Random draws, as in dropout, change with both, and the clip still bounds every example.
    """

    def called(indices, training):
        return _called(model, weights, examples.chosen(indices), training)[0]

    def agree(found, places):
        rows = [tf.gather(output, places) for output in found]
        return all(
            synthetic.nearly_equal(*pair, True, synthetic.OTHER_KERNELS) for pair in zip(outputs, rows, strict=True)
        )

    places = list(range(len(chosen)))
    for training in (True, False):
        outputs = outputs if training else called(chosen, training)
        if agree(called([*chosen, *_MORE], training), places):
            return False
        if agree(called(chosen[::-1], training), places[::-1]):
            return True
    return False
