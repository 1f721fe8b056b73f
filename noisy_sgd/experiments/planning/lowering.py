"""The program of a run's step as StableHLO, without its data and without its devices.

    objects = lowering.objects(settings)
    text = lowering.microbatch_program(objects, settings, microbatch_size=16)      # "module ..."

Tested by tests/experiments/plan_test.py.
"""

import dataclasses
from typing import Any

from noisy_sgd import config

# ImageNet's own numbers: of its images nothing else is needed.
IMAGENET_EXAMPLES, IMAGENET_CLASSES = 1_281_167, 1000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """What of an image set decides the program and its cost, named as in `bundled.ImageSet`."""

    image_shape: tuple[int, int, int]
    pixel_range: tuple[float, float]
    normalization: Any
    num_classes: int
    num_train_examples: int

    def test_batches(self, size: int) -> tuple:
        """None: a plan evaluates nothing."""
        return ()


def facts(data: config.Data) -> Facts:
    """The facts of the images; ImageNet's need no files."""
    from noisy_sgd.runs import builders

    if data.dataset != "imagenet2012":
        images = builders.image_set(data)
        names = [field.name for field in dataclasses.fields(Facts)]
        return Facts(**{name: getattr(images, name) for name in names})
    from noisy_sgd.data import imagenet  # tensorflow-datasets takes seconds to import.

    side, available = data.resolved_image_size, IMAGENET_EXAMPLES - (data.held_out or 0)
    return Facts(
        image_shape=(side, side, 3),
        pixel_range=(0.0, 255.0),
        normalization=(imagenet.CHANNEL_MEANS, imagenet.CHANNEL_STDS),
        num_classes=IMAGENET_CLASSES,
        num_train_examples=data.num_train_examples or available,
    )


def objects(settings: config.Config):
    """The compiled model and its optimizer on this machine's CPU, as `builders.build` makes them."""
    from noisy_sgd.runs import builders

    here = dataclasses.replace(settings.run, strategy="default", tpu=None, logical_devices=None)
    return builders.build(dataclasses.replace(settings, run=here), images=facts(settings.data))


def microbatch_program(made, settings: config.Config, microbatch_size: int) -> str:
    """What a replica computes for each microbatch.

    Args:
        made: from `objects`.
        settings: the run.
        microbatch_size: examples on each device at a time.
    """
    import tensorflow as tf

    from noisy_sgd.training import loop

    accumulate, _ = loop.replica_functions(made.model, made.metrics)
    views = settings.training.augmentation_multiplicity
    shape = [microbatch_size, *([views] if views > 1 else []), *made.images.image_shape]
    images, labels = tf.zeros(shape, tf.uint8), tf.zeros([microbatch_size], tf.int32)
    return _stablehlo(accumulate, images, labels, tf.ones([microbatch_size], tf.bool))


def update_program(made) -> str:
    """What a replica computes once for each logical batch: noise, the optimizer's update, the average of the weights.

    The sum over the replicas is not in it.
    """
    from noisy_sgd.training import loop

    _, finish = loop.replica_functions(made.model, made.metrics)

    def update():
        finish()
        if made.average is not None:
            made.average.update(made.strategy, made.model.optimizer.iterations - 1)

    return _stablehlo(update)


def _stablehlo(function, *arguments) -> str:
    import tensorflow as tf

    compiled = tf.function(function, jit_compile=True, autograph=False)
    return compiled.experimental_get_compiler_ir(*arguments)(stage="stablehlo")
