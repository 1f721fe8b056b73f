"""The data and the network of a case: a dictionary with `dataset`, `num_train_examples`, `network` and `seed`.

data = cases.load({"dataset": "digits", "num_train_examples": 200, "network": "mlp", "seed": 3})

Covered by tests/studies/landscape_test.py.
"""

from collections.abc import Mapping
from typing import Any

from noisy_sgd.studies.laboratory import images, networks


def load(case: Mapping[str, Any], data_dir: str | None = None) -> images.Data:
    """The images of the case's seed.

    Args:
        case: the case.
        data_dir: as in `images.load`.
    """
    return images.load(case["dataset"], case["seed"], num_train_examples=case["num_train_examples"], data_dir=data_dir)


def builder(case: Mapping[str, Any], data_dir: str | None = None) -> networks.Builder:
    """The case's network, as a function from a seed."""
    return networks.builder(case["network"], load(case, data_dir))
