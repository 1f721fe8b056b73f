import math

import dp_accounting
import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from scipy import stats

from noisy_sgd import keys
from noisy_sgd.mechanisms import adaptive_clipping, mechanism, tf_privacy

KEY = tf.constant(keys.derive(11, "noise"), tf.int64)


def query(l2_norm_clip=1.0, noise_multiplier=0.0, batch_size=4, **arguments):
    settings = adaptive_clipping.AdaptiveClipping(**{"count_stddev": 0.0, **arguments})
    return settings.make(l2_norm_clip, noise_multiplier, batch_size, KEY)


def sample_state(ours, sums, count):
    """tensorflow-privacy's sample state of records that are summed already."""
    return ours._SampleState(sums, count)


class NoiselessTest(parameterized.TestCase):
    def test_record_by_record_it_is_tensorflow_privacys(self):
        ours = query(l2_norm_clip=2.0, target_quantile=0.3)
        theirs = tf_privacy.quantile_adaptive_clip_sum_query.QuantileAdaptiveClipSumQuery(2.0, 0.0, 0.3, 0.2, 0.0, 4)
        self.assertIsInstance(ours, type(theirs))
        rng = np.random.default_rng(0)
        states = [ours.initial_global_state(), theirs.initial_global_state()]
        for _ in range(5):
            records = [[tf.constant(2 * rng.normal(size=3), tf.float32)] for _ in range(4)]
            sums = []
            for index, each in enumerate((ours, theirs)):
                sample, parameters = each.initial_sample_state(records[0]), each.derive_sample_params(states[index])
                for record in records:
                    sample = each.accumulate_record(parameters, sample, record)
                result, states[index], _ = each.get_noised_result(sample, states[index])
                sums.append(result[0])
            np.testing.assert_allclose(*sums, rtol=1e-6)
            clips = states[0].l2_norm_clip, theirs.derive_metrics(states[1])["clip"]
            np.testing.assert_allclose(*clips, rtol=1e-6)
        self.assertEqual(states[0].step, 5)

    def test_the_fraction_is_of_the_nominal_size(self):
        ours = query(batch_size=10, target_quantile=0.5)
        sample = sample_state(ours, [tf.zeros([2])], tf.constant(1.5 - 0.5))  # 3 of 5 examples within the bound
        _, state, _ = ours.get_noised_result(sample, ours.initial_global_state())
        self.assertAlmostEqual(float(state.l2_norm_clip), math.exp(-0.2 * (0.5 + 1.0 / 10 - 0.5)), places=6)

    def test_the_bound_stays_positive_and_finite(self):
        ours = query(batch_size=1, learning_rate=5.0)
        for count in (0.5, -0.5):
            state = ours.initial_state()
            for _ in range(60):
                state = ours.next_state(tf.constant(count), state)
            self.assertBetween(float(state["l2_norm_clip"]), 1e-13, 1e13)


class LearnedBoundTest(parameterized.TestCase):
    @parameterized.parameters(0.1, 0.5, 0.9)
    def test_it_converges_to_the_true_quantile(self, quantile):
        batch_size = 1000
        settings = adaptive_clipping.AdaptiveClipping(target_quantile=quantile, count_stddev=10.0)
        ours = settings.make(30.0, 1.0, batch_size, KEY)
        norms = np.random.default_rng(1).lognormal(size=(300, batch_size)).astype(np.float32)

        @tf.function
        def step(norms, clip, index):
            count = tf.reduce_sum(tf.where(norms <= clip, 0.5, -0.5))
            state = adaptive_clipping.GlobalState(l2_norm_clip=clip, step=index)
            return ours.get_noised_result(sample_state(ours, [tf.zeros([1])], count), state)[1].l2_norm_clip

        clip, history = tf.constant(30.0), []
        for index, row in enumerate(norms):
            clip = step(row, clip, tf.constant(index))
            history.append(float(clip))
        # Sampling and noise leave the mean of the last 100 steps a standard deviation of about 1 %.
        self.assertAlmostEqual(np.mean(np.log(history[-100:])), stats.norm.ppf(quantile), delta=0.04)


