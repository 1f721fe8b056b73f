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

    @parameterized.parameters(
        0.0, -1.0, float("nan"), None, "1", True, (np.array([1.0, 2.0]),), (tf.constant(-1.0),), (tf.constant(np.nan),),
        (tf.constant([1.0]),),
    )  # fmt: skip
    def test_bad_bounds_are_refused(self, bound):
        with self.assertRaisesRegex(ValueError, "`l2_norm_clip` must be positive.*Received: l2_norm_clip="):
            clipping.flat(bound)


class AutomaticTest(absltest.TestCase):
    def test_by_hand(self):
        factors = clipping.automatic(2.0)(tf.constant([0.0, 0.09, 0.99, 1e30]))
        np.testing.assert_allclose(factors, [200.0, 20.0, 2.0, 2e-30], rtol=1e-6)

    def test_what_is_not_finite_gets_nothing(self):
        np.testing.assert_array_equal(clipping.automatic(1.0)(tf.constant([np.inf, np.nan])), [0, 0])


class NormalizedTest(absltest.TestCase):
    def test_every_gradient_gets_the_length_of_the_bound(self):
        norms = tf.constant([1e-11, 0.5, 4.0, 1e30])
        np.testing.assert_allclose(clipping.normalized(2.0)(norms) * norms, [2.0] * 4, rtol=1e-6)

    def test_zero_too_small_and_not_finite_get_nothing(self):
        factors = clipping.normalized(1.0)(tf.constant([0.0, 1e-13, np.inf, np.nan]))
        np.testing.assert_array_equal(factors, [0, 0, 0, 0])


class PerLayerTest(parameterized.TestCase):
    def test_each_layer_has_its_own_bound(self):
        norms = tf.constant([[3.0, 0.0], [0.3, 8.0], [np.nan, 1.0], [1.0, np.inf]])
        factors = clipping.per_layer(1.0, [0.6, 0.8])(norms)
        np.testing.assert_allclose(factors, [[0.2, 1.0], [1.0, 0.1], [0, 0], [0, 0]], rtol=1e-6)

    def test_by_default_the_bounds_are_equal(self):
        np.testing.assert_allclose(clipping.per_layer(1.0)(tf.fill([1, 4], 2.0)), [[0.25] * 4], rtol=1e-6)

    @parameterized.parameters(([1.0, 0.0],), (["flat"],), ([-0.6, 0.8],), ([None],), ([True],))
    def test_bounds_that_are_not_positive_are_refused(self, bounds):
        with self.assertRaisesRegex(ValueError, "root of the sum of squares is l2_norm_clip=1.0. Received: clipping="):
            clipping.clip_function(bounds, 1.0)

    @parameterized.parameters(([0.6, 0.9], "1.081665"), ([], "0"), (np.array([0.6]), "0.6"))
    def test_bounds_that_do_not_combine_to_the_whole_are_refused(self, bounds, root):
        with self.assertRaisesRegex(ValueError, f"is l2_norm_clip=1.0, and theirs is {root}. Received: clipping="):
            clipping.clip_function(bounds, 1.0)

    @parameterized.parameters((np.array([0.6, 0.8]),), ([np.float32(0.6), np.float64(0.8)],), ((0.6, 0.8),))
    def test_numbers_of_numpy_are_bounds(self, bounds):
        factors = clipping.clip_function(bounds, 1.0)(tf.constant([[3.0, 0.0]]))
        np.testing.assert_allclose(factors, [[0.2, 1.0]], rtol=1e-6)

    def test_another_number_of_layers_is_refused(self):
        with self.assertRaisesRegex(ValueError, "one bound for each of the model's 3 layers.*Received: clipping="):
            clipping.per_layer(1.0, [0.6, 0.8])(tf.ones([2, 3]))


