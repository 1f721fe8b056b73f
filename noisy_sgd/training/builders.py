"""From a configuration to the objects that train: images, network, optimizer, compiled steps, privacy statement.

built = builders.build(settings)               # noisy_sgd.config.Config
recorded_run.train(built, settings)
builders.restart(built, settings_of_another_seed)     # the same compiled step, another run
"""

import dataclasses
import math
from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from noisy_sgd import config
from noisy_sgd.data import bundled, label_noise
from noisy_sgd.models import feedforward, nf_resnet, wide_resnet
from noisy_sgd.optimizers import dp_sgd, noisy_sgd
from noisy_sgd.privacy import accounting, statement
from noisy_sgd.training import distribution, loop, private_model

_EVALUATION_BATCH = 512


@dataclasses.dataclass(frozen=True, kw_only=True)
class Built:
    """A compiled model with its images; `steps` are traced once and serve every run of it."""

    images: bundled.ImageSet
    strategy: tf.distribute.Strategy
    model: private_model.PrivateModel
    metrics: dict[str, keras.metrics.Metric]
    steps: tuple[Callable, Callable]
    evaluate: Callable[[], dict[str, float]]


def build(settings: config.Config) -> Built:
    """Loads the images, and compiles the network with its optimizer under its strategy.

    A DP-SGD model has no training metrics: what is read from the training data without noise is not private.

    Raises:
        ValueError: for images that cannot be had, a model that cannot be trained so, or a batch larger than the data.
    """
    if settings.run.logical_devices is not None:
        distribution.use_logical_devices(settings.run.logical_devices)
    strategy = distribution.make_strategy(settings.run.strategy)
    images = image_set(settings.data)
    batch_size, available = settings.algorithm.batch_size, len(images.train_labels)
    way_out = "give a smaller one"
    config.require(
        batch_size <= available, "batch_size", f"must be at most the {available} examples", batch_size, way_out
    )
    with strategy.scope():
        model = network(settings.model, images, settings.run.seed)
        model.compile(
            optimizer(settings),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            batch_size=batch_size,
        )
        model.optimizer.build(model.trainable_variables)
        metrics = {} if settings.algorithm.algorithm == "dp_sgd" else loop.classification_metrics()
        evaluate = _evaluation(model, images)
    steps = loop.step_functions(model, strategy, metrics)
    return Built(images=images, strategy=strategy, model=model, metrics=metrics, steps=steps, evaluate=evaluate)


def restart(built: Built, settings: config.Config) -> None:
    """Makes a built model what `build` would make it for a configuration that differs in its seeds only."""
    fresh = network(settings.model, built.images, settings.run.seed)
    built.model.set_weights(fresh.get_weights())
    kept = (built.model.optimizer.learning_rate, getattr(built.model.optimizer, "noise_std", None))
    for variable in built.model.optimizer.variables:
        if not any(variable is one for one in kept):
            variable.assign(tf.zeros_like(variable.value))
    if isinstance(built.model.optimizer, noisy_sgd.NoisySGD):
        built.model.optimizer.rekey(settings.noise_seed)


def image_set(data: config.Data) -> bundled.ImageSet:
    """The images, with wrong labels where that is asked for."""
    images = bundled.load(data.dataset, data.data_dir, train_size=data.num_train_examples)
    return label_noise.replace(images, data.label_noise) if data.label_noise else images


def network(
    model: config.Model,
    images: bundled.ImageSet,
    seed: int,
    model_class: type[keras.Model] = private_model.PrivateModel,
) -> keras.Model:
    """The network by name, or a saved functional model, whose weights are taken as they are.

    Raises:
        ValueError: for a file that cannot be read, or a model that is not functional or does not fit the images.
    """
    shape = images.train_images.shape[1:]
    if model.model.endswith(".keras"):
        return _saved(model.model, shape, images.num_classes, model_class)
    common = {
        "input_shape": shape,
        "pixel_range": images.pixel_range,
        "seed": seed,
        "model_class": model_class,
    }
    if model.model == "wrn_16_4":
        return wide_resnet(16, 4, images.num_classes, **common)
    if model.model == "mlp":
        return feedforward.mlp(images.num_classes, hidden=model.hidden or (512, 512), **common)
    if model.model == "mnist_cnn":
        return feedforward.mnist_cnn(images.num_classes, **common)
    return nf_resnet(model.model, images.num_classes, **common)


