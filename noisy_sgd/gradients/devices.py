"""What the operations being traced or executed now will run on.

if devices.in_xla() or devices.accelerators():
    ...    # no loop over examples
"""

import tensorflow as tf
from tensorflow.python.ops import control_flow_util


def in_xla() -> bool:
    """Whether what is traced now is compiled by XLA."""
    return not tf.executing_eagerly() and control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def accelerators() -> list:
    """The GPUs and TPUs that TensorFlow has."""
    return tf.config.list_logical_devices("GPU") + tf.config.list_logical_devices("TPU")


def refusal_by_xla(error: tf.errors.OpError) -> ValueError | None:
    """What to raise in place of an error that says that XLA cannot compile a model; None for other errors."""
    if "tf2xla conversion failed" not in error.message:
        return None
    reason = next((line for line in error.message.splitlines() if line and "XLA" in line), "")
    return ValueError(
        "`jit_compile` must be False for a model with operations that XLA cannot compile: "
        f"{' '.join(reason.split())[:300]}. Received: jit_compile=True"
    )
