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