def optimizer(settings: config.Config) -> keras.optimizers.Optimizer:
    """The optimizer of an algorithm; the noise is that of equations (11) and (2).

    Raises:
        ValueError: for a DP-SGD mechanism that is not the one its privacy statement accounts for.
    """
    chosen = settings.algorithm
    common = {"learning_rate": chosen.learning_rate, "momentum": chosen.momentum}
    if chosen.ema_decay:
        common |= {"use_ema": True, "ema_momentum": chosen.ema_decay}
    if chosen.algorithm == "sgd":
        return keras.optimizers.SGD(**common)
    if chosen.algorithm == "noisy_sgd":
        return noisy_sgd.NoisySGD(noise_std=chosen.noise_std, seed=settings.noise_seed, **common)
    made = dp_sgd.DPSGD(
        l2_norm_clip=chosen.l2_norm_clip,
        noise_multiplier=chosen.resolved_noise_multiplier,
        batch_size=chosen.batch_size,
        seed=settings.noise_seed,
        **common,
    )
    if chosen.resolved_noise_multiplier:
        accounting.check_mechanism(made.event, chosen.resolved_noise_multiplier)
    return made


def privacy_statement(settings: config.Config, num_examples: int) -> statement.PrivacyStatement:
    """What the run guarantees; delta is by default the largest power of ten below one over the number of examples."""
    chosen = settings.algorithm
    if chosen.algorithm != "dp_sgd":
        return statement.statement(chosen.algorithm)
    return statement.statement(
        "dp_sgd",
        noise_multiplier=chosen.resolved_noise_multiplier,
        l2_norm_clip=chosen.l2_norm_clip,
        batch_size=chosen.batch_size,
        num_examples=num_examples,
        num_steps=chosen.num_steps,
        delta=chosen.delta or 10.0 ** -(math.floor(math.log10(num_examples)) + 1),
        explicit_noise_seed=chosen.noise_seed is not None,
    )


def _saved(path: str, shape: Sequence[int], num_classes: int, model_class: type[keras.Model]) -> keras.Model:
    loaded = keras.models.load_model(path, compile=False)
    functional = isinstance(loaded, keras.Model) and hasattr(loaded, "inputs")
    config.require(
        functional, "model", "must be a functional Keras model", path, "rebuild it with keras.Model(inputs, outputs)"
    )
    fits = tuple(loaded.input_shape[1:]) == tuple(shape) and loaded.output_shape[-1] == num_classes
    constraint = f"must map images of shape {tuple(shape)} to {num_classes} logits"
    config.require(fits, "model", constraint, path, f"it maps {loaded.input_shape[1:]} to {loaded.output_shape[1:]}")
    return model_class(loaded.inputs, loaded.outputs[0])


def _evaluation(model: private_model.PrivateModel, images: bundled.ImageSet) -> Callable[[], dict[str, float]]:
    """Evaluates the weights' moving average where there is one; the weights stay as they were."""
    evaluate = loop.evaluation(model, _test_batches(images))
    if not model.optimizer.use_ema:
        return evaluate

    def evaluate_average():
        weights = model.get_weights()
        model.optimizer.finalize_variable_values(model.trainable_variables)
        results = evaluate()
        model.set_weights(weights)
        return results

    return evaluate_average


def _test_batches(images: bundled.ImageSet) -> list[tuple[tf.Tensor, ...]]:
    """The test images in batches of one shape, padded and masked."""
    count = len(images.test_labels)
    size = min(count, _EVALUATION_BATCH)
    batches = []
    for first in range(0, count, size):
        rows = range(first, first + size)
        kept = [row if row < count else 0 for row in rows]
        mask = tf.constant([row < count for row in rows])
        batches.append((tf.constant(images.test_images[kept]), tf.constant(images.test_labels[kept]), mask))
    return batches
