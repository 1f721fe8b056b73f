"""Augmentation is a flip, mirrored padding and a window, evenly drawn, as a function of (seed, step, example, view).

Every statistic is two-sided, of a fixed seed and a stated size, and is shown to reject draws of the wrong kind.
"""

from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from scipy import stats

from noisy_sgd import keys, sampling
from noisy_sgd.data import augmentation, bundled, streaming

SEED = 5
KEY = keys.derive(SEED, "augmentation")


def table(steps=64, examples=256, views=8, padding=4):
    """Draws of (flip, down, right), [3, steps, examples, views]."""
    drawn = tf.function(lambda indices, step: augmentation.draws(KEY, indices, step, views, padding))
    parts = [drawn(tf.range(examples, dtype=tf.int64), tf.constant(step)) for step in range(steps)]
    return np.stack([[np.asarray(part, np.int64) for part in step] for step in parts], axis=1)


def cells_even(drawn, padding=4):
    """Chi-squared of the joint (flip, down, right) against equal cells."""
    flip, down, right = drawn.reshape(3, -1)
    side = 2 * padding + 1
    observed = np.bincount((flip * side + down + padding) * side + right + padding, minlength=2 * side**2)
    statistic = np.sum((observed - observed.mean()) ** 2) / observed.mean()
    law = stats.chi2(len(observed) - 1)
    return 2 * min(law.cdf(statistic), law.sf(statistic))


def flips_fair(flip):
    return stats.binomtest(int(flip.sum()), flip.size, 0.5).pvalue


def shifts_independent(values):
    """The largest correlation of a table with itself, shifted by any number along any axis."""
    values = (values - values.mean()) / values.std()
    correlations = np.fft.ifftn(np.abs(np.fft.fftn(values)) ** 2).real.ravel() / np.sqrt(values.size)
    return min(1.0, values.size * stats.norm.sf(np.abs(correlations[1:]).max()))


def photographs(count, height=9, width=7, channels=3):
    shape = (count, height, width, channels)
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def image_set(images):
    return bundled.ImageSet(
        name="noise",
        train_images=images,
        train_labels=np.arange(len(images), dtype=np.int32),
        test_images=images[:1],
        test_labels=np.zeros(1, np.int32),
        num_classes=len(images),
        pixel_range=(0.0, 255.0),
    )


