"""Which device runs the operations that are traced or executed now: a CPU, an accelerator, or what XLA compiles for.

if devices.kind() == "accelerator":
    ...    # no loop over examples

Covered by tests/gradients/engines/example_map_test.py.
"""

import tensorflow as tf
from tensorflow.python.ops import control_flow_util


def in_xla() -> bool:
    """Whether what is traced now is compiled by XLA."""
    return not tf.executing_eagerly() and control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def accelerators() -> list:
    """The GPUs and TPUs that TensorFlow can use."""
    return tf.config.list_logical_devices("GPU") + tf.config.list_logical_devices("TPU")


def kind() -> str:
    """ "cpu" or "accelerator"; what XLA compiles counts as an accelerator."""
    return "accelerator" if in_xla() or accelerators() else "cpu"
