"""The only maker of tf.distribute strategies.

distribution.use_logical_devices(2)                 # before TensorFlow starts: two replicas on one CPU
strategy = distribution.make_strategy("mirrored")
"""

import functools

import tensorflow as tf

STRATEGIES = ("default", "mirrored")


def use_logical_devices(count: int) -> None:
    """Splits the CPU into `count` logical devices, so that several replicas can be tried anywhere.

    Args:
        count: at least 1. The same count again does nothing.

    Raises:
        ValueError: for a count below 1, or after TensorFlow has started with another one.
    """
    if count < 1:
        raise ValueError(f"`logical_devices` must be at least 1. Received: logical_devices={count}")
    cpu = tf.config.list_physical_devices("CPU")[0]
    present = tf.config.get_logical_device_configuration(cpu)
    if len(present or [None]) == count:
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:
        raise ValueError(
            "`logical_devices` must be set before TensorFlow runs anything: set it first. "
            f"Received: logical_devices={count}"
        ) from None


def make_strategy(name: str) -> tf.distribute.Strategy:
    """The strategy of a name.

    Args:
        name: "default", one device; "mirrored", one replica on each GPU, or on each logical CPU where there is no GPU.

    Returns:
        A `tf.distribute.Strategy`; build model and optimizer in its `scope()`.

    Raises:
        ValueError: for another name.
    """
    if name == "default":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        return _mirrored()
    raise ValueError(f"`strategy` must be one of {STRATEGIES}. Received: strategy={name!r}")


@functools.cache
def _mirrored() -> tf.distribute.Strategy:
    # One a process, and no collectives between logical CPUs: those of two strategies take each other's places.
    gpus = tf.config.list_logical_devices("GPU")
    reduction = None if gpus else tf.distribute.ReductionToOneDevice()
    devices = [device.name for device in gpus or tf.config.list_logical_devices("CPU")]
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)
