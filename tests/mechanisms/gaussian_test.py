import dp_accounting
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from scipy import stats

from noisy_sgd import keys
from noisy_sgd.mechanisms import gaussian, mechanism, tf_privacy

KEY = tf.constant(keys.derive(11, "noise"), tf.int64)


def draw(key=KEY, step=0, size=300_000):
    return gaussian.flat_normal([(size,)], tf.float32, key, step)[0].numpy()


class FlatNormalTest(parameterized.TestCase):
    def test_it_is_a_standard_normal(self):
        sample = draw()  # 300,000 draws: one percent of the scale is 7.7 standard errors
        self.assertAlmostEqual(sample.std(), 1.0, delta=0.01)
        self.assertGreater(stats.kstest(sample, stats.norm.cdf).pvalue, 1e-4)
        for wrong_scale in (2 / 3, 3 / 2):
            self.assertLess(stats.kstest(sample, stats.norm(scale=wrong_scale).cdf).pvalue, 1e-10)

    def test_steps_and_keys_are_independent(self):
        first = draw()
        other_key = tf.constant(keys.derive(12, "noise"), tf.int64)
        for second in (draw(step=1), draw(step=2**31), draw(key=other_key)):
            self.assertLess(abs(np.corrcoef(first, second)[0, 1]), 5 / np.sqrt(first.size))
        np.testing.assert_array_equal(first, draw())

    def test_tensors_of_one_draw_are_independent(self):
        first, second = gaussian.flat_normal([(100, 1000), (1000, 100)], tf.float64, KEY, 5)
        self.assertEqual(first.dtype, tf.float64)
        correlation = np.corrcoef(first.numpy().ravel(), second.numpy().ravel())[0, 1]
        self.assertLess(abs(correlation), 5 / np.sqrt(100_000))

    def test_one_draw_whatever_the_number_of_tensors(self):
        traced = tf.function(lambda step: gaussian.flat_normal([(3,), (2, 2), ()], tf.float32, KEY, step))
        operations = [op.type for op in traced.get_concrete_function(tf.constant(0)).graph.get_operations()]
        self.assertEqual([kind for kind in operations if kind == "StatelessCase"], ["StatelessCase"])

    @parameterized.product(size=[7, 2**16 + 1, 300_000], dtype=[tf.float32, tf.float64], xla=[False, True])
    def test_its_numbers_are_those_of_the_native_kernel(self, size, dtype, xla):
        def native(step):
            return tf.random.stateless_normal([size], tf.stack([KEY[0], KEY[1] + step]), dtype=dtype, alg="philox")

        def ours(step):
            return gaussian.flat_normal([(size,)], dtype, KEY, step)[0]

        step = tf.constant(3, tf.int64)
        expected, found = (tf.function(function, jit_compile=xla)(step) for function in (native, ours))
        # XLA has a stream of its own, and keeps it.
        tolerance = 0 if xla else {tf.float32: 4e-6, tf.float64: 1e-14}[dtype]
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
        if not xla:
            np.testing.assert_array_equal(found, ours(step))

    def test_the_pairs_of_box_and_muller(self):
        uniform = tf.constant([[0.0, 0.0], [0.0, 0.25], [0.5, 0.5], [1 - 2.0**-23, 0.125]])
        radius = np.sqrt(-2 * np.log([1e-7, 1e-7, 0.5, 1 - 2.0**-23]))
        half = radius[3] * np.sqrt(0.5)
        expected = [0, radius[0], radius[1], 0, 0, -radius[2], half, half]
        np.testing.assert_allclose(gaussian.box_muller(uniform), expected, atol=1e-6)
        in_place = gaussian.box_muller_in_place(tf.reshape(uniform, [2, 4]))
        np.testing.assert_allclose(tf.reshape(in_place, [-1]), expected, atol=1e-6)

    def test_a_cpu_makes_the_pairs_by_vectorized_operations(self):
        @tf.function
        def ours(step):
            return gaussian.flat_normal([(1000,)], tf.float32, KEY, step)[0]

        graph = ours.get_concrete_function(tf.constant(0)).graph
        (case,) = [op for op in graph.get_operations() if op.type == "StatelessCase"]
        (device,) = [op for op in graph.get_operations() if op.type == "DeviceIndex"]
        branch = case.get_attr("branches")[device.get_attr("device_names").index(b"CPU")].name
        (made,) = [one for one in graph.as_graph_def().library.function if one.signature.name == branch]
        self.assertIn("StatelessRandomUniformV2", {node.op for node in made.node_def})

    def test_a_program_of_xla_has_no_array_of_pairs(self):
        def draw(step):
            return gaussian.flat_normal([(1000, 300)], tf.float32, KEY, step)

        compiled = tf.function(draw, jit_compile=True, autograph=False)
        program = compiled.experimental_get_compiler_ir(tf.constant(3, tf.int64))(stage="stablehlo")
        # A TPU's memory has rows of 128 numbers.
        self.assertRegex(program, r"-> .*tensor<\d+x128xui32>")
        self.assertNotRegex(program, r"tensor<\d+x[12]x(ui|f)\d+>")


