"""Shuffled batches: permutations, which are functions of (seed, epoch), and what an epoch costs."""

import collections

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import sampling


class ShuffledTest(parameterized.TestCase):
    @parameterized.parameters((10, 3), (12, 4), (7, 7), (5, 1))
    def test_every_epoch_is_a_permutation(self, num_examples, batch_size):
        sampler = sampling.Shuffled(num_examples, batch_size, seed=1)
        self.assertEqual(sampler.steps_per_epoch, -(-num_examples // batch_size))
        for epoch in range(3):
            steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
            batches = [sampler.indices(step) for step in steps]
            self.assertEqual([len(batch) for batch in batches], [sampler.size(step) for step in steps])
            self.assertEqual({len(batch) for batch in batches[:-1]} - {batch_size}, set())
            np.testing.assert_array_equal(np.sort(np.concatenate(batches)), np.arange(num_examples))
            self.assertEqual(batches[0].dtype, np.int64)

    def test_is_a_function_of_seed_and_step(self):
        sampler = sampling.Shuffled(100, 30, seed=5)
        forward = [sampler.indices(step).copy() for step in range(20)]
        for step in np.random.default_rng(0).permutation(20):
            np.testing.assert_array_equal(sampler.indices(int(step)), forward[step])
            fresh = sampling.Shuffled(100, 30, seed=5)
            np.testing.assert_array_equal(fresh.indices(np.int64(step)), forward[step])

    def test_epochs_and_seeds_differ(self):
        orders = [
            np.concatenate([sampling.Shuffled(100, 50, seed).indices(2 * epoch + half) for half in (0, 1)])
            for seed in (0, 1, -1, 2**80)
            for epoch in (0, 1, 1000)
        ]
        self.assertLen({tuple(order) for order in orders}, len(orders))

    def test_order_does_not_depend_on_the_batch_size(self):
        small, large = (sampling.Shuffled(24, size, seed=3) for size in (4, 12))
        np.testing.assert_array_equal(np.concatenate([small.indices(step) for step in range(6, 9)]), large.indices(2))

    def test_permutations_are_uniform(self):
        # 3,000 epochs of 4 examples: 24 orders, chi-squared with 23 degrees of freedom, whose 1e-4 and 1 - 1e-4
        # quantiles are 6.3 and 56.
        sampler = sampling.Shuffled(4, 4, seed=0)
        counts = collections.Counter(tuple(sampler.indices(step)) for step in range(3000))
        self.assertLen(counts, 24)
        statistic = sum((count - 125.0) ** 2 / 125.0 for count in counts.values())
        self.assertBetween(statistic, 6.3, 56.0)

    def test_indices_cannot_be_overwritten(self):
        with self.assertRaises(ValueError):
            sampling.Shuffled(10, 5, seed=0).indices(0)[0] = 3

    @parameterized.parameters(0, -1, 11)
    def test_refuses_a_batch_that_cannot_be(self, batch_size):
        with self.assertRaisesRegex(
            ValueError,
            f"`batch_size` must be (a whole number|at most `num_examples`).*Received: batch_size={batch_size}",
        ):
            sampling.Shuffled(10, batch_size, seed=0)

    def test_refuses_a_negative_step(self):
        with self.assertRaisesRegex(ValueError, "`step` must not be negative. Received: step=-1"):
            sampling.Shuffled(10, 5, seed=0).indices(-1)

    def test_an_example_takes_part_once_per_epoch_started(self):
        scheme = sampling.Shuffled(10, 3, seed=2)
        for num_steps in range(14):
            taken = np.bincount(
                np.concatenate([np.zeros(0, np.int64), *map(scheme.indices, range(num_steps))]), minlength=10
            )
            participation = scheme.participation(num_steps)
            self.assertEqual(participation.times, -(-num_steps // 4))
            self.assertLessEqual(taken.max(), participation.times)
            self.assertIsNone(participation.probability)

    def test_without_a_seed_it_draws_nothing(self):
        with self.assertRaisesRegex(ValueError, "`seed` must be given for a Shuffled to draw batches"):
            sampling.Shuffled(10, 3).indices(0)


class NamedTest(absltest.TestCase):
    def test_names(self):
        self.assertEqual({name: kind.name for name, kind in sampling.SCHEMES.items()}, {n: n for n in sampling.SCHEMES})
        self.assertIs(sampling.named("poisson"), sampling.Poisson)
        with self.assertRaisesRegex(ValueError, "`sampling` must be one of .*Received: sampling='fixed'"):
            sampling.named("fixed")


if __name__ == "__main__":
    absltest.main()
