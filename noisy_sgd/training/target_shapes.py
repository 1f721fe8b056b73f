"""Refuses targets whose shape does not fit the loss and the shape of the model's outputs, naming both shapes.

    TargetShapes().check(loss.matched((y,), model.output))
    # ValueError: `y` must have a shape that ... Received: y of shape (None, 4), outputs of shape (None, 2)

The loss is traced on shapes; no value is computed. Without this check TensorFlow would raise its own error in the trial
on synthetic inputs, or in the middle of a step.
"""

import tensorflow as tf

# With an unknown B, targets [B] would fit any outputs [B, C]. No output has this number of classes C.
_EXAMPLES = 7919


class TargetShapes:
    """Checks each combination of shapes once."""

    def __init__(self):
        self._fitting = set()

    def check(self, rows) -> None:
        """Traces the losses of all outputs whose shapes have a known rank.

        Args:
            rows: from `PerExampleLoss.matched`, with targets.

        Raises:
            ValueError: naming the shapes that a loss does not take.
        """
        for function, _, y_true, weight, y_pred in rows:
            tensors = {"y": y_true, "outputs": y_pred} | ({} if weight is None else {"sample_weight": weight})
            shapes = [tf.TensorShape(tensor.shape) for tensor in tensors.values()]
            if not all(shape.rank for shape in shapes):
                continue
            examples = _EXAMPLES if shapes[0].rank == 1 else None
            specs = {
                name: tf.TensorSpec([examples, *shape[1:]], tensor.dtype)
                for (name, tensor), shape in zip(tensors.items(), shapes, strict=True)
            }
            key = (function, *specs.items())
            if key in self._fitting:
                continue
            with tf.init_scope():
                _trace(function, specs)
            self._fitting.add(key)


def _trace(function, specs):
    def on_shapes(tensors):
        return function(tensors["y"], tensors["outputs"], tensors.get("sample_weight"))

    try:
        tf.function(on_shapes, autograph=False).get_concrete_function(specs)
    except Exception as error:
        shapes = ", ".join(f"{name} of shape {(None, *spec.shape[1:])}" for name, spec in specs.items())
        named = "`y`" if len(specs) == 2 else "`y` and `sample_weight`"
        raise ValueError(
            f"{named} must have a shape that fits the loss and the model's outputs: {_first_line(error)}. "
            f"Received: {shapes}"
        ) from error


def _first_line(error):
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:200]}".rstrip(".")
