"""Random horizontal flips and pad-crops, each a function of (seed, step, example, view).

Half of the images are flipped. Then `padding` mirrored pixels are added on every side (De et al. 2022), and a window of
the image's own size is cut at one of (2 padding + 1)^2 positions with equal probability. The draws of an example must
not depend on its position in the batch. The position depends on the other examples of the batch, so that adding or
removing one example would change the gradients of others, and the sensitivity would not hold.

    augment = augmentation.make(seed=7, views=4)
    dataset = streaming.stream(digits, scheme, 64, num_steps=10, augment=augment)    # images [64, 4, 8, 8, 1]
"""

from collections.abc import Callable

import tensorflow as tf

from noisy_sgd import checks, keys
from noisy_sgd.data import philox


def make(seed: int | bytes, views: int = 1, padding: int = 4, flips: bool = True) -> Callable[..., tf.Tensor]:
    """A function that flips and crops images at random.

    Args:
        seed: integer, or a secret's bytes; the draws are a function of it, of the step and of the example alone.
        views: K, augmented views of every image. View k is the same for every K > k. Defaults to 1.
        padding: pixels by which a window is moved at most, in either direction and axis; at most the image's own size.
            Defaults to 4.
        flips: whether half of the images are flipped; wrong for images whose meaning changes in a mirror, such as
            digits. Defaults to True.

    Returns:
        augment(images, indices, step), made of TensorFlow's operations. It takes images [m, height, width, channels],
        the indices of their examples [m] and a scalar step, and returns images of the same type and shape, or [m, K,
        height, width, channels] where K > 1.

    Raises:
        ValueError: for less than one view or a negative padding; by `augment`, for a padding larger than the image.
    """
    checks.at_least("views", views, 1)
    checks.require(padding >= 0, "padding", "must not be negative", padding)
    key = keys.derive(seed, "augmentation")

    def augment(images, indices, step):
        height, width, channels = images.shape[1:]
        if padding > min(height, width):
            raise ValueError(
                f"`padding` must be at most the image's height and width, {height} and {width}. "
                f"Received: padding={padding}"
            )
        flip, down, right = draws(key, indices, step, views, padding)
        rows = _mirrored(tf.range(height) + down[..., tf.newaxis], height)
        columns = _mirrored(tf.range(width) + right[..., tf.newaxis], width)
        if flips:
            columns = tf.where(flip[..., tf.newaxis], width - 1 - columns, columns)
        first = tf.range(tf.shape(images)[0])[:, tf.newaxis, tf.newaxis] * (height * width)
        pixels = (first + rows * width)[..., tf.newaxis] + columns[..., tf.newaxis, :]
        augmented = tf.gather(tf.reshape(images, [-1, channels]), pixels)
        return augmented if views > 1 else augmented[:, 0]

    return augment


def draws(key: tuple[int, int], indices, step, views: int, padding: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Whether to flip, and how far to move the window down and to the right.

    Args:
        key: two integers.
        indices: of examples, [m].
        step: scalar integer below 2**32.
        views: K.
        padding: the largest move.

    Returns:
        bool [m, K], and twice int32 [m, K] in [-padding, padding].
    """
    words = philox.bits(key, [tf.expand_dims(indices, -1), step, tf.range(views)])
    moves = philox.below(words[1:3], 2 * padding + 1) - padding
    return philox.below(words[0], 2) == 1, moves[0], moves[1]


def _mirrored(positions, size):
    """Positions in [-size, 2 size) as those of the image mirrored at its edges."""
    positions = tf.where(positions < 0, -1 - positions, positions)
    return tf.where(positions >= size, 2 * size - 1 - positions, positions)
