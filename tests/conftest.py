"""Quiets TensorFlow's logs and splits the CPU into two logical devices, before anything initialises TensorFlow."""

import os

from absl import flags

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def pytest_configure(config):
    # absltest's create_tempdir reads a flag that only absltest.main would parse.
    flags.FLAGS.mark_as_parsed()
    # The controller of parallel workers runs no test, and importing TensorFlow takes seconds.
    is_controller = bool(config.getoption("numprocesses", None)) and not hasattr(config, "workerinput")
    if not is_controller:
        from noisy_sgd.training import distribution

        distribution.use_logical_devices(2)
