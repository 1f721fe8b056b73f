import math

import numpy as np
from absl.testing import absltest

from noisy_sgd import statistics


class EstimateTest(absltest.TestCase):
    def test_by_hand(self):
        found = statistics.estimate([1.0, 2.0, 3.0])
        self.assertEqual((found.mean, found.std, found.count), (2.0, 1.0, 3))
        # Student's t at 0.975 with two degrees of freedom is 4.3027.
        self.assertAlmostEqual(found.half_width, 4.3027 / math.sqrt(3), places=4)
        self.assertAlmostEqual(found.high - found.low, 2 * found.half_width)

    def test_one_value_has_no_interval(self):
        found = statistics.estimate([2.0])
        self.assertEqual(found.mean, 2.0)
        self.assertTrue(math.isnan(found.half_width))

    def test_no_value_is_refused(self):
        with self.assertRaisesRegex(ValueError, "`values`.*Received"):
            statistics.estimate([])

    def test_the_interval_covers_the_truth_as_often_as_it_says(self):
        draws = np.random.default_rng(0).normal(size=(4000, 5))
        covered = np.mean([abs(e.mean) <= e.half_width for e in map(statistics.estimate, draws)])
        self.assertBetween(covered, 0.94, 0.96)


class SlopeTest(absltest.TestCase):
    def test_a_line_in_log2_is_found_exactly(self):
        sizes = (8, 16, 32, 64, 128)
        values = {seed: {size: 90 + seed - 2.0 * math.log2(size) for size in sizes} for seed in range(5)}
        found = statistics.slope_per_doubling(values)
        self.assertAlmostEqual(found.mean, -2.0)
        self.assertAlmostEqual(found.half_width, 0.0)
        self.assertEqual(found.count, 5)

    def test_seeds_that_disagree_widen_the_interval(self):
        values = {0: {8: 1.0, 16: 0.0}, 1: {8: 0.0, 16: 1.0}}
        found = statistics.slope_per_doubling(values)
        self.assertAlmostEqual(found.mean, 0.0)
        self.assertGreater(found.high, 1.0)

    def test_different_grids_are_refused(self):
        for values in ({0: {8: 1.0}}, {0: {8: 1.0, 16: 1.0}, 1: {8: 1.0, 32: 1.0}}):
            with self.assertRaisesRegex(ValueError, "`values` must have the same two or more batch sizes"):
                statistics.slope_per_doubling(values)


class TestsTest(absltest.TestCase):
    def test_page_finds_a_fall_and_no_rise(self):
        falling = np.asarray([[3.0, 2.0, 1.0]] * 6)
        # All six seeds agree: L is its maximum, which has probability (1/6)^6.
        self.assertAlmostEqual(statistics.falls(falling), 6.0**-6)
        self.assertAlmostEqual(statistics.falls(-falling), 1.0)

    def test_page_keeps_its_level(self):
        draws = np.random.default_rng(1).normal(size=(2000, 5, 4))
        rejected = np.mean([statistics.falls(draw) < 0.05 for draw in draws])
        self.assertBetween(rejected, 0.03, 0.06)  # n = 2000: 0.05 +- 2 standard errors of 0.005, and discreteness

    def test_holm_by_hand(self):
        np.testing.assert_allclose(statistics.holm([0.01, 0.04, 0.03]), [0.03, 0.06, 0.06])
        np.testing.assert_allclose(statistics.holm([0.9, 0.5]), [1.0, 1.0])

    def test_equivalence_needs_the_whole_interval_within_the_margin(self):
        differences = [-0.1, 0.0, 0.1, 0.0]
        # The 90 % interval is 2.3534 * 0.0816 / 2 = 0.0961 on either side.
        self.assertTrue(statistics.equivalent(differences, 0.097))
        self.assertFalse(statistics.equivalent(differences, 0.095))
        self.assertFalse(statistics.equivalent([value + 0.05 for value in differences], 0.097))


if __name__ == "__main__":
    absltest.main()
