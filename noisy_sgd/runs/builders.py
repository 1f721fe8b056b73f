"""Builds the objects of a run from its configuration: images, network, optimizer, compiled steps, privacy statement.

objects = builders.build(settings)               # noisy_sgd.config.Config
with recorded_run.started(objects, settings) as run:
    recorded_run.train(run)
builders.restart(objects, settings_of_another_seed)     # another run with the same compiled step
"""

import dataclasses
import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from noisy_sgd import config, sampling
from noisy_sgd.data import bundled, label_noise
from noisy_sgd.mechanisms import adaptive_clipping, correlated
from noisy_sgd.models import feedforward, named_weights, nf_resnet, wide_resnet
from noisy_sgd.optimizers import adam, extrapolation, lars, noised, privatized, sgd
from noisy_sgd.privacy import plan as plans
from noisy_sgd.privacy import statement
from noisy_sgd.runs import saved_model
from noisy_sgd.training import distribution, loop, private_model, training_metrics, weight_average

_EVALUATION_BATCH = 512
# Per name, the optimizer without noise, with that of Noisy-SGD if there is one, and its private version.
_OPTIMIZERS = {
    "sgd": (keras.optimizers.SGD, sgd.NoisySGD, sgd.DPSGD),
    "adam": (keras.optimizers.Adam, None, adam.DPAdam),
    "adamw": (keras.optimizers.AdamW, None, adam.DPAdamW),
    "lars": (lars.LARS, lars.NoisyLARS, lars.DPLARS),
    "extrap_sgd": (extrapolation.ExtrapSGD, extrapolation.NoisyExtrapSGD, extrapolation.DPExtrapSGD),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunObjects:
    """A compiled model with its images; `steps` are traced once and serve every run of the model.

    Attributes:
        images: the training and test images.
        strategy: the strategy that the model was built under.
        model: the compiled model.
        average: the moving average of the weights; None for a run without one.
        metrics: metrics of the training data. They are private facts of a DP-SGD run.
        steps: the compiled steps, from `loop.step_functions`.
        evaluate: returns the metrics of the test images.
        initial: the initial values of the optimizer's variables.
        fed: a sentence that says which pixels a saved model receives; None for a network chosen by name.
    """

    images: bundled.ImageSet
    strategy: tf.distribute.Strategy
    model: private_model.PrivateModel
    average: weight_average.WeightAverage | None
    metrics: dict[str, keras.metrics.Metric]
    steps: tuple[Callable, Callable]
    evaluate: Callable[[], dict[str, float]]
    initial: list[np.ndarray]
    fed: str | None = None


def build(
    settings: config.Config,
    say: Callable[[str], None] = lambda sentence: None,
    *,
    images: bundled.ImageSet | None = None,
) -> RunObjects:
    """Loads the images and compiles the network with its optimizer under the strategy.

    Args:
        settings: the configuration.
        say: called with a sentence that names the workers this process waits for. Defaults to doing nothing.
        images: in place of those that the configuration names, such as images with the canaries of an audit. Defaults
            to None.

    Raises:
        ValueError: if the images or the devices are not found, the model cannot be trained with this configuration, or
            the batch is larger than the data.
    """
    if settings.run.logical_devices is not None:
        distribution.use_logical_devices(settings.run.logical_devices)
    strategy = distribution.make_strategy(settings.run.strategy, settings.run.tpu, say=say)
    images = image_set(settings.data) if images is None else images
    batch_size, available = settings.training.batch_size, images.num_train_examples
    way_out = "give a smaller one"
    config.require(
        batch_size <= available, "batch_size", f"must be at most the {available} examples", batch_size, way_out
    )
    chosen = settings.training
    with distribution.naming_lost_workers(strategy), strategy.scope():
        model, fed = _network(settings.model, images, settings.run.seed, private_model.PrivateModel)
        model.compile(
            optimizer(settings),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            batch_size=batch_size,
            augmentation_multiplicity=chosen.augmentation_multiplicity,
        )
        average = weight_average.WeightAverage(model.trainable_weights, chosen.ema_decay) if chosen.ema_decay else None
        metrics = training_metrics.for_algorithm(chosen.algorithm)
    return RunObjects(
        images=images,
        strategy=strategy,
        model=model,
        average=average,
        metrics=metrics,
        steps=loop.step_functions(model, strategy, metrics, average),
        evaluate=_evaluation(model, average, images),
        initial=[variable.numpy() for variable in privatized.state_variables(model.optimizer)],
        fed=fed,
    )


def restart(objects: RunObjects, settings: config.Config) -> None:
    """Resets the objects to the state that `build` returns for `settings`, which may differ in the seeds only."""
    fresh = network(settings.model, objects.images, settings.run.seed)
    for variable, value in zip(objects.model.variables, fresh.variables, strict=True):
        variable.assign(value)
    for variable, value in zip(privatized.state_variables(objects.model.optimizer), objects.initial, strict=True):
        variable.assign(value)
    if objects.average is not None:
        objects.average.reset()
    for metric in objects.metrics.values():
        metric.reset_state()
    if noised.is_noised(objects.model.optimizer):
        objects.model.optimizer.rekey(settings.noise_seed)


def image_set(data: config.Data) -> bundled.ImageSet:
    """The images, with label noise if the configuration asks for it; ImageNet images are read during training."""
    if data.dataset == "imagenet2012":
        from noisy_sgd.data import imagenet  # tensorflow-datasets takes seconds to import.

        return imagenet.load(
            data.data_dir,
            image_size=data.resolved_image_size,
            train_size=data.num_train_examples,
            held_out=data.held_out or 0,
            framing="deepmind" if data.augmentation == "deepmind" else "tan",
            enlarged=data.augmentation == "deepmind",
            skips_corrupt=data.corrupt_images == "skip",
        )
    size, held_out = data.num_train_examples, data.held_out or 0
    images = bundled.load(data.dataset, data.data_dir, train_size=size, held_out=held_out)
    return label_noise.replace(images, data.label_noise) if data.label_noise else images


def network(
    model: config.Model,
    images: bundled.ImageSet,
    seed: int,
    model_class: type[keras.Model] = private_model.PrivateModel,
) -> keras.Model:
    """The network chosen by name, or a saved functional model with its saved weights.

    Raises:
        ValueError: for the reasons that `saved_model.load` lists.
    """
    return _network(model, images, seed, model_class)[0]


def _network(
    model: config.Model, images: bundled.ImageSet, seed: int, model_class: type[keras.Model]
) -> tuple[keras.Model, str | None]:
    """The network, and a sentence that says which pixels a saved model receives."""
    if model.is_saved:
        return saved_model.load(model.model, images, pixel_range=model.pixel_range, model_class=model_class)
    made = _named(model, images, seed, model_class)
    if model.initial_weights is not None:
        named_weights.load(model.initial_weights, made)
    return made, None


def _named(model: config.Model, images: bundled.ImageSet, seed: int, model_class: type[keras.Model]) -> keras.Model:
    common = {
        "input_shape": images.image_shape,
        "pixel_range": images.pixel_range,
        "seed": seed,
        "model_class": model_class,
        "dtype": "mixed_bfloat16" if model.precision == "bfloat16" else "float32",
    }
    if model.model == "wrn_16_4":
        return wide_resnet(16, 4, images.num_classes, **common)
    if model.model == "mlp":
        return feedforward.mlp(images.num_classes, hidden=model.hidden or (512, 512), **common)
    if model.model == "mnist_cnn":
        return feedforward.mnist_cnn(images.num_classes, **common)
    if model.model == "mnist_cnn_tanh":
        low, high = images.pixel_range
        # Scales pixels to [0, 1]: the network maps this range to [-1, 1], and no pixel is in its lower half.
        unit = {**common, "pixel_range": (2 * low - high, high)}
        return feedforward.mnist_cnn(images.num_classes, activation="tanh", **unit)
    own = {"convention": model.convention or "deepmind", "normalization": images.normalization}
    return nf_resnet(model.model, images.num_classes, **common, **own)


def optimizer(settings: config.Config) -> keras.optimizers.Optimizer:
    """The optimizer of the algorithm; DP-SGD adds the noise of Eq. (2), Noisy-SGD the noise of Eq. (11)."""
    chosen = settings.training
    public, noisy, private = _OPTIMIZERS[chosen.optimizer]
    own = {"momentum": chosen.momentum} if chosen.takes_momentum else {}
    if chosen.noise_correlation is not None:
        own["noise"] = noise(chosen.noise_correlation)
    if chosen.algorithm == "noisy_sgd":
        return noisy(chosen.learning_rate, chosen.noise_std, seed=settings.noise_seed, **own)
    if chosen.algorithm == "sgd":
        return public(chosen.learning_rate, **own)
    quantile = chosen.target_quantile
    return private(
        chosen.learning_rate,
        l2_norm_clip=chosen.l2_norm_clip,
        noise_multiplier=chosen.resolved_noise_multiplier,
        batch_size=chosen.batch_size,
        seed=settings.noise_seed,
        clipping=chosen.clipping,
        adaptive_clipping=None if quantile is None else adaptive_clipping.AdaptiveClipping(target_quantile=quantile),
        **own,
    )


def noise(correlation: str) -> correlated.CorrelatedNoise:
    """The recipe that `--noise_correlation` describes."""
    kind, numbers = config.parsed_noise_correlation(correlation)
    if kind == "lambda_cgd":
        return correlated.CorrelatedNoise.lambda_cgd(*numbers)
    if kind == "banded_inverse_square_root":
        return correlated.CorrelatedNoise.banded_inverse_square_root(int(numbers[0]))
    return correlated.CorrelatedNoise(numbers)


def scheme(settings: config.Config, num_examples: int, secret: bytes | None = None) -> sampling.Scheme:
    """The sampling scheme of a run.

    Args:
        settings: the run's configuration.
        num_examples: number of training examples.
        secret: the seed of the batches if the scheme's amplification requires secret batches. Defaults to None, which
            takes the run's seed.
    """
    kind = sampling.named(settings.training.sampling)
    seed = secret if secret and kind.amplifies else settings.run.seed
    return kind(num_examples, settings.training.batch_size, seed)


def plan(
    settings: config.Config, optimizer: keras.optimizers.Optimizer, num_examples: int, num_steps: int
) -> plans.Plan:
    """The plan of a DP-SGD run for the privacy accountant, from its optimizer and its sampling scheme.

    Args:
        settings: the run's configuration.
        optimizer: the run's optimizer.
        num_examples: number of training examples.
        num_steps: number of steps of the run.
    """
    drawn = scheme(settings, num_examples)
    return plans.Plan(
        event=optimizer.mechanism,
        sampling=drawn,
        num_steps=num_steps,
        delta=delta(settings.training, num_examples),
        batches_known=drawn.amplifies and settings.training.noise_seed is not None,
    )


def delta(chosen: config.Training, num_examples: int) -> float:
    """The configured delta, or the largest power of ten below 1 / num_examples."""
    return chosen.delta or 10.0 ** -(math.floor(math.log10(num_examples)) + 1)


def privacy_statement(
    settings: config.Config,
    optimizer: keras.optimizers.Optimizer,
    num_examples: int,
    num_steps: int | None = None,
    attempts: tuple[tuple[int, int], ...] | None = None,
) -> statement.PrivacyStatement:
    """The privacy guarantee of a run.

    Args:
        settings: the run's configuration.
        optimizer: the run's optimizer.
        num_examples: number of training examples.
        num_steps: number of steps of the run. Defaults to the configured number.
        attempts: the attempts in the run's `privacy.ledger.Ledger`. Defaults to one attempt from the first step.
    """
    chosen = settings.training
    if chosen.algorithm != "dp_sgd":
        return statement.statement(chosen.algorithm)
    return statement.statement(
        "dp_sgd",
        plan(settings, optimizer, num_examples, chosen.num_steps if num_steps is None else num_steps),
        clipping=chosen.clipping,
        explicit_noise_seed=chosen.noise_seed is not None,
        attempts=attempts,
    )


def _evaluation(model, average, images: bundled.ImageSet) -> Callable[[], dict[str, float]]:
    """A function that evaluates the weights and, under names "ema_...", their moving average if the run has one."""
    evaluate = loop.evaluation(model, images.test_batches(_EVALUATION_BATCH))
    if average is None:
        return evaluate

    def evaluate_both():
        results = evaluate()
        with average.applied(model):
            return results | {f"ema_{name}": value for name, value in evaluate().items()}

    return evaluate_both
