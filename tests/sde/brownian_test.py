"""Tests of the Brownian increments: exact coarsening, then the law."""

import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from noisy_sgd.sde import brownian


class BrownianTest(parameterized.TestCase):
    def test_coarsening_composes_to_the_last_bit(self):
        fine = brownian.increments(np.random.default_rng(0), 48, 0.01, (3, 2))
        np.testing.assert_array_equal(brownian.coarsen(brownian.coarsen(fine, 2), 2), brownian.coarsen(fine, 4))
        np.testing.assert_allclose(brownian.coarsen(fine, 6), fine.reshape(8, 6, 3, 2).sum(axis=1), rtol=1e-13)
        np.testing.assert_array_equal(brownian.coarsen(fine, 1), fine)

    def test_integrals_coarsen_to_the_integral_of_the_same_path(self):
        step = 0.01
        fine, integrals = brownian.increments_with_integrals(np.random.default_rng(0), 24, step, (5,))
        coarse, whole = brownian.coarsen_with_integrals(fine, integrals, step, 24)
        start = np.cumsum(fine, axis=0) - fine
        np.testing.assert_allclose(coarse[0], fine.sum(axis=0), rtol=1e-13)
        np.testing.assert_allclose(whole[0], (start * step + integrals).sum(axis=0), rtol=1e-12)
        half = brownian.coarsen_with_integrals(fine, integrals, step, 4)
        np.testing.assert_allclose(brownian.coarsen_with_integrals(*half, 4 * step, 6)[1], whole, rtol=1e-12)

    @parameterized.parameters(1, 4)
    def test_law_of_increments_and_integrals(self, factor):
        fine_step = 0.3 / factor
        pair = brownian.increments_with_integrals(np.random.default_rng(1), 40_000 * factor, fine_step, ())
        increments, integrals = brownian.coarsen_with_integrals(*pair, fine_step, factor)
        h = 0.3
        for sample, scale in ((increments, np.sqrt(h)), (integrals, np.sqrt(h**3 / 3))):
            self.assertGreater(stats.kstest(sample / scale, "norm").pvalue, 1e-3)
            self.assertLess(stats.kstest(sample / (1.05 * scale), "norm").pvalue, 1e-3)
        # 40,000 draws: the correlation's standard error is 0.00125 at its true value, sqrt(3)/2.
        self.assertAlmostEqual(np.corrcoef(increments, integrals)[0, 1], np.sqrt(3) / 2, delta=0.006)

    def test_refuses(self):
        generator = np.random.default_rng(0)
        with self.assertRaisesRegex(ValueError, "`step_size` must be positive"):
            brownian.increments(generator, 3, 0.0, ())
        with self.assertRaisesRegex(ValueError, "`num_steps` must be an integer"):
            brownian.increments(generator, 0, 0.1, ())
        with self.assertRaisesRegex(ValueError, "`factor` must divide the number of steps, 6"):
            brownian.coarsen(np.zeros(6), 4)


if __name__ == "__main__":
    absltest.main()
