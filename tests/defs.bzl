"""Fat test targets: TensorFlow takes seconds to import, so one process runs a whole folder."""

load("@rules_python//python:defs.bzl", "py_test")

def test_folder(name, size = "large", exclude = []):
    """One target that runs every *_test.py of this package and of the folders below it, in one process.

    Args:
        name: of the target.
        size: of the target, which sets its time limit.
        exclude: files that have a target of their own.
    """
    files = native.glob(["**/*_test.py"], allow_empty = True, exclude = exclude)
    if files:
        py_test(
            name = name,
            size = size,
            srcs = files + ["//tests:run_pytest.py"],
            args = ["$(location %s)" % file for file in files],
            data = [
                "//:documents",
                "//configs",
            ] + native.glob(["**/*.py"], allow_empty = True, exclude = ["**/*_test.py"]),
            main = "//tests:run_pytest.py",
            deps = [
                "//:noisy_sgd",
                "//tests:browser",
                "//tests:conftest",
                "//tests:ilsvrc",
                "//tests:oracles",
            ],
        )
