import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import privacy, sampling


class CyclicTest(parameterized.TestCase):
    @parameterized.parameters((10, 3), (12, 4), (5, 5), (7, 1))
    def test_every_epoch_repeats_the_first_one(self, num_examples, batch_size):
        scheme = sampling.Cyclic(num_examples, batch_size, seed=2)
        length = scheme.steps_per_epoch
        first = [scheme.indices(step) for step in range(length)]
        np.testing.assert_array_equal(np.sort(np.concatenate(first)), np.arange(num_examples))
        for step in range(length, 3 * length):
            np.testing.assert_array_equal(scheme.indices(step), first[step % length])
            self.assertLen(first[step % length], scheme.size(step))

    def test_participations_are_as_stated(self):
        scheme = sampling.Cyclic(10, 3, seed=2)
        for num_steps in range(1, 14):
            stated = scheme.participation(num_steps)
            self.assertGreaterEqual(stated.length, num_steps)
            self.assertIsNone(stated.probability)
            for example in range(10):
                steps = [step for step in range(num_steps) if example in scheme.indices(step)]
                self.assertLessEqual(len(steps), stated.times)
                self.assertTrue(all(gap == stated.separation for gap in np.diff(steps)))

    def test_the_partition_is_random(self):
        batches = {tuple(sampling.Cyclic(1000, 10, seed=seed).indices(0)) for seed in range(20)}
        self.assertLen(batches, 20)
        # The example numbers of 20 x 10 draws: their mean has a standard error of 20.4.
        self.assertAlmostEqual(np.mean([*batches]), 499.5, delta=5 * 20.4)

    def test_independent_noise_costs_as_much_as_shuffled(self):
        costs = {
            name: privacy.epsilon(4.0, 64, 1797, 280, 1e-5, sampling=name, accountant="rdp")
            for name in ("cyclic", "shuffled")
        }
        self.assertEqual(costs["cyclic"], costs["shuffled"])

    def test_words(self):
        scheme = sampling.named("cyclic")(10, 3)
        self.assertIn("at most 2 times, exactly 4 steps apart", scheme.in_words(5))
        self.assertIn("place in the order left empty", scheme.neighbors_in_words("add_or_remove"))
        self.assertIn("one example replaced", scheme.neighbors_in_words("replace_one"))
        self.assertFalse(scheme.amplifies)


if __name__ == "__main__":
    absltest.main()
