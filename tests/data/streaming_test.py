"""Shuffled batches are epochs, pure in (seed, step); microbatches lose and add nothing; streams resume anywhere.

Workers share a stream and read only their own; padding is never read, and contributes nothing to a clipped sum.
"""

import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd import sampling
from noisy_sgd.data import bundled, streaming


def image_set(examples):
    """Images whose pixels and labels tell which example they are."""
    numbers = np.arange(examples)
    images = np.stack([numbers % 256, numbers // 256], -1).astype(np.uint8).reshape(examples, 1, 2, 1)
    labels = numbers.astype(np.int32)
    return bundled.ImageSet(
        name="numbers",
        train_images=images,
        train_labels=labels,
        test_images=images[:1],
        test_labels=labels[:1],
        num_classes=examples,
        pixel_range=(0.0, 255.0),
    )


class CountingImages:
    """Images that note which examples are read, and how many at a time."""

    name, train_image_shape = "counting", (1, 2, 1)

    def __init__(self, examples):
        self.num_train_examples = examples
        self.calls = []
        self._images = image_set(examples).train_images

    def train_reader(self):
        def note(indices):
            self.calls.append(indices.tolist())
            return self._images[indices], indices.astype(np.int32)

        return lambda indices: tf.numpy_function(note, [indices], [tf.uint8, tf.int32])

    @property
    def read(self):
        return sorted(index for call in self.calls for index in call)


def samplers(examples, batch_size, seed=2):
    return [
        kind(examples, batch_size, seed) for kind in (sampling.Shuffled, sampling.Poisson, sampling.RandomAllocation)
    ]


def softmax_regression():
    """A model of 8x8 images, and its loss."""
    inputs = keras.Input((8, 8, 1))
    outputs = keras.layers.Dense(10, kernel_initializer=keras.initializers.GlorotUniform(1))(
        keras.layers.Flatten()(inputs)
    )
    return keras.Model(inputs, outputs), keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="none")


class MicrobatchesTest(parameterized.TestCase):
    @parameterized.parameters((8, 4, 1, 2), (9, 4, 1, 3), (9, 4, 2, 4), (3, 8, 1, 1), (3, 8, 2, 2), (0, 4, 2, 2))
    def test_holds_the_batch_in_order_and_padding_behind_it(self, size, microbatch_size, multiple_of, count):
        batch = np.arange(100, 100 + size)
        indices, mask = streaming.microbatches(batch, microbatch_size, multiple_of)
        self.assertEqual(indices.shape, (count, microbatch_size))
        self.assertEqual(mask.shape, (count, microbatch_size))
        self.assertEqual((indices.dtype, mask.dtype), (np.int64, np.bool_))
        np.testing.assert_array_equal(indices[mask], batch)
        np.testing.assert_array_equal(indices[~mask], 0)
        np.testing.assert_array_equal(np.ravel(mask)[:size], True)
        self.assertEqual(mask.sum(), size)

    def test_refuses_sizes_that_cut_nothing(self):
        with self.assertRaisesRegex(ValueError, "`microbatch_size` must be at least 1. Received: microbatch_size=0"):
            streaming.microbatches(np.arange(3), 0)
        with self.assertRaisesRegex(ValueError, "`multiple_of` must be at least 1. Received: multiple_of=0"):
            streaming.microbatches(np.arange(3), 1, 0)


class StreamTest(parameterized.TestCase):
    @parameterized.parameters((16, 4, 1), (16, 4, 2), (10, 4, 1), (7, 8, 3), (300, 64, 1), (1, 1, 1))
    def test_yields_every_step_in_order(self, batch_size, microbatch_size, multiple_of):
        images = image_set(300)
        for sampler in samplers(300, batch_size):
            dataset = streaming.stream(images, sampler, microbatch_size, num_steps=45, multiple_of=multiple_of)
            iterator = iter(dataset.as_numpy_iterator())
            for step in range(45):
                count = streaming.num_microbatches(sampler, step, microbatch_size, multiple_of)
                self.assertEqual(count % multiple_of, 0)
                parts = [next(iterator) for _ in range(count)]
                x, labels, mask = (np.concatenate(part) for part in zip(*parts, strict=True))
                np.testing.assert_array_equal(labels[mask], sampler.indices(step))
                np.testing.assert_array_equal(x[mask], images.train_images[labels[mask]])
                self.assertFalse(np.any(x[~mask]) or np.any(labels[~mask]))
            self.assertIsNone(next(iterator, None))

    @parameterized.parameters((1, 1), (2, 1), (2, 2), (4, 2), (6, 3))
    def test_workers_share_the_stream_and_read_only_their_own(self, multiple_of, workers):
        # 32 examples of 40 a step on average, 8 a microbatch: some rounds are padding for some workers.
        for sampler in samplers(40, 32):
            options = {"num_steps": 12, "multiple_of": multiple_of}
            whole = list(streaming.stream(image_set(40), sampler, 8, **options).as_numpy_iterator())
            merged = [None] * len(whole)
            share = multiple_of // workers
            for index in range(workers):
                images = CountingImages(40)
                own = list(streaming.stream(images, sampler, 8, worker=(index, workers), **options).as_numpy_iterator())
                places = [place for place in range(len(whole)) if place % multiple_of // share == index]
                self.assertLen(own, len(places))
                for place, microbatch in zip(places, own, strict=True):
                    merged[place] = microbatch
                self.assertEqual(images.read, sorted(label for _, labels, mask in own for label in labels[mask]))
                self.assertNotIn([], images.calls)
            for parts, expected in zip(merged, whole, strict=True):
                for part, reference in zip(parts, expected, strict=True):
                    np.testing.assert_array_equal(part, reference)

    def test_a_large_batch_is_read_a_microbatch_at_a_time(self):
        images, sampler = CountingImages(40_000), sampling.Poisson(40_000, 32_768, seed=0)
        microbatches = iter(streaming.stream(images, sampler, 64, num_steps=1))
        next(microbatches)
        # What is read ahead is a few microbatches, whatever the batch.
        self.assertLessEqual(len(images.calls), 8)
        for _ in microbatches:
            pass
        self.assertEqual(images.read, sampler.indices(0).tolist())
        self.assertEqual(max(len(call) for call in images.calls), 64)

    def test_an_empty_draw_is_one_round_of_padding(self):
        sampler, images = sampling.Poisson(6, 1, seed=0), CountingImages(6)
        empty = next(step for step in range(100) if sampler.size(step) == 0)
        self.assertEqual(streaming.num_microbatches(sampler, empty, 4, 2), 2)
        rounds = list(streaming.stream(images, sampler, 4, first_step=empty, num_steps=1, multiple_of=2))
        self.assertLen(rounds, 2)
        for x, _, mask in rounds:
            self.assertEqual(x.shape, (4, 1, 2, 1))
            self.assertFalse(np.any(mask))
        self.assertEmpty(images.calls)

    def test_augmentation_is_told_examples_and_step(self):
        def tell(images, indices, step):
            told = tf.stack([indices, tf.fill(tf.shape(indices), step)], -1)
            return (
                tf.cast(images[:, tf.newaxis, :, :, :], tf.int64) * 0 + told[:, tf.newaxis, tf.newaxis, :, tf.newaxis]
            )

        for sampler in samplers(40, 10):
            dataset = streaming.stream(image_set(40), sampler, 4, first_step=5, num_steps=90, augment=tell)
            self.assertEqual(dataset.element_spec[0].shape.as_list(), [4, 1, 1, 2, 1])
            iterator = iter(dataset.as_numpy_iterator())
            for step in range(5, 95):
                for _ in range(streaming.num_microbatches(sampler, step, 4)):
                    told, labels, mask = next(iterator)
                    np.testing.assert_array_equal(told[mask][:, 0, 0, 0, 0], labels[mask])
                    np.testing.assert_array_equal(told[:, 0, 0, 1, 0], step)

    def test_shapes_are_fixed(self):
        sampler = sampling.Shuffled(300, 20, seed=2)
        spec = streaming.stream(image_set(300), sampler, 8, num_steps=5).element_spec
        self.assertEqual([part.shape.as_list() for part in spec], [[8, 1, 2, 1], [8], [8]])
        self.assertEqual([part.dtype for part in spec], [tf.uint8, tf.int32, tf.bool])

    @parameterized.product(first_step=(1, 13, 70), kind=(sampling.Shuffled, sampling.Poisson))
    def test_a_resumed_stream_is_the_tail_of_the_unbroken_one(self, first_step, kind):
        # 80 steps of 256 places span several calls into Python.
        sampler, images = kind(300, 250, seed=2), image_set(300)
        whole = list(streaming.stream(images, sampler, 64, num_steps=80).as_numpy_iterator())
        fresh = kind(300, 250, seed=2)
        resumed = streaming.stream(images, fresh, 64, first_step=first_step, num_steps=80 - first_step)
        tail = list(resumed.as_numpy_iterator())
        skipped = sum(streaming.num_microbatches(sampler, step, 64) for step in range(first_step))
        self.assertLen(tail, len(whole) - skipped)
        for parts, expected in zip(tail, whole[skipped:], strict=True):
            for part, reference in zip(parts, expected, strict=True):
                np.testing.assert_array_equal(part, reference)

    def test_no_steps_no_microbatches(self):
        sampler = sampling.Shuffled(10, 5, seed=2)
        self.assertEmpty(list(streaming.stream(image_set(10), sampler, 5, first_step=3, num_steps=0)))

    def test_refuses_a_sampler_for_other_data(self):
        sampler = sampling.Shuffled(11, 5, seed=2)
        with self.assertRaisesRegex(ValueError, "`scheme` must draw from the 10 .* Received: num_examples=11"):
            streaming.stream(image_set(10), sampler, 5, num_steps=1)
        with self.assertRaisesRegex(ValueError, "`microbatch_size` must be at least 1. Received: microbatch_size=0"):
            streaming.stream(image_set(11), sampler, 0, num_steps=1)

    @parameterized.parameters((0, 3), (2, 2), (-1, 2), (0, 0))
    def test_refuses_workers_without_a_share(self, index, workers):
        with self.assertRaisesRegex(ValueError, f"`worker` must be .* Received: worker=.{index}, {workers}.$"):
            streaming.stream(image_set(10), samplers(10, 5)[0], 5, num_steps=1, multiple_of=4, worker=(index, workers))


class PaddingTest(parameterized.TestCase):
    @parameterized.parameters("book_keeping", "vectorized")
    def test_padding_is_absent_from_the_clipped_sum(self, engine):
        digits = bundled.load("digits", train_size=64)
        model, loss = softmax_regression()
        sampler = sampling.Poisson(64, 21, seed=3)

        @tf.function
        def clipped_sum(x, labels, mask):
            return noisy_sgd.clipped_gradient_sum(
                model, loss, x, labels, l2_norm_clip=0.1, mask=mask, engine=engine
            ).values

        for step in range(3):
            count = streaming.num_microbatches(sampler, step, 8, 4)
            stream = list(streaming.stream(digits, sampler, 8, first_step=step, num_steps=1, multiple_of=4))
            self.assertLen(stream, count)
            total = 0.0
            for images, labels, mask in stream:
                x = tf.cast(images, tf.float32) / 16.0
                value = clipped_sum(x, labels, mask)
                for poison in (np.nan, np.inf, 1e30):
                    poisoned = tf.where(mask[:, tf.newaxis, tf.newaxis, tf.newaxis], x, poison)
                    for part, expected in zip(clipped_sum(poisoned, labels, mask), value, strict=True):
                        self.assertEqual(part.numpy().tobytes(), expected.numpy().tobytes())
                if not np.any(mask):
                    self.assertFalse(any(np.any(part) for part in value))
                total = total + np.concatenate([np.ravel(part) for part in value])
            # The same sum over all examples in order, masked by who is included.
            expected, included = 0.0, np.isin(np.arange(64), sampler.indices(step))
            for rows in np.split(np.arange(64), 8):
                x = tf.constant(digits.train_images[rows] / 16.0, tf.float32)
                value = clipped_sum(x, tf.constant(digits.train_labels[rows]), tf.constant(included[rows]))
                expected = expected + np.concatenate([np.ravel(part) for part in value])
            np.testing.assert_allclose(total, expected, atol=1e-6 * np.linalg.norm(expected))
            self.assertLess(sampler.size(step), 8 * count)


if __name__ == "__main__":
    absltest.main()
