"""Normalizer-free pre-activation ResNets (Brock et al., 2021): the paper's ImageNet network, and small ones.

    x_{l+1} = shortcut + alpha * skip gain * f(relu(x_l) * beta_l),   beta_l = 1 / sqrt(expected variance of x_l)

f is the bottleneck conv 1x1 (a quarter of the width), relu, conv 3x3, relu, conv 1x1 of weight-standardized
convolutions. These keep the variance, so that each block adds alpha^2 to it. The variance is known without a batch, and
no example's gradient depends on another example.

    model = nf_resnet("nf_resnet50", 1000)                      # 25,557,032 parameters and 16 skip gains
    model = nf_resnet("nf_resnet_tiny", 10, pixel_range=(0.0, 16.0))
"""

import dataclasses
from collections.abc import Sequence

import keras

from noisy_sgd import checks
from noisy_sgd.models import initialization, normalizer_free, pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """Stages of `depths` blocks with `widths` channels; the first block of each stage has stride `strides`."""

    input_shape: tuple[int, int, int]
    stem: str
    stem_width: int
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    strides: tuple[int, ...]


VARIANTS = {
    "nf_resnet50": Variant(
        input_shape=(224, 224, 3),
        stem="7x7",
        stem_width=64,
        depths=(3, 4, 6, 3),
        widths=(256, 512, 1024, 2048),
        strides=(1, 2, 2, 2),
    ),
    "nf_resnet_small": Variant(
        input_shape=(32, 32, 3), stem="3x3", stem_width=32, depths=(2, 2, 2), widths=(64, 128, 256), strides=(1, 2, 2)
    ),
    "nf_resnet_tiny": Variant(
        input_shape=(8, 8, 1), stem="3x3", stem_width=16, depths=(1, 1), widths=(32, 64), strides=(1, 2)
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convention:
    """The choices in which published implementations of the same network differ.

    Attributes:
        gamma: constant factor of the kernels after a ReLU.
        stem_has_gamma: whether the stem, which no ReLU precedes, has the factor too.
        head_has_gamma: whether the last ReLU, which no convolution follows, has the factor.
        shortcut: "avg_pool" (2x2 average, then 1x1 convolution) or "strided" (1x1 convolution with stride).
        padding: of windows with a stride: "same" pads as little as is needed, at the end first, "symmetric" pads both
            ends alike, as PyTorch does. On an even side the windows of the two differ by one pixel.
        epsilon, epsilon_form, unbiased_variance: as in `normalizer_free.WeightStandardizedConv2D`.
    """

    gamma: float
    stem_has_gamma: bool
    head_has_gamma: bool
    shortcut: str
    padding: str
    epsilon: float
    epsilon_form: str
    unbiased_variance: bool


CONVENTIONS = {
    # De et al. (2022): gamma belongs to the activation. It is the same factor in every convolution after an activation.
    "deepmind": Convention(
        gamma=normalizer_free.RELU_GAMMA,
        stem_has_gamma=False,
        head_has_gamma=True,
        shortcut="strided",
        padding="same",
        epsilon=1e-4,
        epsilon_form="max",
        unbiased_variance=False,
    ),
    # timm standardizes by batch_norm on the kernel: var + eps, so var * fan_in + eps * fan_in. At eps = 1e-6 the sum
    # below differs too little to matter.
    "timm": Convention(
        gamma=normalizer_free.RELU_GAMMA,
        stem_has_gamma=True,
        head_has_gamma=False,
        shortcut="avg_pool",
        padding="symmetric",
        epsilon=1e-6,
        epsilon_form="add",
        unbiased_variance=False,
    ),
    # Sander et al. (2023), and the paper after them: timm's network with a convolution that stores gamma but never
    # applies it.
    "tan": Convention(
        gamma=1.0,
        stem_has_gamma=True,
        head_has_gamma=False,
        shortcut="avg_pool",
        padding="symmetric",
        epsilon=1e-6,
        epsilon_form="add",
        unbiased_variance=True,
    ),
}


def input_scales(depths: tuple[int, ...], alpha: float = 0.2) -> list[list[float]]:
    """beta of every block, stage by stage: 1 / sqrt(expected variance of the block's input).

    The variance is 1 after the stem. The first block of a stage has a convolution as its shortcut, which resets
    the variance to 1. Every block, also the first one, adds alpha^2.

    Args:
        depths: number of blocks of each stage.
        alpha: factor of the residual branches. Defaults to 0.2.

    Returns:
        A list of betas for each stage.
    """
    scales, variance = [], 1.0
    for depth in depths:
        stage = []
        for block in range(depth):
            stage.append(variance**-0.5)
            if block == 0:
                variance = 1.0
            variance += alpha**2
        scales.append(stage)
    return scales


def nf_resnet(
    variant: str,
    num_classes: int,
    *,
    input_shape: tuple[int, int, int] | None = None,
    pixel_range: tuple[float, float] | None = (0.0, 255.0),
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
    convention: str = "deepmind",
    gamma: float | None = None,
    skip_init: float = 1.0,
    alpha: float = 0.2,
    seed: int | None = None,
    dtype=None,
    model_class: type[keras.Model] = keras.Model,
) -> keras.Model:
    """Builds a normalizer-free ResNet that returns logits.

    Args:
        variant: one of `VARIANTS`: "nf_resnet50" (224x224 color), "nf_resnet_small" (32x32 or 28x28),
            "nf_resnet_tiny" (8x8 gray).
        num_classes: number of logits.
        input_shape: height, width and channels. Defaults to the variant's.
        pixel_range: lowest and highest pixel value, mapped to [-1, 1]; None takes the inputs as they are. Defaults to
            (0, 255).
        normalization: public means and standard deviations of the channels, which replace `pixel_range`. Defaults to
            None.
        convention: one of `CONVENTIONS`: "deepmind" keeps the expected variance exactly; "timm" loses some of it in
            its averaging shortcuts; "tan", which the paper used, loses most. Defaults to "deepmind".
        gamma: the kernels' constant factor instead of the convention's; for example `normalizer_free.RELU_GAMMA` or
            1.0.
        skip_init: initial skip gain, 0 or 1. Defaults to 1.0.
        alpha: factor of the residual branches. Defaults to 0.2.
        seed: makes the initial weights a pure function of it. Defaults to None, random ones.
        dtype: dtype or policy of the layers; the logits have the precision of the weights. Defaults to Keras' global
            policy.
        model_class: the functional model's class, called with inputs and outputs. Defaults to `keras.Model`.

    Returns:
        The model.

    Raises:
        ValueError: for an unknown variant or convention, or a number of classes below 1.
    """
    sizes = _lookup(VARIANTS, "variant", variant)
    chosen = _lookup(CONVENTIONS, "convention", convention)
    checks.at_least("num_classes", num_classes, 1)
    gamma = chosen.gamma if gamma is None else float(gamma)

    symmetric = chosen.padding == "symmetric"

    def convolution(x, name, width, size, *, stride=1, factor=gamma):
        padding = "same"
        if symmetric and stride > 1 and size > 1:
            x = keras.layers.ZeroPadding2D(size // 2, dtype=dtype, name=f"{name}_padding")(x)
            padding = "valid"
        layer = normalizer_free.WeightStandardizedConv2D(
            width,
            size,
            strides=stride,
            padding=padding,
            gamma=factor,
            epsilon=chosen.epsilon,
            epsilon_form=chosen.epsilon_form,
            unbiased_variance=chosen.unbiased_variance,
            kernel_initializer=keras.initializers.VarianceScaling(
                1.0, "fan_in", "untruncated_normal", seed=initialization.layer_seed(seed, name)
            ),
            dtype=dtype,
            name=name,
        )
        return layer(x)

    def relu(x, name):
        return keras.layers.ReLU(dtype=dtype, name=name)(x)

    def block(x, name, width, stride, beta):
        # beta * conv(x) = conv(beta * x): beta goes into the kernel's constant factor, which saves one pass over the
        # less.
        out = relu(x, f"{name}_relu1")
        shortcut = x
        if stride > 1 or x.shape[-1] != width:
            pooled, shortcut_stride = out, stride
            if stride > 1 and chosen.shortcut == "avg_pool":
                pooled = keras.layers.AveragePooling2D(2, stride, padding="same", dtype=dtype, name=f"{name}_pool")(out)
                shortcut_stride = 1
            shortcut = convolution(pooled, f"{name}_shortcut", width, 1, stride=shortcut_stride, factor=gamma * beta)
        out = convolution(out, f"{name}_conv1", width // 4, 1, factor=gamma * beta)
        out = convolution(relu(out, f"{name}_relu2"), f"{name}_conv2", width // 4, 3, stride=stride)
        out = convolution(relu(out, f"{name}_relu3"), f"{name}_conv3", width, 1)
        out = normalizer_free.SkipGain(skip_init, alpha=alpha, dtype=dtype, name=f"{name}_skip_gain")(out)
        return keras.layers.Add(dtype=dtype, name=f"{name}_add")([shortcut, out])

    inputs, x = pixels.pixel_input(input_shape or sizes.input_shape, pixel_range, dtype, normalization=normalization)
    stem_factor = gamma if chosen.stem_has_gamma else 1.0
    if sizes.stem == "7x7":
        x = convolution(x, "stem", sizes.stem_width, 7, stride=2, factor=stem_factor)
        if symmetric:
            # Zeros change only maxima below 0, of which the ReLU that comes next leaves nothing.
            x = keras.layers.ZeroPadding2D(1, dtype=dtype, name="stem_pool_padding")(x)
        padding = "valid" if symmetric else "same"
        x = keras.layers.MaxPooling2D(3, 2, padding=padding, dtype=dtype, name="stem_pool")(x)
    else:
        x = convolution(x, "stem", sizes.stem_width, 3, factor=stem_factor)

    for stage, betas in enumerate(input_scales(sizes.depths, alpha)):
        for index, beta in enumerate(betas):
            stride = sizes.strides[stage] if index == 0 else 1
            x = block(x, f"stage{stage + 1}_block{index + 1}", sizes.widths[stage], stride, beta)

    precision = pixels.variable_dtype(dtype)
    x = relu(x, "relu")
    x = keras.layers.GlobalAveragePooling2D(dtype=precision, name="pool")(x)
    if chosen.head_has_gamma and gamma != 1.0:
        x = keras.layers.Rescaling(gamma, dtype=precision, name="head_gamma")(x)
    initializer = keras.initializers.RandomNormal(stddev=0.01, seed=initialization.layer_seed(seed, "logits"))
    outputs = keras.layers.Dense(num_classes, kernel_initializer=initializer, dtype=precision, name="logits")(x)
    return model_class(inputs, outputs, name=variant)


def _lookup(table, argument, name):
    """The entry of a table, or one sentence that lists what there is."""
    return table[checks.choice(argument, name, table)]
