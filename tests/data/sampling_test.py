"""Shuffled batches are epochs, pure in (seed, step); microbatches lose and add nothing; streams resume anywhere."""

import collections

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.data import bundled, sampling


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


class ShuffledBatchesTest(parameterized.TestCase):
    @parameterized.parameters((10, 3), (12, 4), (7, 7), (5, 1))
    def test_every_epoch_is_a_permutation(self, num_examples, batch_size):
        sampler = sampling.ShuffledBatches(num_examples, batch_size, seed=1)
        self.assertEqual(sampler.steps_per_epoch, -(-num_examples // batch_size))
        for epoch in range(3):
            steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
            batches = [sampler.indices(step) for step in steps]
            self.assertEqual([len(batch) for batch in batches], [sampler.size(step) for step in steps])
            self.assertEqual({len(batch) for batch in batches[:-1]} - {batch_size}, set())
            np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(num_examples))
            self.assertEqual(batches[0].dtype, np.int64)

    def test_is_a_function_of_seed_and_step(self):
        sampler = sampling.ShuffledBatches(100, 30, seed=5)
        forward = [sampler.indices(step).copy() for step in range(20)]
        for step in np.random.default_rng(0).permutation(20):
            np.testing.assert_array_equal(sampler.indices(int(step)), forward[step])
            fresh = sampling.ShuffledBatches(100, 30, seed=5)
            np.testing.assert_array_equal(fresh.indices(np.int64(step)), forward[step])

    def test_epochs_and_seeds_differ(self):
        orders = [
            np.concatenate([sampling.ShuffledBatches(100, 50, seed).indices(2 * epoch + half) for half in (0, 1)])
            for seed in (0, 1, -1, 2**80)
            for epoch in (0, 1, 1000)
        ]
        self.assertLen({tuple(order) for order in orders}, len(orders))

    def test_order_does_not_depend_on_the_batch_size(self):
        small, large = (sampling.ShuffledBatches(24, size, seed=3) for size in (4, 12))
        np.testing.assert_array_equal(np.concatenate([small.indices(step) for step in range(6, 9)]), large.indices(2))

    def test_permutations_are_uniform(self):
        # 3,000 epochs of 4 examples: 24 orders, chi-squared with 23 degrees of freedom, whose 1e-4 and 1 - 1e-4
        # quantiles are 6.3 and 56.
        sampler = sampling.ShuffledBatches(4, 4, seed=0)
        counts = collections.Counter(tuple(sampler.indices(step)) for step in range(3000))
        self.assertLen(counts, 24)
        statistic = sum((count - 125.0) ** 2 / 125.0 for count in counts.values())
        self.assertBetween(statistic, 6.3, 56.0)

    def test_indices_cannot_be_overwritten(self):
        with self.assertRaises(ValueError):
            sampling.ShuffledBatches(10, 5, seed=0).indices(0)[0] = 3

    @parameterized.parameters(0, -1, 11)
    def test_refuses_a_batch_that_cannot_be(self, batch_size):
        with self.assertRaisesRegex(
            ValueError, f"`batch_size` must be between 1 and the number of examples, 10. Received: .*={batch_size}$"
        ):
            sampling.ShuffledBatches(10, batch_size, seed=0)

    def test_refuses_a_negative_step(self):
        with self.assertRaisesRegex(ValueError, "`step` must not be negative. Received: step=-1"):
            sampling.ShuffledBatches(10, 5, seed=0).indices(-1)


class MicrobatchesTest(parameterized.TestCase):
    @parameterized.parameters((8, 4, 1, 2), (9, 4, 1, 3), (9, 4, 2, 4), (3, 8, 1, 1), (3, 8, 2, 2), (0, 4, 2, 2))
    def test_holds_the_batch_in_order_and_padding_behind_it(self, size, microbatch_size, multiple_of, count):
        batch = np.arange(100, 100 + size)
        indices, mask = sampling.microbatches(batch, microbatch_size, multiple_of)
        self.assertEqual(indices.shape, (count, microbatch_size))
        self.assertEqual(mask.shape, (count, microbatch_size))
        self.assertEqual((indices.dtype, mask.dtype), (np.int64, np.bool_))
        np.testing.assert_array_equal(indices[mask], batch)
        np.testing.assert_array_equal(indices[~mask], 0)
        np.testing.assert_array_equal(np.ravel(mask)[:size], True)
        self.assertEqual(mask.sum(), size)

    def test_refuses_sizes_that_cut_nothing(self):
        with self.assertRaisesRegex(ValueError, "`microbatch_size` must be at least 1. Received: microbatch_size=0"):
            sampling.microbatches(np.arange(3), 0)
        with self.assertRaisesRegex(ValueError, "`multiple_of` must be at least 1. Received: multiple_of=0"):
            sampling.microbatches(np.arange(3), 1, 0)


class StreamTest(parameterized.TestCase):
    @parameterized.parameters((16, 4, 1), (16, 4, 2), (10, 4, 1), (7, 8, 3), (300, 64, 1), (1, 1, 1))
    def test_yields_every_step_in_order(self, batch_size, microbatch_size, multiple_of):
        sampler = sampling.ShuffledBatches(300, batch_size, seed=2)
        images = image_set(300)
        dataset = sampling.stream(images, sampler, microbatch_size, num_steps=45, multiple_of=multiple_of)
        iterator = iter(dataset.as_numpy_iterator())
        for step in range(45):
            count = sampling.num_microbatches(sampler, step, microbatch_size, multiple_of)
            self.assertEqual(count % multiple_of, 0)
            parts = [next(iterator) for _ in range(count)]
            x, labels, mask = (np.concatenate(part) for part in zip(*parts, strict=True))
            np.testing.assert_array_equal(labels[mask], sampler.indices(step))
            np.testing.assert_array_equal(x, images.train_images[labels])
        self.assertIsNone(next(iterator, None))

    def test_shapes_are_fixed(self):
        sampler = sampling.ShuffledBatches(300, 20, seed=2)
        spec = sampling.stream(image_set(300), sampler, 8, num_steps=5).element_spec
        self.assertEqual([part.shape.as_list() for part in spec], [[8, 1, 2, 1], [8], [8]])
        self.assertEqual([part.dtype for part in spec], [tf.uint8, tf.int32, tf.bool])

    @parameterized.parameters(1, 13, 70)
    def test_a_resumed_stream_is_the_tail_of_the_unbroken_one(self, first_step):
        # 80 steps of 256 places span several calls into Python.
        sampler, images = sampling.ShuffledBatches(300, 250, seed=2), image_set(300)
        whole = list(sampling.stream(images, sampler, 64, num_steps=80).as_numpy_iterator())
        fresh = sampling.ShuffledBatches(300, 250, seed=2)
        resumed = sampling.stream(images, fresh, 64, first_step=first_step, num_steps=80 - first_step)
        tail = list(resumed.as_numpy_iterator())
        skipped = sum(sampling.num_microbatches(sampler, step, 64) for step in range(first_step))
        self.assertLen(tail, len(whole) - skipped)
        for parts, expected in zip(tail, whole[skipped:], strict=True):
            for part, reference in zip(parts, expected, strict=True):
                np.testing.assert_array_equal(part, reference)

    def test_no_steps_no_microbatches(self):
        sampler = sampling.ShuffledBatches(10, 5, seed=2)
        self.assertEmpty(list(sampling.stream(image_set(10), sampler, 5, first_step=3, num_steps=0)))

    def test_refuses_a_sampler_for_other_data(self):
        sampler = sampling.ShuffledBatches(11, 5, seed=2)
        with self.assertRaisesRegex(ValueError, "`sampler` must draw from the 10 .* Received: num_examples=11"):
            sampling.stream(image_set(10), sampler, 5, num_steps=1)
        with self.assertRaisesRegex(ValueError, "`microbatch_size` must be at least 1. Received: microbatch_size=0"):
            sampling.stream(image_set(11), sampler, 0, num_steps=1)


if __name__ == "__main__":
    absltest.main()
