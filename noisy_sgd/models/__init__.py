"""Keras layers and models, built by plain functions.

    models.nf_resnet("nf_resnet_small", 10)
    models.wide_resnet(16, 4, 10)
    models.mlp(10, hidden=(512, 512)); models.mnist_cnn(10); models.cnn(10)
    models.vision_transformer(10)
    models.DiagonalLinearNetwork(dimension=100, alpha=0.1)

`nf_resnet`, `wide_resnet` and `vision_transformer` are functions. Their modules have the same names: import from them
by `from noisy_sgd.models.nf_resnet import ...`.
"""

from noisy_sgd.models.diagonal_linear import DiagonalLinearNetwork
from noisy_sgd.models.feedforward import cnn, mlp, mnist_cnn
from noisy_sgd.models.group_normalization import GroupNormalization
from noisy_sgd.models.least_squares import LinearLeastSquares
from noisy_sgd.models.nf_resnet import nf_resnet
from noisy_sgd.models.normalizer_free import SkipGain, WeightStandardizedConv2D
from noisy_sgd.models.vision_transformer import vision_transformer
from noisy_sgd.models.wide_resnet import wide_resnet

__all__ = [
    "DiagonalLinearNetwork",
    "GroupNormalization",
    "LinearLeastSquares",
    "SkipGain",
    "WeightStandardizedConv2D",
    "cnn",
    "mlp",
    "mnist_cnn",
    "nf_resnet",
    "vision_transformer",
    "wide_resnet",
]
