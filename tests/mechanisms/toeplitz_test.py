"""The cost of correlated noise: against brute force over all participations, and against JAX-Privacy's numbers.

The numbers named as JAX-Privacy's were printed by jax-privacy 2.0.0 (jax 0.10.2, float64) on 2026-11-29:
`toeplitz.minsep_sensitivity_squared`, `toeplitz.per_query_error` and `toeplitz.optimize_banded_toeplitz` of
`jax_privacy.matrix_factorization`.
"""

import itertools
import math

import dp_accounting
import numpy as np
from absl.testing import absltest, parameterized
from scipy import linalg

from noisy_sgd import sampling
from noisy_sgd.mechanisms import toeplitz

STEPS = 1000
KINDS = {
    "lambda 0.9": toeplitz.lambda_cgd(0.9),
    "lambda 0.5": toeplitz.lambda_cgd(0.5),
    "lambda 0.99": toeplitz.lambda_cgd(0.99),
    "4 bands": toeplitz.banded_inverse_square_root(4),
    "16 bands": toeplitz.banded_inverse_square_root(16),
    "64 bands": toeplitz.banded_inverse_square_root(64),
    "1000 bands": toeplitz.banded_inverse_square_root(1000),
}
# Of 1, 4 and 10 epochs.
SENSITIVITIES = {
    "lambda 0.9": (2.2941573387056176, 4.588314677423748, 7.2549359298425316),
    "lambda 0.5": (1.1547005383792515, 2.309401076758503, 3.6514837167011076),
    "lambda 0.99": (7.0888120434774455, 15.047526276194509, 31.21707363899153),
    "4 bands": (1.2737355919275248, 2.54747118385505, 4.027905607324472),
    "16 bands": (1.4531625527096927, 2.9063262236075595, 4.604768887346692),
    "64 bands": (1.6013599992090466, 3.2450194579250295, 5.780706062396252),
    "1000 bands": (1.8069319524189142, 4.384380489955957, 9.154043000233363),
}
MEAN_SQUARED_ERRORS = {
    "lambda 0.9": 5.994999999999995,
    "lambda 0.5": 125.875,
    "lambda 0.99": 1.0499500000000006,
    "4 bands": 49.97436910937501,
    "16 bands": 12.053358943938195,
    "64 bands": 4.575996984150004,
    "1000 bands": 2.9475890127806847,
}
# The error times the sensitivity of its optimized strategy: of 1,000 bands for one epoch, of 250 for four.
OPTIMIZED = {1: 3.0490485859663936, 4: 6.429082959577231}


def matrix(coefficients, num_steps):
    """C, from the inverse of the noise's matrix."""
    column = np.zeros(num_steps)
    column[: len(coefficients)] = coefficients[:num_steps]
    return np.linalg.inv(linalg.toeplitz(column, np.zeros(num_steps)))


def patterns(num_steps, separation, times, *, exactly):
    """All sets of steps in which an example may take part."""
    for count in range(1, times + 1):
        for steps in itertools.combinations(range(num_steps), count):
            gaps = np.diff(steps)
            if (gaps % separation == 0).all() if exactly else (gaps >= separation).all():
                yield list(steps)


