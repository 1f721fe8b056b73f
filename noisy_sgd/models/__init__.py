"""Keras layers and models, built by plain functions.

    models.nf_resnet("nf_resnet_small", 10)
    models.wide_resnet(16, 4, 10)

These two names are functions. Their modules have the same names: import from them by `from noisy_sgd.models.nf_resnet
import ...`.
"""

from noisy_sgd.models.nf_resnet import nf_resnet
from noisy_sgd.models.wide_resnet import wide_resnet

__all__ = ["nf_resnet", "wide_resnet"]
