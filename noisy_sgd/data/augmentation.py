"""Random horizontal flips, pad-crops and changes of color, each a function of (seed, step, example, view).

Half of the images are flipped. Then `padding` mirrored pixels are added on every side (De et al. 2022), and a window is
cut at one of all positions with equal probability; a window of the image's own size has (2 padding + 1)^2 positions.
The draws of an example must not depend on its position in the batch. The position depends on the other examples of the
batch, so that adding or removing one example would change the gradients of others, and the sensitivity would not hold.

`RECIPES` are the published combinations, by the names of `--augmentation`.

    augment = augmentation.make(seed=7, views=4)
    dataset = streaming.stream(digits, scheme, 64, num_steps=10, augment=augment)    # images [64, 4, 8, 8, 1]
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from noisy_sgd import checks, keys
from noisy_sgd.data import color_jitter, philox

# Both mirror at the edge: "symmetric" repeats the pixel at the edge, "reflect" does not.
MIRRORS = ("symmetric", "reflect")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A published augmentation.

    Attributes:
        padding: (numerator, denominator), the padding over the side of the window; at least one pixel.
        mirror, flips, jitter: as in `make`.
    """

    padding: tuple[int, int]
    mirror: str = "symmetric"
    flips: bool = True
    jitter: color_jitter.Jitter | None = None

    def make(self, seed: int | bytes, views: int, size: tuple[int, int]) -> Callable[..., tf.Tensor]:
        """`make`, for windows of this height and width."""
        numerator, denominator = self.padding
        padding = max(1, min(size) * numerator // denominator)
        own = {"mirror": self.mirror, "flips": self.flips, "jitter": self.jitter}
        return make(seed, views, padding, size=size, **own)


RECIPES = {
    # The usual padding is four pixels for images of 32 x 32.
    "crop": Recipe(padding=(1, 8), flips=False),
    "flip_and_crop": Recipe(padding=(1, 8)),
    # Sander et al. (2023): 20 pixels of 224, and colors.
    "tan": Recipe(padding=(20, 224), mirror="reflect", jitter=color_jitter.TAN),
    # De et al. (2022): 4 pixels of 224; `imagenet` reads images of 268 pixels for it.
    "deepmind": Recipe(padding=(4, 224)),
}


def make(
    seed: int | bytes,
    views: int = 1,
    padding: int = 4,
    flips: bool = True,
    *,
    size: tuple[int, int] | None = None,
    mirror: str = "symmetric",
    jitter: color_jitter.Jitter | None = None,
) -> Callable[..., tf.Tensor]:
    """A function that flips and crops images at random, and changes their colors.

    Args:
        seed: integer, or a secret's bytes; the draws are a function of it, of the step and of the example alone.
        views: K, augmented views of every image. View k is the same for every K > k. Defaults to 1.
        padding: mirrored pixels on every side; at most the image's own size, below it for "reflect". Defaults to 4.
        flips: whether half of the images are flipped; wrong for images whose meaning changes in a mirror, such as
            digits. Defaults to True.
        size: height and width of the window, at most those of the padded image. Defaults to the image's own.
        mirror: one of `MIRRORS`. Defaults to "symmetric".
        jitter: changes of color, for images of three channels. Defaults to None, no changes.

    Returns:
        augment(images, indices, step), made of TensorFlow's operations. It takes images [m, height, width, channels],
        the indices of their examples [m] and a scalar step, and returns images of the same type, [m, *size, channels],
        or [m, K, *size, channels] where K > 1.

    Raises:
        ValueError: for less than one view, a negative padding or an unknown mirror; by `augment`, for a padding larger
            than the image, a window that is larger than the padded image, or a jitter without three channels.
    """
    checks.at_least("views", views, 1)
    checks.require(padding >= 0, "padding", "must not be negative", padding)
    checks.choice("mirror", mirror, MIRRORS)
    key = keys.derive(seed, "augmentation")

    def augment(images, indices, step):
        height, width, channels = images.shape[1:]
        window = size or (height, width)
        _check(padding + (mirror == "reflect"), padding, (height, width), window)
        flip, down, right = draws(key, indices, step, views, padding, (height - window[0], width - window[1]))
        rows = _mirrored(tf.range(window[0]) + down[..., tf.newaxis], height, mirror)
        columns = _mirrored(tf.range(window[1]) + right[..., tf.newaxis], width, mirror)
        if flips:
            columns = tf.where(flip[..., tf.newaxis], width - 1 - columns, columns)
        first = tf.range(tf.shape(images)[0])[:, tf.newaxis, tf.newaxis] * (height * width)
        pixels = (first + rows * width)[..., tf.newaxis] + columns[..., tf.newaxis, :]
        augmented = tf.gather(tf.reshape(images, [-1, channels]), pixels)
        if jitter is not None:
            checks.require(channels == 3, "jitter", "needs images of three channels", channels)
            drawn = color_jitter.draws(key, indices, step, views, jitter)
            flat = tf.reshape(augmented, [-1, *window, channels])
            drawn = color_jitter.Draws(*(tf.reshape(part, [-1, *part.shape[2:]]) for part in drawn))
            augmented = tf.reshape(color_jitter.apply(flat, drawn), tf.shape(augmented))
            augmented = tf.ensure_shape(augmented, [None, views, *window, channels])
        return augmented if views > 1 else augmented[:, 0]

    return augment


def draws(
    key: tuple[int, int], indices, step, views: int, padding: int, spare: tuple[int, int] = (0, 0)
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Whether to flip, and the first row and column of the window.

    Args:
        key: two integers.
        indices: of examples, [m].
        step: scalar integer below 2**32.
        views: K.
        padding: how far the first row and column may lie outside the image.
        spare: by how many pixels the image is higher and wider than the window. Defaults to none.

    Returns:
        bool [m, K], and twice int32 [m, K] in [-padding, spare + padding].
    """
    words = philox.bits(key, [tf.expand_dims(indices, -1), step, tf.range(views)])
    down, right = (philox.below(words[1 + axis], 2 * padding + 1 + spare[axis]) - padding for axis in range(2))
    return philox.below(words[0], 2) == 1, down, right


def _check(least: int, padding: int, image: tuple[int, int], window: tuple[int, int]) -> None:
    if least > min(image):
        bound = "at most" if least == padding else "below"
        raise ValueError(
            f"`padding` must be {bound} the image's height and width, {image[0]} and {image[1]}. "
            f"Received: padding={padding}"
        )
    if any(inner > outer + 2 * padding for inner, outer in zip(window, image, strict=True)):
        raise ValueError(
            f"`size` must be at most that of the padded image, here {image[0]} and {image[1]} with a padding of "
            f"{padding}. Received: size={window}"
        )


def _mirrored(positions, size, mirror):
    """Positions in [-size, 2 size) as those of the image mirrored at its edges."""
    again = 1 if mirror == "symmetric" else 0
    positions = tf.where(positions < 0, -again - positions, positions)
    return tf.where(positions >= size, 2 * (size - 1) + again - positions, positions)
