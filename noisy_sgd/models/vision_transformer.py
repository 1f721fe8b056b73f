"""A small vision transformer (Dosovitskiy et al. 2021), in the simplified form of Beyer et al. (arXiv 2205.01580).

Patches are projected to `width` channels, fixed sine-cosine positions are added, pre-normalized blocks of attention and
a perceptron follow, and the mean over the patches goes to the logits. Nothing mixes the examples, and every layer with
weights has a rule of the fast engine.

    model = vision_transformer(10, input_shape=(14, 14, 1), patch=2, depth=2, width=32, heads=2)
"""

import keras
import numpy as np

from noisy_sgd import checks
from noisy_sgd.models import initialization, pixels


def vision_transformer(
    num_classes: int,
    *,
    patch: int = 2,
    depth: int = 2,
    width: int = 32,
    heads: int = 2,
    input_shape: tuple[int, int, int] = (14, 14, 1),
    pixel_range: tuple[float, float] | None = (0.0, 255.0),
    seed: int | None = None,
    dtype=None,
    model_class: type[keras.Model] = keras.Model,
) -> keras.Model:
    """Builds a vision transformer that returns logits.

    Args:
        num_classes: number of logits.
        patch: height and width of a patch; must divide those of the images. Defaults to 2.
        depth: number of blocks. Defaults to 2.
        width: channels of a patch; a multiple of 4 and of `heads`. Defaults to 32.
        heads: attention heads. Defaults to 2.
        input_shape: height, width and channels. Defaults to (14, 14, 1).
        pixel_range: lowest and highest pixel value, mapped to [-1, 1]; None takes the inputs as they are. Defaults to
            (0, 255).
        seed: makes the initial weights a pure function of it. Defaults to None, random ones.
        dtype: dtype or policy of the layers; the logits have the precision of the weights. Defaults to Keras' global
            policy.
        model_class: the functional model's class, called with inputs and outputs. Defaults to `keras.Model`.

    Returns:
        The model.

    Raises:
        ValueError: for a number below 1, patches that do not divide the images, or a width that is no such multiple.
    """
    for name, value in (("num_classes", num_classes), ("patch", patch), ("depth", depth), ("heads", heads)):
        checks.at_least(name, value, 1)
    divides = input_shape[0] % patch == 0 and input_shape[1] % patch == 0
    checks.require(divides, "patch", f"must divide the height and width of {tuple(input_shape)}", patch)
    checks.require(
        width >= 4 and width % 4 == 0 and width % heads == 0, "width", "must be a multiple of 4 and of `heads`", width
    )

    def initializer(name):
        return keras.initializers.GlorotUniform(seed=initialization.layer_seed(seed, name))

    def dense(units, name, x, **options):
        options = {"dtype": dtype, **options}
        return keras.layers.Dense(units, kernel_initializer=initializer(name), name=name, **options)(x)

    def normalized(name, x):
        return keras.layers.LayerNormalization(epsilon=1e-6, dtype=dtype, name=name)(x)

    inputs, x = pixels.pixel_input(input_shape, pixel_range, dtype)
    x = keras.layers.Conv2D(
        width, patch, strides=patch, kernel_initializer=initializer("patches"), dtype=dtype, name="patches"
    )(x)
    rows, columns = x.shape[1:3]
    x = keras.layers.Reshape((rows * columns, width), dtype=dtype, name="sequence")(x)
    x = x + keras.ops.cast(_positions(rows, columns, width), x.dtype)
    for block in range(1, depth + 1):
        y = normalized(f"block{block}_norm1", x)
        attention = keras.layers.MultiHeadAttention(
            heads,
            width // heads,
            kernel_initializer=initializer(f"block{block}_attention"),
            dtype=dtype,
            name=f"block{block}_attention",
        )
        x = x + attention(y, y)
        y = dense(4 * width, f"block{block}_hidden", normalized(f"block{block}_norm2", x), activation="gelu")
        x = x + dense(width, f"block{block}_output", y)
    x = keras.layers.GlobalAveragePooling1D(dtype=dtype, name="mean")(normalized("norm", x))
    return model_class(
        inputs, dense(num_classes, "logits", x, dtype=pixels.variable_dtype(dtype)), name="vision_transformer"
    )


def _positions(rows: int, columns: int, width: int) -> np.ndarray:
    """Sines and cosines of the row and of the column, [1, rows * columns, width]."""
    frequencies = 10_000.0 ** -np.linspace(0, 1, width // 4)
    row, column = np.divmod(np.arange(rows * columns)[:, np.newaxis], columns)
    angles = np.concatenate([row * frequencies, column * frequencies], axis=1)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)[np.newaxis].astype(np.float32)