class QueryTest(parameterized.TestCase):
    def test_clipped_query_follows_tensorflow_privacy(self):
        query = gaussian.GaussianSumQuery(l2_norm_clip=1.0, stddev=0.0, key=KEY)
        self.assertIsInstance(query, tf_privacy.gaussian_query.GaussianSumQuery)
        state = query.initial_global_state()
        sample = query.initial_sample_state([tf.zeros([2])])
        for record in ([tf.constant([3.0, 4.0])], [tf.constant([0.3, 0.4])]):
            sample = query.accumulate_record(query.derive_sample_params(state), sample, record)
        result, state, _ = query.get_noised_result(sample, state)
        np.testing.assert_allclose(result[0], [0.6 + 0.3, 0.8 + 0.4], rtol=1e-6)
        self.assertEqual(state.step, 1)

    def test_arrays_and_tensors_get_the_same_noise(self):
        query = gaussian.GaussianSumQuery(1.0, 2.5, KEY)
        array = np.arange(3, dtype=np.float32)
        results = [query.get_noised_result([value], mechanism.Draw(3))[0][0] for value in (array, tf.constant(array))]
        np.testing.assert_array_equal(*results)

    def test_large_noise_waits_for_the_sums_and_small_noise_does_not(self):
        query = gaussian.GaussianSumQuery(1.0, 2.5, KEY)

        @tf.function
        def noised(value):
            return query.get_noised_result([tf.sin(value)], mechanism.Draw(3))[0][0]

        for size, waits in ((2**10, False), (2**23, True)):
            graph = noised.get_concrete_function(tf.TensorSpec([size])).graph
            (drawn,) = [op for op in graph.get_operations() if op.type == "StatelessCase"]
            reached, pending = set(), [drawn]
            while pending:
                op = pending.pop()
                if op.name not in reached:
                    reached.add(op.name)
                    pending.extend([tensor.op for tensor in op.inputs] + list(op.control_inputs))
            self.assertEqual("Sin" in reached, waits)

    def test_the_event_is_what_was_added(self):
        query = gaussian.GaussianSumQuery(l2_norm_clip=2.0, stddev=3.0, key=KEY)
        zeros = [tf.zeros([200_000]), tf.zeros([100, 1000])]
        noised, _, event = query.get_noised_result(zeros, query.initial_global_state())
        self.assertEqual(event, dp_accounting.GaussianDpEvent(1.5))
        for noise in noised:
            self.assertAlmostEqual(noise.numpy().std() / 3.0, 1.0, delta=0.01)

    def test_shares_sum_to_one_noise(self):
        query = gaussian.GaussianSumQuery(l2_norm_clip=1.0, stddev=2.0, key=KEY)
        whole, _, _ = query.get_noised_result([tf.zeros([50])], mechanism.Draw(step=4))
        share, _, _ = query.get_noised_result([tf.zeros([50])], mechanism.Draw(step=4, share=0.25))
        np.testing.assert_allclose(4 * share[0], whole[0], rtol=1e-6)

    def test_no_noise_is_not_private(self):
        query = gaussian.GaussianSumQuery(l2_norm_clip=float("inf"), stddev=0.0, key=KEY)
        result, _, event = query.get_noised_result([tf.ones([3])], query.initial_global_state())
        np.testing.assert_array_equal(result[0], np.ones(3))
        self.assertEqual(event, dp_accounting.NonPrivateDpEvent())

    def test_unclipped_query_leaves_records_alone_and_says_so(self):
        query = gaussian.UnclippedGaussianSumQuery(0.0, KEY)
        record = query.preprocess_record(query.derive_sample_params(None), [tf.constant([30.0, 40.0])])
        result, _, event = query.get_noised_result(record, query.initial_global_state())
        np.testing.assert_array_equal(result[0], [30.0, 40.0])
        self.assertEqual(event, dp_accounting.NonPrivateDpEvent())


class GeometryTest(absltest.TestCase):
    def test_mirrored_noise_is_one_draw_with_opposite_signs(self):
        weights = tf.constant(np.random.default_rng(0).normal(size=(4, 2, 25_000)))
        noise = gaussian.draw("mirrored", [weights], KEY, mechanism.Draw())[0] / weights
        np.testing.assert_allclose(noise[:, 0], -noise[:, 1], rtol=1e-12)
        self.assertGreater(stats.kstest(noise[:, 0].numpy().ravel(), stats.norm.cdf).pvalue, 1e-4)

    def test_multiplicative_noise_is_a_draw_a_weight(self):
        weights = tf.constant(np.full((2, 2, 25_000), 3.0))
        noise = gaussian.draw("multiplicative", [weights], KEY, mechanism.Draw())[0].numpy() / 3.0
        self.assertGreater(stats.kstest(noise.ravel(), stats.norm.cdf).pvalue, 1e-4)
        self.assertLess(abs(np.corrcoef(noise[0, 0], noise[0, 1])[0, 1]), 5 / np.sqrt(25_000))


if __name__ == "__main__":
    absltest.main()
