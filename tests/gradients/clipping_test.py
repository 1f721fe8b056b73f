import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd.gradients import clipping


class FlatTest(parameterized.TestCase):
    def test_factors(self):
        norms = tf.constant([0.0, 0.5, 2.0, 4.0, 1e30])
        np.testing.assert_allclose(clipping.flat(2.0)(norms), [1, 1, 1, 0.5, 2e-30], rtol=1e-6)

    def test_infinite_bound_leaves_finite_gradients(self):
        np.testing.assert_array_equal(clipping.flat(float("inf"))(tf.constant([0.0, 1e30])), [1, 1])

    @parameterized.parameters(1.0, float("inf"))
    def test_what_is_not_finite_gets_nothing(self, bound):
        np.testing.assert_array_equal(clipping.flat(bound)(tf.constant([np.inf, np.nan])), [0, 0])

    @parameterized.parameters(0.0, -1.0, float("nan"))
    def test_bad_bounds_are_refused(self, bound):
        with self.assertRaisesRegex(ValueError, "`l2_norm_clip` must be positive.*Received: l2_norm_clip="):
            clipping.flat(bound)


if __name__ == "__main__":
    absltest.main()