class NoiseTest(parameterized.TestCase):
    def test_the_sums_noise_follows_the_current_bound(self):
        ours = query(noise_multiplier=1.5, count_stddev=1.0)
        state = ours.initial_global_state()._replace(l2_norm_clip=tf.constant(3.0), step=7)
        sample = sample_state(ours, [tf.zeros([100_000]), tf.zeros([10, 10_000], tf.float64)], tf.constant(0.0))
        noised, _, _ = ours.get_noised_result(sample, state)
        noise = np.concatenate([part.numpy().ravel() for part in noised]) / 4.5  # 200,000 draws
        self.assertAlmostEqual(noise.std(), 1.0, delta=0.01)
        self.assertGreater(stats.kstest(noise, stats.norm.cdf).pvalue, 1e-4)
        for wrong_scale in (2 / 3, 3 / 2):
            self.assertLess(stats.kstest(noise, stats.norm(scale=wrong_scale).cdf).pvalue, 1e-10)

    def test_the_counts_noise_is_its_own_and_independent(self):
        ours = query(noise_multiplier=1.5, count_stddev=4.0)
        state = ours.initial_state()

        @tf.function
        def draws(steps):
            def one(step):
                sums, count = ours.add_noise([tf.zeros([2])], tf.constant(0.0), state, mechanism.Draw(step))
                return tf.stack([*tf.unstack(sums[0]), count])

            return tf.map_fn(one, steps, fn_output_signature=tf.float32)

        sums, others, counts = draws(tf.range(5000)).numpy().T
        self.assertGreater(stats.kstest(counts / 4.0, stats.norm.cdf).pvalue, 1e-4)
        for wrong_scale in (2 / 3, 3 / 2):
            self.assertLess(stats.kstest(counts / 4.0, stats.norm(scale=wrong_scale).cdf).pvalue, 1e-10)
        for one, other in ((counts, sums), (counts, others), (counts[1:], counts[:-1]), (counts[1:], sums[:-1])):
            self.assertLess(abs(stats.spearmanr(one, other)[0]), 5 / np.sqrt(5000))

    def test_one_draw_for_both(self):
        ours = query(noise_multiplier=1.5, count_stddev=4.0)
        sums, count = [tf.zeros([3]), tf.zeros([2, 2])], tf.constant(0.0)
        traced = tf.function(lambda: ours.add_noise(sums, count, ours.initial_state(), mechanism.Draw()))
        operations = [op.type for op in traced.get_concrete_function().graph.get_operations()]
        self.assertEqual(operations.count("StatelessCase"), 1)

    def test_shares_sum_to_one_noise(self):
        ours = query(noise_multiplier=1.5, count_stddev=4.0)
        state = ours.initial_state()
        whole, share = (
            ours.add_noise([tf.zeros([50])], tf.constant(0.0), state, mechanism.Draw(share=share))
            for share in (1.0, 0.25)
        )
        np.testing.assert_allclose(4 * share[0][0], whole[0][0], rtol=1e-6)
        np.testing.assert_allclose(4 * share[1], whole[1], rtol=1e-6)


