"""How much memory this process takes (Linux), and its tensors (where TensorFlow counts them), in MiB; None elsewhere.

before = memory.resident()
memory.forget_peak(); run(); memory.peak() - before
memory.forget_peak_of_tensors(); run(); memory.peak_of_tensors()
"""

import contextlib
import ctypes
import gc
import pathlib
import re

_STATUS = pathlib.Path("/proc/self/status")


def resident() -> float | None:
    """Present memory, after free memory has been returned to the system."""
    _release()
    return _line("VmRSS")


def peak() -> float | None:
    """Largest memory since the start, or since `forget_peak`."""
    return _line("VmHWM")


def forget_peak() -> None:
    """Makes `peak` start again from the present size."""
    _release()
    if _STATUS.exists():
        # 5 makes VmHWM start again (proc(5)).
        pathlib.Path("/proc/self/clear_refs").write_text("5")


def forget_peak_of_tensors() -> None:
    """Makes `peak_of_tensors` start again from the present size."""
    import tensorflow as tf

    with contextlib.suppress(ValueError):
        tf.config.experimental.reset_memory_stats("CPU:0")


def peak_of_tensors() -> float | None:
    """Largest memory of all tensors since `forget_peak_of_tensors`; None where TensorFlow's allocator counts nothing.

    On CPUs it counts with oneDNN alone, which TensorFlow uses by itself on CPUs with AVX-512.
    """
    import tensorflow as tf

    try:
        return tf.config.experimental.get_memory_info("CPU:0")["peak"] / 2**20
    except ValueError:
        return None


def _release() -> None:
    gc.collect()
    if _STATUS.exists():
        ctypes.CDLL(None).malloc_trim(0)


def _line(name: str) -> float | None:
    if not _STATUS.exists():
        return None
    return int(re.search(rf"{name}:\s*(\d+) kB", _STATUS.read_text()).group(1)) / 1024
