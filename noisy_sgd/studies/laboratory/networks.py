"""The networks of the laboratory, by name, as functions from a seed to a `PrivateModel`.

network = networks.builder("mlp", data, width=128)
model = network(3)      # with the initialization of seed 3
"""

import functools
from collections.abc import Callable

import keras

from noisy_sgd import checks
from noisy_sgd.models import feedforward, nf_resnet, vision_transformer, wide_resnet
from noisy_sgd.studies.laboratory import images, settings
from noisy_sgd.training import private_model

Builder = Callable[[int], private_model.PrivateModel]


def builder(name: str, data: images.Data, *, width: int | None = None) -> Builder:
    """A function from a seed to the network with the initialization of that seed.

    Args:
        name: one of `settings.NETWORKS`. "nf_resnet" is `nf_resnet_tiny`; "wide_resnet" is WRN-10-1 with group
            normalization.
        data: whose images the network takes.
        width: units of the hidden layer of the perceptron. Defaults to 128.
    """
    checks.choice("network", name, settings.NETWORKS)
    checks.require(width is None or name == "mlp", "width", "must be None unless `network` is mlp", width)
    common = {
        "input_shape": data.image_shape,
        "pixel_range": data.pixel_range,
        "model_class": private_model.PrivateModel,
    }
    makers: dict[str, Callable[..., keras.Model]] = {
        "mlp": functools.partial(feedforward.mlp, data.num_classes, hidden=(width or 128,)),
        "cnn": functools.partial(feedforward.cnn, data.num_classes),
        "nf_resnet": functools.partial(nf_resnet, "nf_resnet_tiny", data.num_classes),
        "wide_resnet": functools.partial(wide_resnet, 10, 1, data.num_classes, groups=4),
        "vision_transformer": functools.partial(vision_transformer, data.num_classes),
    }
    made = functools.partial(makers[name], **common)
    return lambda seed: made(seed=seed)
