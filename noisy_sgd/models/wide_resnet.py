"""Wide residual networks for private training (De et al., 2022): group normalization, weight standardization.

    x -> x + conv3x3(norm(relu(conv3x3(norm(relu(x))))))

The order is ReLU, norm, convolution, as in De et al.: the norm comes last before the convolution, and there is one
more ReLU and norm before the global average. The first block of each stage has relu, norm and a 1x1 convolution as
its shortcut. A network of depth 6 n + 4 has n blocks in each of three stages, of 16, 32 and 64 times `width`
channels.

    model = wide_resnet(16, 4, 10)      # WRN-16-4 for 32x32 color images
"""

import keras

from noisy_sgd import checks
from noisy_sgd.models import group_normalization, initialization, normalizer_free, pixels

STEM_WIDTH = 16


def wide_resnet(
    depth: int,
    width: int,
    num_classes: int,
    groups: int = 16,
    *,
    weight_standardization: bool = True,
    input_shape: tuple[int, int, int] = (32, 32, 3),
    pixel_range: tuple[float, float] | None = (0.0, 255.0),
    seed: int | None = None,
    dtype=None,
    model_class: type[keras.Model] = keras.Model,
) -> keras.Model:
    """Builds a wide residual network that returns logits.

    Args:
        depth: 6 n + 4 for n blocks per stage: 10, 16, 28, 40.
        width: multiplies the stages' 16, 32 and 64 channels.
        num_classes: number of logits.
        groups: groups of the group normalization; must divide 16. Defaults to 16.
        weight_standardization: False uses `keras.layers.Conv2D` instead. Defaults to True.
        input_shape: height, width and channels. Defaults to (32, 32, 3).
        pixel_range: lowest and highest pixel value, mapped to [-1, 1]; None takes the inputs as they are. Defaults to
            (0, 255).
        seed: makes the initial weights a pure function of it. Defaults to None, random ones.
        dtype: dtype or policy of the layers; the logits have the precision of the weights. Defaults to Keras' global
            policy.
        model_class: the functional model's class, called with inputs and outputs. Defaults to `keras.Model`.

    Returns:
        The model.

    Raises:
        ValueError: for a depth that is not 6 n + 4, a width or a number of classes below 1, or groups that do not
            divide the channels.
    """
    checks.require(depth >= 10 and (depth - 4) % 6 == 0, "depth", "must be 6 n + 4: 10, 16, 22, 28 and so on", depth)
    checks.at_least("width", width, 1)
    checks.at_least("num_classes", num_classes, 1)
    divides = groups >= 1 and STEM_WIDTH % groups == 0
    checks.require(divides, "groups", f"must divide the {STEM_WIDTH} channels of the first layer", groups)
    convolution_class = normalizer_free.WeightStandardizedConv2D if weight_standardization else keras.layers.Conv2D

    def initializer(name):
        return keras.initializers.VarianceScaling(1.0, seed=initialization.layer_seed(seed, name))

    def convolution(x, name, channels, size, stride=1):
        layer = convolution_class(
            channels, size, strides=stride, padding="same", kernel_initializer=initializer(name), dtype=dtype, name=name
        )
        return layer(x)

    def norm(x, name):
        return group_normalization.GroupNormalization(groups, dtype=dtype, name=name)(x)

    def relu(x, name):
        return keras.layers.ReLU(dtype=dtype, name=name)(x)

    inputs, x = pixels.pixel_input(input_shape, pixel_range, dtype)
    x = convolution(x, "stem", STEM_WIDTH, 3)
    for stage in range(3):
        channels = STEM_WIDTH * 2**stage * width
        for block in range((depth - 4) // 6):
            name = f"stage{stage + 1}_block{block + 1}"
            stride = 2 if stage > 0 and block == 0 else 1
            shortcut = x
            out = relu(x, f"{name}_relu1")
            if block == 0:
                shortcut = norm(out, f"{name}_shortcut_norm")
                shortcut = convolution(shortcut, f"{name}_shortcut", channels, 1, stride)
            out = convolution(norm(out, f"{name}_norm1"), f"{name}_conv1", channels, 3, stride)
            out = norm(relu(out, f"{name}_relu2"), f"{name}_norm2")
            out = convolution(out, f"{name}_conv2", channels, 3)
            x = keras.layers.Add(dtype=dtype, name=f"{name}_add")([shortcut, out])

    precision = pixels.variable_dtype(dtype)
    x = norm(relu(x, "relu"), "norm")
    x = keras.layers.GlobalAveragePooling2D(dtype=precision, name="pool")(x)
    outputs = keras.layers.Dense(num_classes, kernel_initializer=initializer("logits"), dtype=precision, name="logits")(
        x
    )
    return model_class(inputs, outputs, name=f"wide_resnet_{depth}_{width}")
