"""Small networks without residual branches: a perceptron, and two convolutional networks.

model = mlp(10, input_shape=(8, 8, 1), hidden=(64,), pixel_range=(0.0, 16.0))
model = cnn(10, input_shape=(8, 8, 1), pixel_range=(0.0, 16.0))
model = mnist_cnn(10)     # of tensorflow-privacy's MNIST tutorial
"""

from collections.abc import Sequence

import keras

from noisy_sgd.models import initialization, pixels


def mlp(
    num_classes: int,
    *,
    hidden: Sequence[int] = (512, 512),
    input_shape: tuple[int, int, int] = (28, 28, 1),
    pixel_range: tuple[float, float] | None = (0.0, 255.0),
    seed: int | None = None,
    dtype=None,
    model_class: type[keras.Model] = keras.Model,
) -> keras.Model:
    """Builds a perceptron with ReLU that returns logits: on 28x28 images by default 784-512-512-10.

    Args:
        num_classes: number of logits.
        hidden: units of the hidden layers. Defaults to two of 512.
        input_shape: height, width and channels. Defaults to (28, 28, 1).
        pixel_range: lowest and highest pixel value, mapped to [-1, 1]; None takes the inputs as they are. Defaults to
            (0, 255).
        seed: makes the initial weights a pure function of it. Defaults to None, random ones.
        dtype: dtype or policy of the layers. Defaults to Keras' global policy.
        model_class: the functional model's class, called with inputs and outputs. Defaults to `keras.Model`.

    Returns:
        The model.
    """
    inputs, x = pixels.pixel_input(input_shape, pixel_range, dtype)
    x = keras.layers.Flatten(dtype=dtype, name="flatten")(x)
    for index, units in enumerate(hidden):
        x = _dense(units, f"hidden{index + 1}", seed, dtype, "relu")(x)
    outputs = _dense(num_classes, "logits", seed, pixels.variable_dtype(dtype))(x)
    return model_class(inputs, outputs, name="mlp")


def mnist_cnn(
    num_classes: int,
    *,
    input_shape: tuple[int, int, int] = (28, 28, 1),
    pixel_range: tuple[float, float] | None = (0.0, 255.0),
    activation: str = "relu",
    seed: int | None = None,
    dtype=None,
    model_class: type[keras.Model] = keras.Model,
) -> keras.Model:
    """Builds the network of tensorflow-privacy's MNIST tutorial, which returns logits.

    Convolution of 16 channels, 8x8, stride 2; maximum over 2x2, stride 1; convolution of 32, 4x4, stride 2, without
    padding; maximum again; a dense layer of 32. 26,010 parameters on 28x28 images.

    Args:
        num_classes: number of logits.
        input_shape: height, width and channels. Defaults to (28, 28, 1).
        pixel_range: lowest and highest pixel value, mapped to [-1, 1]; None takes the inputs as they are. Defaults to
            (0, 255).
        activation: of the convolutions and of the dense layer. "tanh" keeps gradients short, which clipping likes
            (Papernot et al. 2021, arXiv 2007.14191). Defaults to "relu".
        seed: makes the initial weights a pure function of it. Defaults to None, random ones.
        dtype: dtype or policy of the layers. Defaults to Keras' global policy.
        model_class: the functional model's class, called with inputs and outputs. Defaults to `keras.Model`.

    Returns:
        The model.
    """

    def convolution(channels, size, padding, name):
        return keras.layers.Conv2D(
            channels,
            size,
            strides=2,
            padding=padding,
            activation=activation,
            kernel_initializer=keras.initializers.GlorotUniform(seed=initialization.layer_seed(seed, name)),
            dtype=dtype,
            name=name,
        )

    inputs, x = pixels.pixel_input(input_shape, pixel_range, dtype)
    x = convolution(16, 8, "same", "convolution1")(x)
    x = keras.layers.MaxPooling2D(2, 1, dtype=dtype, name="pool1")(x)
    x = convolution(32, 4, "valid", "convolution2")(x)
    x = keras.layers.MaxPooling2D(2, 1, dtype=dtype, name="pool2")(x)
    x = keras.layers.Flatten(dtype=dtype, name="flatten")(x)
    x = _dense(32, "hidden", seed, dtype, activation)(x)
    outputs = _dense(num_classes, "logits", seed, pixels.variable_dtype(dtype))(x)
    return model_class(inputs, outputs, name="mnist_cnn")


def cnn(
    num_classes: int,
    *,
    channels: Sequence[int] = (16, 32),
    input_shape: tuple[int, int, int] = (14, 14, 1),
    pixel_range: tuple[float, float] | None = (0.0, 255.0),
    seed: int | None = None,
    dtype=None,
    model_class: type[keras.Model] = keras.Model,
) -> keras.Model:
    """Builds a small convolutional network that returns logits; on 14x14 images by default 9,930 parameters.

    Each convolution is 3x3 with stride 2 and ReLU; the last one is flattened for the logits.

    Args:
        num_classes: number of logits.
        channels: of the convolutions. Defaults to (16, 32).
        input_shape: height, width and channels. Defaults to (14, 14, 1).
        pixel_range: lowest and highest pixel value, mapped to [-1, 1]; None takes the inputs as they are. Defaults to
            (0, 255).
        seed: makes the initial weights a pure function of it. Defaults to None, random ones.
        dtype: dtype or policy of the layers. Defaults to Keras' global policy.
        model_class: the functional model's class, called with inputs and outputs. Defaults to `keras.Model`.

    Returns:
        The model.
    """
    inputs, x = pixels.pixel_input(input_shape, pixel_range, dtype)
    for index, count in enumerate(channels):
        name = f"convolution{index + 1}"
        initializer = keras.initializers.GlorotUniform(seed=initialization.layer_seed(seed, name))
        x = keras.layers.Conv2D(
            count, 3, 2, "same", activation="relu", kernel_initializer=initializer, dtype=dtype, name=name
        )(x)
    x = keras.layers.Flatten(dtype=dtype, name="flatten")(x)
    outputs = _dense(num_classes, "logits", seed, pixels.variable_dtype(dtype))(x)
    return model_class(inputs, outputs, name="cnn")


def _dense(units, name, seed, dtype, activation=None):
    initializer = keras.initializers.GlorotUniform(seed=initialization.layer_seed(seed, name))
    return keras.layers.Dense(units, activation=activation, kernel_initializer=initializer, dtype=dtype, name=name)
