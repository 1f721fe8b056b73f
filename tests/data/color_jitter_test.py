"""Color changes are Pillow's, functions of (seed, step, example, view); statistics of a fixed seed, two-sided."""

import itertools

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from PIL import Image, ImageEnhance
from scipy import stats
from sklearn import datasets

from noisy_sgd import keys
from noisy_sgd.data import augmentation, color_jitter

KEY = keys.derive(5, "augmentation")
ORDERS = list(itertools.permutations(range(4)))
NONE = (1.0, 1.0, 1.0, 0.0)


def photographs():
    china, flower = datasets.load_sample_images().images
    return np.stack([china[100:164, 200:280], flower[150:214, 250:330]])


def pillows(image, factors, order):
    """The same changes by Pillow, as torchvision calls it."""
    image = Image.fromarray(image)
    for kind in order:
        if kind < 3:
            enhance = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[kind]
            image = enhance(image).enhance(factors[kind])
        elif factors[3]:
            hue, *others = image.convert("HSV").split()
            turned = (np.asarray(hue).astype(int) + round(factors[3] * 255)) % 256
            image = Image.merge("HSV", (Image.fromarray(turned.astype(np.uint8)), *others)).convert("RGB")
    return np.asarray(image).astype(int)


def changed(images, factors, order, flag=True):
    count = len(images)
    drawn = color_jitter.Draws(
        tf.fill([count], flag), tf.constant([factors] * count, tf.float32), tf.fill([count], ORDERS.index(order))
    )
    return color_jitter.apply(tf.constant(images), drawn).numpy().astype(int)


class ApplyTest(parameterized.TestCase):
    @parameterized.parameters(
        ((0.4, 1.0, 1.0, 0.0), (0, 1, 2, 3), 1),
        ((1.7, 1.0, 1.0, 0.0), (3, 2, 1, 0), 1),
        ((1.0, 0.3, 1.0, 0.0), (0, 1, 2, 3), 1),
        ((1.0, 1.8, 1.0, 0.0), (2, 1, 0, 3), 1),
        ((1.0, 1.0, 0.2, 0.0), (0, 1, 2, 3), 1),
        ((1.0, 1.0, 1.8, 0.0), (0, 3, 2, 1), 2),
        # Pillow keeps hue and saturation in 256 levels.
        ((1.0, 1.0, 1.0, 0.2), (0, 1, 2, 3), 6),
        ((1.0, 1.0, 1.0, -0.15), (0, 1, 2, 3), 6),
        ((1.5, 0.6, 1.4, 0.0), (1, 0, 2, 3), 3),
        ((0.7, 1.6, 0.4, 0.1), (3, 1, 2, 0), 8),
    )
    def test_is_pillows(self, factors, order, tolerance):
        images = photographs()
        for image, ours in zip(images, changed(images, factors, order), strict=True):
            difference = np.abs(ours - pillows(image, factors, order))
            self.assertLessEqual(np.quantile(difference, 0.99), tolerance)
            self.assertGreater(np.abs(ours - image).mean(), 5)

    def test_the_order_matters(self):
        images, factors = photographs(), (1.7, 0.4, 1.0, 0.0)
        self.assertGreater(
            np.abs(changed(images, factors, (0, 1, 2, 3)) - changed(images, factors, (1, 0, 2, 3))).mean(), 3
        )

    def test_is_rounded_to_the_nearest_level(self):
        images = photographs()
        self.assertLess(np.abs(changed(images, (0.25, 1.0, 1.0, 0.0), ORDERS[0]) - images / 4).max(), 0.51)

    def test_no_change_changes_nothing(self):
        images = photographs()
        np.testing.assert_array_equal(changed(images, (0.3, 2.0, 0.1, 0.4), ORDERS[5], flag=False), images)
        self.assertLessEqual(np.abs(changed(images, NONE, ORDERS[7]) - images).max(), 1)


class DrawsTest(absltest.TestCase):
    """20,480 draws: 40 steps of 128 examples in 4 views."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        indices = tf.range(128, dtype=tf.int64)
        parts = [color_jitter.draws(KEY, indices, step, 4, color_jitter.TAN) for step in range(40)]
        cls.changed, cls.factors, cls.order = (np.stack(part) for part in zip(*parts, strict=True))

    def test_three_in_ten_views_change(self):
        count = int(self.changed.sum())
        self.assertGreater(stats.binomtest(count, self.changed.size, 0.3).pvalue, 1e-4)
        for wrong in (0.27, 0.33):
            self.assertLess(stats.binomtest(count, self.changed.size, wrong).pvalue, 1e-6)

    def test_factors_are_uniform_over_their_ranges(self):
        for kind, (low, high) in enumerate([(0.2, 1.8)] * 3 + [(-0.2, 0.2)]):
            values = self.factors[..., kind].ravel()
            for scale, fits in ((1.0, True), (0.9, False), (1.1, False)):
                width = scale * (high - low)
                law = stats.uniform((low + high - width) / 2, width)
                self.assertEqual(stats.kstest(values, law.cdf).pvalue > 1e-4, fits, (kind, scale))

    def test_orders_are_even_and_draws_do_not_hang_together(self):
        counts = np.bincount(self.order.ravel(), minlength=24)
        self.assertLen(counts, 24)
        self.assertGreater(stats.chisquare(counts).pvalue, 1e-4)
        flips = np.stack([augmentation.draws(KEY, np.arange(128), step, 4, 4)[0] for step in range(40)])
        columns = [self.changed, self.order, flips, *np.moveaxis(self.factors, -1, 0)]
        ranks = np.corrcoef([np.ravel(column).astype(float) for column in columns])
        self.assertLess(np.abs(ranks - np.eye(len(columns))).max(), 0.04)


class AugmentationTest(parameterized.TestCase):
    def test_an_example_is_changed_whatever_its_batch(self):
        images = np.concatenate([photographs()] * 8)
        augment = augmentation.RECIPES["tan"].make(3, 2, (64, 80))
        whole = augment(tf.constant(images), tf.range(16), 4).numpy()
        self.assertEqual(whole.shape, (16, 2, 64, 80, 3))
        part = augment(tf.constant(images[5:9]), tf.range(5, 9), 4)
        np.testing.assert_array_equal(part, whole[5:9])
        plain = augmentation.make(3, 2, 5, mirror="reflect")(tf.constant(images), tf.range(16), 4).numpy()
        drawn = color_jitter.draws(KEY_3, tf.range(16), 4, 2, color_jitter.TAN)
        kept = ~drawn.changed.numpy()
        np.testing.assert_array_equal(whole[kept], plain[kept])
        self.assertTrue(np.all(np.any(whole != plain, axis=(2, 3, 4)) == drawn.changed.numpy()))

    def test_refuses_gray_images(self):
        augment = augmentation.make(3, jitter=color_jitter.TAN)
        with self.assertRaisesRegex(ValueError, "`jitter` needs images of three channels. Received: jitter=1"):
            augment(tf.zeros([2, 8, 8, 1], tf.uint8), tf.range(2), 0)


KEY_3 = keys.derive(3, "augmentation")

if __name__ == "__main__":
    absltest.main()
