"""The input of an image model: pixels, mapped from their public range to [-1, 1], or normalized by public numbers.

    x -> 2 (x - low) / (high - low) - 1        or        x -> (x - mean) / std, channel by channel

The range is a property of the file format, not of the data: a mean or a scale computed from private images would leak
them.

    inputs, images = pixels.pixel_input((8, 8, 1), pixel_range=(0.0, 16.0))
"""

from collections.abc import Sequence

import keras


def pixel_input(
    input_shape: tuple[int, int, int],
    pixel_range: tuple[float, float] | None,
    dtype=None,
    *,
    normalization: tuple[Sequence[float], Sequence[float]] | None = None,
):
    """Makes the symbolic input of an image model and its rescaling.

    Both are in the variables' precision: bfloat16 would round the pixels before any layer reads them.

    Args:
        input_shape: height, width and channels.
        pixel_range: lowest and highest pixel value, mapped to -1 and 1; None takes the inputs as they are.
        dtype: dtype or policy of the model. Defaults to Keras' global policy.
        normalization: means and standard deviations of the channels; `pixel_range` is then not used. Defaults to None.

    Returns:
        The `keras.Input` and the tensor that the first layer reads.

    Raises:
        ValueError: if the shape is not that of an image, the range is empty, or the normalization is not one positive
            standard deviation and one mean per channel.
    """
    shape = tuple(input_shape)
    if len(shape) != 3 or not all(isinstance(size, int) and size > 0 for size in shape):
        raise ValueError(f"`input_shape` must be (height, width, channels). Received: input_shape={input_shape}")
    precision = variable_dtype(dtype)
    inputs = keras.Input(shape, dtype=precision, name="image")
    if normalization is not None:
        means, stds = (list(map(float, numbers)) for numbers in normalization)
        if not len(means) == len(stds) == shape[-1] or not min(stds) > 0:
            raise ValueError(
                f"`normalization` must hold a mean and a positive standard deviation for each of the {shape[-1]} "
                f"channels. Received: normalization={normalization}"
            )
        scales = [1.0 / std for std in stds]
        offsets = [-mean / std for mean, std in zip(means, stds, strict=True)]
        return inputs, keras.layers.Rescaling(scales, offsets, dtype=precision, name="rescaling")(inputs)
    if pixel_range is None:
        return inputs, inputs
    low, high = (float(bound) for bound in pixel_range)
    if not low < high:
        raise ValueError(f"`pixel_range` must be (lowest, highest) pixel value. Received: pixel_range={pixel_range}")
    scale = 2.0 / (high - low)
    return inputs, keras.layers.Rescaling(scale, -1.0 - low * scale, dtype=precision, name="rescaling")(inputs)


def variable_dtype(dtype=None) -> str:
    """The precision in which a layer of this dtype or policy keeps its weights."""
    return keras.dtype_policies.get(keras.config.dtype_policy() if dtype is None else dtype).variable_dtype
