"""Runs test files under pytest in one process: the main of Bazel's test targets, each a folder of tests.

bazel test //tests/sde    # python tests/run_pytest.py tests/sde/brownian_test.py tests/sde/...
"""

import sys

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(["--numprocesses=0", "-p", "no:cacheprovider", *sys.argv[1:]]))