class MakeTest(parameterized.TestCase):
    @parameterized.parameters((1, 4), (3, 4), (2, 0), (4, 7))
    def test_is_a_flip_mirrored_padding_and_a_window(self, views, padding):
        images, indices, step = photographs(40), np.arange(100, 140), 9
        augmented = augmentation.make(SEED, views, padding)(tf.constant(images), tf.constant(indices), step)
        self.assertEqual(augmented.dtype, tf.uint8)
        self.assertEqual(augmented.shape, (40, views, 9, 7, 3) if views > 1 else (40, 9, 7, 3))
        augmented = np.reshape(augmented, (40, views, 9, 7, 3))
        flip, down, right = (np.asarray(part) for part in augmentation.draws(KEY, indices, step, views, padding))
        padded = np.pad(images, [(0, 0), (padding, padding), (padding, padding), (0, 0)], mode="symmetric")
        for example in range(40):
            for view in range(views):
                top, left = down[example, view] + padding, right[example, view] + padding
                turned = padded[example, :, ::-1] if flip[example, view] else padded[example]
                np.testing.assert_array_equal(augmented[example, view], turned[top : top + 9, left : left + 7])

    @parameterized.parameters(("symmetric", "symmetric"), ("reflect", "reflect"))
    def test_windows_of_another_size_come_from_anywhere(self, mirror, numpys):
        images, indices, size, padding = photographs(400), np.arange(400), (5, 4), 2
        augment = augmentation.make(SEED, padding=padding, size=size, mirror=mirror)
        windows = augment(tf.constant(images), tf.constant(indices), 3).numpy()
        self.assertEqual(windows.shape, (400, 5, 4, 3))
        padded = np.pad(images, [(0, 0), (padding, padding), (padding, padding), (0, 0)], mode=numpys)
        spare = (9 - 5, 7 - 4)
        flip, down, right = (np.ravel(part) for part in augmentation.draws(KEY, indices, 3, 1, padding, spare))
        for example in range(400):
            top, left = down[example] + padding, right[example] + padding
            turned = padded[example, :, ::-1] if flip[example] else padded[example]
            np.testing.assert_array_equal(windows[example], turned[top : top + 5, left : left + 4])
        # The first rows and columns lie in [-2, 6] and [-2, 5], all of them.
        self.assertEqual((set(down), set(right)), (set(range(-2, 7)), set(range(-2, 6))))

    @parameterized.parameters(
        ("crop", (32, 32), 4, False), ("flip_and_crop", (8, 9), 1, True), ("tan", (224, 224), 20, True),
        ("deepmind", (224, 224), 4, True),
    )  # fmt: skip
    def test_recipes_pad_by_their_share_of_the_window(self, name, size, padding, flips):
        with mock.patch.object(augmentation, "make") as make:
            augmentation.RECIPES[name].make(7, 2, size)
        self.assertEqual(make.call_args.args, (7, 2, padding))
        self.assertEqual((make.call_args.kwargs["size"], make.call_args.kwargs["flips"]), (size, flips))

    def test_does_not_depend_on_the_rest_of_the_batch(self):
        images = photographs(30)
        augment = augmentation.make(SEED, views=2)
        whole = np.asarray(augment(tf.constant(images), tf.range(30, dtype=tf.int64), 4))
        order = np.random.default_rng(2).permutation(30)[:17]
        part = augment(tf.constant(images[order]), tf.constant(order), tf.constant(4, tf.int64))
        np.testing.assert_array_equal(part, whole[order])

    def test_without_flips_only_windows_move(self):
        images, indices = tf.constant(photographs(40)), tf.range(40)
        make = augmentation.make
        flipping, not_flipping = (make(SEED, padding=0, flips=f)(images, indices, 3) for f in (True, False))
        np.testing.assert_array_equal(not_flipping, images)
        flipped = np.any(flipping != images, axis=(1, 2, 3))
        self.assertBetween(np.sum(flipped), 8, 32)
        np.testing.assert_array_equal(flipping.numpy()[flipped], images.numpy()[flipped][:, :, ::-1])

    def test_views_are_the_first_of_more_views(self):
        images, indices = tf.constant(photographs(30)), tf.range(30)
        one, two, five = (augmentation.make(SEED, views)(images, indices, 4) for views in (1, 2, 5))
        np.testing.assert_array_equal(one, five[:, 0])
        np.testing.assert_array_equal(two, five[:, :2])

    def test_seeds_and_steps_differ(self):
        images, indices = tf.constant(photographs(30)), tf.range(30)
        results = [
            augmentation.make(seed)(images, indices, step).numpy().tobytes()
            for seed in (0, 1, -1, 2**80, b"secret")
            for step in (0, 1, 2**31)
        ]
        self.assertLen(set(results), len(results))

    def test_has_a_key_of_its_own(self):
        with mock.patch.object(keys, "derive", wraps=keys.derive) as derive:
            augmentation.make(SEED)(tf.constant(photographs(2)), tf.range(2), 0)
        derive.assert_called_once_with(SEED, "augmentation")

    @parameterized.product(kind=(sampling.Shuffled, sampling.Poisson), views=(1, 3), first_step=(1, 23))
    def test_a_resumed_stream_is_the_tail_of_the_unbroken_one(self, kind, views, first_step):
        images = image_set(photographs(50))

        def stream(first):
            augment, sampler = augmentation.make(SEED, views), kind(50, 20, SEED)
            dataset = streaming.stream(images, sampler, 8, first_step=first, num_steps=40 - first, augment=augment)
            self.assertEqual(dataset.element_spec[0].shape.as_list(), [8] + [3] * (views > 1) + [9, 7, 3])
            self.assertEqual(dataset.element_spec[0].dtype, tf.uint8)
            return [[part.tobytes() for part in parts] for parts in dataset.as_numpy_iterator()]

        whole, tail, sampler = stream(0), stream(first_step), kind(50, 20, SEED)
        skipped = sum(streaming.num_microbatches(sampler, step, 8) for step in range(first_step))
        self.assertEqual(tail, whole[skipped:])

    def test_refuses_what_cannot_be(self):
        with self.assertRaisesRegex(ValueError, "`views` must be at least 1. Received: views=0"):
            augmentation.make(0, views=0)
        with self.assertRaisesRegex(ValueError, "`padding` must not be negative. Received: padding=-1"):
            augmentation.make(0, padding=-1)
        with self.assertRaisesRegex(ValueError, "`padding` must be at most .* 9 and 7. Received: padding=8"):
            augmentation.make(0, padding=8)(tf.constant(photographs(2)), tf.range(2), 0)
        with self.assertRaisesRegex(ValueError, "`padding` must be below .* 9 and 7. Received: padding=7"):
            augmentation.make(0, padding=7, mirror="reflect")(tf.constant(photographs(2)), tf.range(2), 0)
        with self.assertRaisesRegex(ValueError, "`mirror` must be one of symmetric, reflect. Received: mirror='wrap'"):
            augmentation.make(0, mirror="wrap")
        with self.assertRaisesRegex(ValueError, "`size` must be at most .* padding of 2. Received: size=\\(14, 7\\)"):
            augmentation.make(0, padding=2, size=(14, 7))(tf.constant(photographs(2)), tf.range(2), 0)


class LawTest(absltest.TestCase):
    """131,072 draws: 64 steps of 256 examples in 8 views."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.drawn = table()

    def test_flips_are_fair_and_windows_even(self):
        self.assertGreater(cells_even(self.drawn), 1e-4)
        flip, down, right = self.drawn
        self.assertLess(cells_even(np.stack([flip, np.minimum(down, 3), right])), 1e-6)
        self.assertGreater(flips_fair(flip), 1e-4)
        self.assertLess(flips_fair(flip | (np.random.default_rng(0).random(flip.shape) < 0.02)), 1e-6)
        self.assertLess(cells_even(np.stack([flip, np.where(flip, np.abs(down), down), right])), 1e-6)
        # As even as this only by counting through the cells.
        ordered = np.arange(flip.size) % 162
        self.assertLess(cells_even(np.stack([ordered // 81, ordered // 9 % 9 - 4, ordered % 9 - 4])), 1e-6)

    def test_steps_examples_and_views_are_independent(self):
        for values in self.drawn:
            self.assertGreater(shifts_independent(values), 1e-4)
        # One generator for all examples, of which every step begins one draw later.
        moving = np.stack([np.roll(self.drawn[0, 0], step, axis=0) for step in range(64)])
        self.assertLess(shifts_independent(moving), 1e-6)
        same_views = np.repeat(self.drawn[0, :, :, :1], 8, axis=2)
        self.assertLess(shifts_independent(same_views), 1e-6)


if __name__ == "__main__":
    absltest.main()
