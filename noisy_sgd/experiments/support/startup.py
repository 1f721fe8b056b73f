"""Imports TensorFlow without its start-up notes, which would hide the one sentence that a person has to read.

startup.tensorflow()
from noisy_sgd.runs import builders
"""

import contextlib
import os
import sys
from collections.abc import Iterator


def tensorflow() -> None:
    """Imports TensorFlow and looks for its devices; errors are raised as usual."""
    if "tensorflow" in sys.modules:
        return
    with _quiet_stderr():
        import tensorflow as tf

        tf.config.list_physical_devices()


def environment() -> dict[str, str]:
    """The environment variables that are set and change TensorFlow's arithmetic."""
    # oneDNN also reads variables that start with DNNL, its former name.
    prefixes = ("TF_", "XLA_", "OMP_", "MKL_", "ONEDNN_", "DNNL_", "NVIDIA_TF32")
    aside = ("TF_CONFIG", "TF_CPP_MIN_LOG_LEVEL", "TF_CPP_MAX_VLOG_LEVEL")
    names = [name for name in sorted(os.environ) if name.startswith(prefixes) and name not in aside]
    return {name: os.environ[name] for name in names}


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    # TensorFlow writes to the descriptor from C++, before it has read TF_CPP_MIN_LOG_LEVEL.
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