class ClipFunctionTest(parameterized.TestCase):
    @parameterized.parameters(*clipping.CLIPPINGS)
    def test_by_name_it_carries_its_sensitivity(self, name):
        self.assertEqual(clipping.clip_function(name, 0.7).l2_sensitivity, 0.7)

    @parameterized.parameters("automatic", "normalized", "per_layer")
    def test_only_flat_takes_infinity(self, name):
        with self.assertRaisesRegex(ValueError, f"finite with clipping='{name}'.*Received: l2_norm_clip=inf"):
            clipping.clip_function(name, float("inf"))

    @parameterized.parameters("soft", None, 3)
    def test_other_names_are_refused(self, name):
        with self.assertRaisesRegex(ValueError, f"`clipping` must be one of .*Received: clipping={name!r}"):
            clipping.clip_function(name, 1.0)


class TensorBoundTest(absltest.TestCase):
    def test_a_scalar_tensor_bounds_like_its_value(self):
        norms = tf.constant([0.0, 0.5, 4.0, np.inf])
        by_tensor = clipping.flat(tf.constant(2.0))
        np.testing.assert_array_equal(by_tensor(norms), clipping.flat(2.0)(norms))
        self.assertEqual(float(by_tensor.l2_sensitivity), 2.0)

    def test_under_xla_a_bound_that_is_not_positive_clips_all_to_zero(self):
        norms = tf.constant([0.5, 4.0])

        @tf.function(jit_compile=True, autograph=False)
        def clipped(bound):
            return clipping.flat(bound)(norms) * norms

        np.testing.assert_array_equal(clipped(tf.constant(2.0)), [0.5, 2.0])
        np.testing.assert_array_equal(clipped(tf.constant(0.25)), [0.25, 0.25])
        for wrong in (-1.0, 0.0, np.nan):
            np.testing.assert_array_equal(clipped(tf.constant(wrong)), [0.0, 0.0])

    def test_a_bound_of_a_graph_is_for_flat_only(self):
        @tf.function(autograph=False)
        def automatic(bound):
            return clipping.automatic(bound)(tf.ones([2]))

        with self.assertRaisesRegex(ValueError, "`l2_norm_clip` must be a number with clipping='automatic'"):
            automatic(tf.constant(1.0))

    def test_bounds_are_exact_in_float64(self):
        np.testing.assert_allclose(clipping.flat(0.3)(tf.constant([1.0], tf.float64)), [0.3], rtol=1e-15)


class NormsAndFactorsTest(parameterized.TestCase):
    SQUARES = ([9.0, 0.09, 1.0], [16.0, 0.16, 0.0], [0.0, 0.0, 3.0])

    @parameterized.parameters(None, ([True, True, True],), ([True, False, True],))
    def test_one_factor_for_all_parts(self, present):
        squares = [tf.constant(part) for part in self.SQUARES]
        mask = None if present is None else tf.constant(present)
        norms, factors = clipping.norms_and_factors(clipping.flat(1.0), squares, [0, 1, 1], 2, mask)
        np.testing.assert_allclose(norms, [5.0, 0.5, 2.0], rtol=1e-6)
        self.assertLen(factors, 3)
        for factor in factors:
            np.testing.assert_allclose(factor, [0.2, 1.0 if present is None or present[1] else 0.0, 0.5], rtol=1e-6)

    @parameterized.parameters(None, ([True, False, True],))
    def test_a_factor_for_each_layer(self, present):
        squares = [tf.constant(part) for part in self.SQUARES]
        clip, mask = clipping.per_layer(1.0, [0.6, 0.8]), None if present is None else tf.constant(present)
        norms, factors = clipping.norms_and_factors(clip, squares, [0, 1, 1], 2, mask)
        np.testing.assert_allclose(norms, [5.0, 0.5, 2.0], rtol=1e-6)
        shown = 1.0 if present is None else 0.0
        expected = [[0.2, shown, 0.6], [0.2, shown, 0.8 / 3**0.5], [0.2, shown, 0.8 / 3**0.5]]
        np.testing.assert_allclose(tf.stack(factors), expected, rtol=1e-6)


if __name__ == "__main__":
    absltest.main()
