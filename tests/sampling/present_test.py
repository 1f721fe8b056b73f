"""Batches without missing examples: the others keep their numbers and their steps, and the cost stays."""

import dp_accounting
import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import privacy, sampling


class PresentTest(parameterized.TestCase):
    @parameterized.parameters(sampling.Poisson, sampling.Shuffled)
    def test_only_the_missing_examples_go(self, kind):
        present = np.arange(20) % 3 > 0
        whole, less = kind(20, 8, seed=7), sampling.Present(kind(20, 8, seed=7), present)
        for step in range(10):
            drawn = whole.indices(step)
            np.testing.assert_array_equal(less.indices(step), [index for index in drawn if present[index]])
            self.assertEqual(less.size(step), len(less.indices(step)))

    @parameterized.parameters(sampling.Poisson, sampling.Shuffled)
    def test_it_costs_what_the_scheme_costs(self, kind):
        whole = kind(20, 8)
        less = sampling.Present(whole, np.zeros(20, bool))
        plans = [
            privacy.Plan(event=dp_accounting.GaussianDpEvent(3.0), sampling=scheme, num_steps=9, delta=1e-3)
            for scheme in (whole, less)
        ]
        self.assertEqual(plans[0].epsilon, plans[1].epsilon)
        self.assertEqual(plans[0].text, plans[1].text)
        self.assertEqual(less.counted_steps(2, 5), whole.counted_steps(2, 5))

    def test_refuses_another_number(self):
        with self.assertRaisesRegex(ValueError, "`present` must hold one value for each of the 20 examples"):
            sampling.Present(sampling.Poisson(20, 8, seed=7), np.ones(19, bool))


if __name__ == "__main__":
    absltest.main()
