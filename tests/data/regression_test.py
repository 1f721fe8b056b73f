"""Tests of the synthetic regression problems: their identities, their law, and what they refuse."""

import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from noisy_sgd.data import regression


class SparseTest(parameterized.TestCase):
    def test_is_the_paper_s_design(self):
        problem = regression.sparse(seed=0)
        self.assertEqual(problem.features.shape, (40, 100))
        self.assertEqual(np.count_nonzero(problem.solution), 5)
        self.assertAlmostEqual(np.sum(problem.solution**2), 5.61, places=12)
        np.testing.assert_array_equal(problem.targets, problem.features @ problem.solution)
        values = np.linalg.eigvalsh(problem.features @ problem.features.T / 40)
        self.assertAlmostEqual(problem.largest_eigenvalue, values[-1], places=10)
        self.assertAlmostEqual(problem.paper_step_size * values[-1], 1 / 1.3, places=12)

    def test_is_a_function_of_the_seed(self):
        first, again, other = regression.sparse(3), regression.sparse(3), regression.sparse(4)
        np.testing.assert_array_equal(first.features, again.features)
        self.assertGreater(np.abs(first.features - other.features).max(), 1)
        self.assertGreater(np.abs(first.solution - other.solution).max(), 0.01)

    def test_features_are_standard_normal(self):
        sample = regression.sparse(0, 300, 300).features.ravel()  # 9e4 draws
        self.assertGreater(stats.kstest(sample, "norm").pvalue, 1e-3)
        self.assertLess(stats.kstest(1.05 * sample, "norm").pvalue, 1e-3)

    def test_rescaling_changes_the_length_only(self):
        plain, scaled = regression.sparse(0, squared_norm=None), regression.sparse(0, squared_norm=2.0)
        np.testing.assert_array_equal(plain.features, scaled.features)
        direction = plain.solution / np.linalg.norm(plain.solution)
        np.testing.assert_allclose(scaled.solution, np.sqrt(2) * direction, rtol=1e-12)

    @parameterized.parameters(
        (dict(num_examples=0), "`num_examples` must be at least 1"),
        (dict(num_nonzeros=101), "`num_nonzeros` must be between 1 and `dimension`=100"),
        (dict(squared_norm=-1.0), "`squared_norm` must be positive"),
    )
    def test_refuses(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            regression.sparse(0, **arguments)


class NoisyTest(parameterized.TestCase):
    def test_label_noise_and_conditioning(self):
        problem = regression.noisy(0, 20_000, 3, label_noise=0.5, condition_number=9.0)
        residual = problem.targets - problem.features @ problem.solution
        self.assertGreater(stats.kstest(residual / 0.5, "norm").pvalue, 1e-3)
        # The relative standard error of a variance over 2e4 draws is 1 %.
        np.testing.assert_allclose(np.mean(problem.features**2, axis=0), [1, 1 / 3, 1 / 9], rtol=0.05)

    @parameterized.parameters(
        (dict(num_examples=5, dimension=0), "`dimension` must be at least 1"),
        (dict(num_examples=5, dimension=2, label_noise=-1.0), "`label_noise` must be at least 0"),
        (dict(num_examples=5, dimension=2, condition_number=0.5), "`condition_number` must be at least 1"),
    )
    def test_refuses(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            regression.noisy(0, **arguments)


if __name__ == "__main__":
    absltest.main()