class SensitivityTest(parameterized.TestCase):
    @parameterized.product(
        coefficients=((1.0,), (1, -0.9), (2, -1.0), (1, -0.5, -0.125), (1, -0.3, -0.3, -0.2)),
        shape=((12, 4, 3), (12, 3, 4), (11, 5, 2), (10, 1, 10), (9, 2, 3), (12, 12, 1)),
    )
    def test_decreasing_columns_against_all_patterns(self, coefficients, shape):
        num_steps, separation, times = shape
        strategy = matrix(coefficients, num_steps)
        # With nonnegative products the worst gradients all point the same way. At least `separation` apart is enough.
        worst = max(
            np.linalg.norm(strategy[:, steps].sum(axis=1))
            for steps in patterns(num_steps, separation, times, exactly=False)
        )
        self.assertAlmostEqual(toeplitz.sensitivity(coefficients, *shape), worst, delta=1e-7 * worst)

    @parameterized.product(
        # The columns of the last one fall from 1 to -1.2.
        coefficients=(
            (1, 0.5),
            (1, -1.2, 0.5),
            (1, 0.0, -0.8),
            (1, -1.4),
            tuple(toeplitz.strategy(1 - 0.2 * np.arange(12), 12)),
        ),
        shape=((12, 4, 3), (11, 3, 4), (10, 1, 10), (9, 2, 3)),
    )
    def test_other_columns_against_all_patterns(self, coefficients, shape):
        num_steps, separation, times = shape
        strategy = matrix(coefficients, num_steps)
        products = np.abs(strategy.T @ strategy)
        found = toeplitz.sensitivity(coefficients, *shape)
        chosen = list(patterns(num_steps, separation, times, exactly=True))
        bound = max(math.sqrt(products[np.ix_(steps, steps)].sum()) for steps in chosen)
        self.assertAlmostEqual(found, bound, delta=1e-7 * bound)
        # No gradients of one example, of any signs, move the sums further.
        for steps in chosen:
            for signs in itertools.product((-1, 1), repeat=len(steps)):
                self.assertLessEqual(np.linalg.norm(strategy[:, steps] @ signs), found)

    @parameterized.product(kind=list(KINDS), epochs=(1, 4, 10))
    def test_it_is_jax_privacys(self, kind, epochs):
        expected = SENSITIVITIES[kind][(1, 4, 10).index(epochs)]
        found = toeplitz.sensitivity(KINDS[kind], STEPS, STEPS // epochs, epochs)
        self.assertAlmostEqual(found / expected, 1, delta=1e-6)

    def test_independent_noise_counts_the_participations(self):
        self.assertAlmostEqual(toeplitz.sensitivity((1.0,), 100, 10, 10), math.sqrt(10), places=7)
        self.assertAlmostEqual(toeplitz.sensitivity((2.0,), 100, 10, 10), math.sqrt(10) / 2, places=7)
        # Not more participations than there are steps for.
        self.assertAlmostEqual(toeplitz.sensitivity((1.0,), 30, 10, 10), math.sqrt(3), places=7)

    def test_columns_that_grow_beyond_all_numbers(self):
        self.assertEqual(toeplitz.sensitivity((1, -3.0), 2000, 100, 20), math.inf)


class PrefixErrorTest(parameterized.TestCase):
    @parameterized.parameters(*KINDS)
    def test_it_is_jax_privacys(self, kind):
        expected = math.sqrt(MEAN_SQUARED_ERRORS[kind])
        self.assertAlmostEqual(toeplitz.prefix_error(KINDS[kind], STEPS) / expected, 1, delta=1e-6)

    def test_against_the_matrix(self):
        noising = np.linalg.inv(matrix((1, -0.5, -0.2), 20))
        sums = np.tril(np.ones((20, 20))) @ noising
        expected = math.sqrt(np.mean(np.sum(sums**2, axis=1)))
        self.assertAlmostEqual(toeplitz.prefix_error((1, -0.5, -0.2), 20), expected, places=12)


class BestTest(parameterized.TestCase):
    def error(self, coefficients, epochs):
        return toeplitz.prefix_error(coefficients, STEPS) * toeplitz.sensitivity(
            coefficients, STEPS, STEPS // epochs, epochs
        )

    @parameterized.parameters(1, 4)
    def test_it_is_within_5_percent_of_jax_privacys_optimized_strategy(self, epochs):
        ours = self.error(toeplitz.best(STEPS, epochs), epochs)
        self.assertBetween(ours / OPTIMIZED[epochs], 0.99, 1.05)

    def test_none_of_its_kinds_is_better(self):
        best = self.error(toeplitz.best(STEPS, 10), 10)
        for bands in (2, 20, 40, 60, 63, 66, 80, 200):
            self.assertLessEqual(best, self.error(toeplitz.banded_inverse_square_root(bands), 10) * (1 + 1e-12))
        for value in (0.5, 0.9, 0.95, 0.99):
            self.assertLessEqual(best, self.error(toeplitz.lambda_cgd(value), 10))

    def test_few_draws(self):
        self.assertEqual(toeplitz.best(STEPS, 4, draws=1), (1.0,))
        two = toeplitz.best(STEPS, 4, draws=2)
        self.assertLen(two, 2)
        self.assertLessEqual(
            self.error(two, 4), min(self.error((1, -value), 4) for value in np.linspace(0.9, 0.99, 91)) * 1.001
        )

    def test_bad_arguments(self):
        with self.assertRaisesRegex(ValueError, "`epochs` must be at most the 3 steps. Received: epochs=4"):
            toeplitz.best(3, 4)
        with self.assertRaisesRegex(ValueError, "`draws` must be"):
            toeplitz.best(3, 1, draws=0)


class CoefficientsTest(parameterized.TestCase):
    def test_the_square_of_the_inverse_square_root_is_1_minus_x(self):
        coefficients = np.array(toeplitz.banded_inverse_square_root(30))
        np.testing.assert_allclose(np.convolve(coefficients, coefficients)[:30], [1, -1] + 28 * [0], atol=1e-15)

    def test_zeros_at_the_end_are_left_out(self):
        self.assertEqual(toeplitz.checked([1, -0.5, 0, 0.0]), (1.0, -0.5))
        self.assertEqual(toeplitz.lambda_cgd(0), (1.0,))

    @parameterized.parameters(
        ([],), ([0, 1],), ([-1],), ([1, math.nan],), ([1, 1e39],), ([1e-50],), ("ab",), ([[1, 2]],), (None,)
    )
    def test_refused(self, coefficients):
        with self.assertRaisesRegex(ValueError, "`coefficients` must be finite numbers, the first one positive"):
            toeplitz.checked(coefficients)

    def test_a_lambda_out_of_range(self):
        with self.assertRaisesRegex(ValueError, "`value` must be .*Received: value=1"):
            toeplitz.lambda_cgd(1.0)


class EventTest(parameterized.TestCase):
    def test_a_run_is_one_gaussian(self):
        priced = toeplitz.CorrelatedGaussian((1, -0.9), 4.0)
        event = priced.event_of_run(sampling.Cyclic(1000, 4).participation(1000))
        self.assertIsInstance(event, dp_accounting.GaussianDpEvent)
        self.assertAlmostEqual(event.noise_multiplier, 4.0 / SENSITIVITIES["lambda 0.9"][1], places=6)
        self.assertEqual(priced.event_of_run(sampling.Cyclic(1000, 4).participation(0)), dp_accounting.NoOpDpEvent())

    @parameterized.parameters(0.9, 0.99, 0.999)
    def test_the_rounding_of_the_noise_is_paid_for(self, value):
        # float32 rounds 0.9 down, and the others up.
        cyclic = sampling.Cyclic(1000, 4).participation(1000)
        event = toeplitz.CorrelatedGaussian((1.0, -value), 4.0).event_of_run(cyclic)
        for drawn in (value, float(np.float32(value))):
            sens = toeplitz.sensitivity((1.0, -drawn), 1000, 250, 4)
            self.assertLessEqual(event.noise_multiplier, 4.0 / sens)

    def test_no_noise_and_columns_that_grow_are_not_private(self):
        cyclic = sampling.Cyclic(4000, 2).participation(2000)
        for coefficients, noise in (((1, -0.9), 0.0), ((1, -3.0), 4.0)):
            event = toeplitz.CorrelatedGaussian(coefficients, noise).event_of_run(cyclic)
            self.assertEqual(event, dp_accounting.NonPrivateDpEvent())

    @parameterized.parameters(sampling.Poisson, sampling.Shuffled, sampling.RandomAllocation)
    def test_schemes_without_a_fixed_separation_are_refused(self, kind):
        with self.assertRaisesRegex(ValueError, "`sampling` must be 'cyclic' for noise that is correlated"):
            toeplitz.CorrelatedGaussian((1, -0.9), 4.0).event_of_run(kind(1000, 4).participation(1000))

    def test_secret_batches_are_refused_even_if_their_separation_is_fixed(self):
        secret = sampling.Participation(times=4, separation=250, length=1000, probability=0.5)
        with self.assertRaisesRegex(ValueError, "`sampling` must be 'cyclic'.*probability=0.5"):
            toeplitz.CorrelatedGaussian((1, -0.9), 4.0).event_of_run(secret)

    def test_one_shuffled_epoch_is_a_single_participation(self):
        priced = toeplitz.CorrelatedGaussian((1, -0.9), 4.0)
        once = priced.event_of_run(sampling.Shuffled(1000, 4).participation(250))
        self.assertEqual(once, priced.event_of_run(sampling.Cyclic(1000, 4).participation(250)))


if __name__ == "__main__":
    absltest.main()