class EventTest(parameterized.TestCase):
    def test_it_is_the_pair_of_gaussians(self):
        ours = query(noise_multiplier=1.5, count_stddev=4.0)
        expected = dp_accounting.ComposedDpEvent(
            [dp_accounting.GaussianDpEvent(1.5), dp_accounting.GaussianDpEvent(8.0)]
        )
        self.assertEqual(ours.event, expected)
        sample = sample_state(ours, [tf.zeros([1])], tf.constant(0.0))
        self.assertEqual(ours.get_noised_result(sample, ours.initial_global_state())[2], expected)
        theirs = tf_privacy.quantile_adaptive_clip_sum_query.QuantileAdaptiveClipSumQuery(1.0, 1.5, 0.5, 0.2, 4.0, 4)
        state = theirs.initial_global_state()
        event = theirs.get_noised_result(theirs.initial_sample_state([tf.zeros([1])]), state)[2]
        found = [float(each.noise_multiplier) for each in event.events]
        np.testing.assert_allclose(found, [each.noise_multiplier for each in expected.events], rtol=1e-6)

    def test_the_count_has_by_default_noise_of_a_twentieth_of_the_batch(self):
        ours = adaptive_clipping.AdaptiveClipping().make(1.0, 1.5, 400, KEY)
        self.assertEqual(ours.event.events[1], dp_accounting.GaussianDpEvent(40.0))

    @parameterized.parameters((0.0, 0.0), (0.0, 1.0))
    def test_without_noise_nothing_is_private(self, noise_multiplier, count_stddev):
        ours = query(noise_multiplier=noise_multiplier, count_stddev=count_stddev)
        self.assertEqual(ours.event, dp_accounting.NonPrivateDpEvent())


class ArgumentsTest(parameterized.TestCase):
    def test_config_round_trip(self):
        settings = adaptive_clipping.AdaptiveClipping(target_quantile=0.7, learning_rate=0.1, count_stddev=3.0)
        config = keras.saving.serialize_keras_object(settings)
        self.assertEqual(keras.saving.deserialize_keras_object(config), settings)

    @parameterized.parameters(
        ({"target_quantile": 1.1}, r"`target_quantile` must be in \[0, 1\]. Received: target_quantile=1.1"),
        ({"target_quantile": float("nan")}, "Received: target_quantile=nan"),
        ({"target_quantile": "a"}, r"`target_quantile` must be in \[0, 1\]. Received: target_quantile='a'"),
        ({"target_quantile": None}, "Received: target_quantile=None"),
        ({"learning_rate": True}, "`learning_rate` must be a finite number at least 0. Received: learning_rate=True"),
        ({"count_stddev": "a"}, "`count_stddev` must be a finite number at least 0.*Received: count_stddev='a'"),
        ({"learning_rate": -0.2}, "`learning_rate` must be a finite number at least 0. Received: learning_rate=-0.2"),
        ({"count_stddev": -1.0}, "`count_stddev` must be a finite number at least 0.*Received: count_stddev=-1.0"),
    )
    def test_bad_arguments_are_refused(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            adaptive_clipping.AdaptiveClipping(**arguments)

    @parameterized.parameters(float("inf"), 1e-13)
    def test_bounds_out_of_range_are_refused(self, bound):
        with self.assertRaisesRegex(ValueError, "`l2_norm_clip` must be in .*Received: l2_norm_clip="):
            query(l2_norm_clip=bound)

    def test_noise_on_the_sum_alone_is_refused(self):
        with self.assertRaisesRegex(ValueError, "`count_stddev` must be positive.*Received: count_stddev=0.0"):
            query(noise_multiplier=1.0)


class CountUnclippedTest(absltest.TestCase):
    def test_by_hand(self):
        norms = tf.constant([0.5, 2.0, 2.1, np.inf, np.nan, 0.0, 0.0])
        mask = np.arange(7) < 6  # the last is padding
        self.assertEqual(float(adaptive_clipping.count_unclipped(norms, 2.0, mask)), 3 * 0.5 - 3 * 0.5)
        self.assertEqual(float(adaptive_clipping.count_unclipped(norms, tf.constant(2.0))), 4 * 0.5 - 3 * 0.5)

    def test_one_example_moves_it_by_a_half(self):
        norms = tf.constant([0.5, 2.0, 2.1, np.nan])
        everyone = adaptive_clipping.count_unclipped(norms, 1.0)
        for left_out in range(4):
            moved = adaptive_clipping.count_unclipped(norms, 1.0, np.arange(4) != left_out) - everyone
            self.assertEqual(abs(float(moved)), 0.5)


if __name__ == "__main__":
    absltest.main()
