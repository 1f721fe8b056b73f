"""Random changes of brightness, contrast, saturation and hue, in random order, as Sander et al. (2023) apply them.

An image is changed with a certain probability, otherwise it stays as it is. The changes are those of Pillow, which
torchvision applies to photographs: brightness, contrast and saturation are blends with black, with the mean gray and
with the gray image,

    image <- factor * image + (1 - factor) * other,     factor uniform in [1 - strength, 1 + strength]

and hue is a rotation of the color circle by a part of it that is uniform in [-hue, hue]. Values are clipped to [0, 255]
after each change and rounded once, at the end; Pillow rounds after each change.

    chosen = color_jitter.draws(key, indices, step, views=4, jitter=color_jitter.TAN)
    changed = color_jitter.apply(images, chosen)      # uint8 [n, height, width, 3], one draw for each
"""

import dataclasses
import itertools
from typing import NamedTuple

import tensorflow as tf

from noisy_sgd.data import philox

_ORDERS = tuple(itertools.permutations(range(4)))
# The weights of red, green and blue in Pillow's gray.
_GRAY = (0.299, 0.587, 0.114)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Jitter:
    """How strongly the colors change: `probability` of a change at all, and the strengths as in the module's text."""

    probability: float
    brightness: float
    contrast: float
    saturation: float
    hue: float


TAN = Jitter(probability=0.3, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2)


class Draws(NamedTuple):
    """What happens to each view.

    Attributes:
        changed: bool [...], whether the view is changed at all.
        factors: float32 [..., 4], of brightness, contrast and saturation, and the rotation of the hue.
        order: int32 [...], the row of the 24 orders of the four changes.
    """

    changed: tf.Tensor
    factors: tf.Tensor
    order: tf.Tensor


def draws(key: tuple[int, int], indices, step, views: int, jitter: Jitter) -> Draws:
    """The draws of a microbatch: functions of (key, step, example, view) alone.

    Args:
        key: two integers.
        indices: of examples, [m].
        step: scalar integer below 2**32.
        views: K.
        jitter: the strengths.

    Returns:
        Draws of shape [m, K].
    """
    counter = [tf.expand_dims(indices, -1), step, tf.range(views)]
    # The counter's fourth word is 0 where `augmentation.draws` takes its flips and windows.
    first, second = (_unit(philox.bits(key, [*counter, word])) for word in (1, 2))
    strengths = (jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
    centers = (1.0, 1.0, 1.0, 0.0)
    factors = [
        center + strength * (2.0 * uniform - 1.0)
        for center, strength, uniform in zip(centers, strengths, tf.unstack(first), strict=True)
    ]
    order = tf.cast(second[1] * len(_ORDERS), tf.int32)
    return Draws(second[0] < jitter.probability, tf.stack(factors, -1), order)


def apply(images: tf.Tensor, drawn: Draws) -> tf.Tensor:
    """The images, changed.

    Args:
        images: uint8 [n, height, width, 3].
        drawn: of shape [n].

    Returns:
        uint8 [n, height, width, 3].
    """
    orders = tf.constant(_ORDERS)

    def one(entry):
        image, changed, factors, order = entry

        def jittered():
            value = tf.cast(image, tf.float32)
            for place in range(4):
                branches = [lambda value=value, kind=kind: _CHANGES[kind](value, factors[kind]) for kind in range(4)]
                value = tf.switch_case(orders[order, place], branches)
            return tf.cast(tf.round(value), tf.uint8)

        return tf.cond(changed, jittered, lambda: image)

    return tf.map_fn(one, (images, *drawn), fn_output_signature=tf.TensorSpec(images.shape[1:], tf.uint8))


def _unit(words: tf.Tensor) -> tf.Tensor:
    """Numbers in [0, 1) from the upper 24 of 32 random bits, which float32 holds exactly."""
    return tf.cast(tf.bitwise.right_shift(words, tf.constant(8, tf.uint64)), tf.float32) * 2.0**-24


def _gray(image):
    return tf.reduce_sum(image * tf.constant(_GRAY), axis=-1, keepdims=True)


def _blended(image, other, factor):
    return tf.clip_by_value(factor * image + (1.0 - factor) * other, 0.0, 255.0)


def _brightness(image, factor):
    return _blended(image, tf.zeros([]), factor)


def _contrast(image, factor):
    # Pillow rounds the mean to a whole level.
    return _blended(image, tf.floor(tf.reduce_mean(_gray(image)) + 0.5), factor)


def _saturation(image, factor):
    return _blended(image, _gray(image), factor)


def _hue(image, rotation):
    hsv = tf.image.rgb_to_hsv(image / 255.0)
    hue = tf.math.floormod(hsv[..., :1] + rotation, 1.0)
    return 255.0 * tf.image.hsv_to_rgb(tf.concat([hue, hsv[..., 1:]], -1))


_CHANGES = (_brightness, _contrast, _saturation, _hue)
