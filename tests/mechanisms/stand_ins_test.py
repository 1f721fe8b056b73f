"""The stand-ins against NumPy, and against tensorflow-privacy itself where the Python can have it.

`tf_privacy` is tensorflow-privacy below Python 3.12: there every comparison with it is one with the originals.
"""

import importlib
import math
import sys
from unittest import mock

import dp_accounting
import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from scipy import stats

from noisy_sgd import keys
from noisy_sgd.mechanisms import stand_ins, tf_privacy

KEY = tf.constant(keys.derive(13, "noise"), tf.int64)
BATCH_SIZE = 5
PACKAGE = "noisy_sgd.mechanisms"


def mechanisms_over(bases):
    """The modules `gaussian` and `adaptive_clipping`, imported anew with `bases` for `tf_privacy`."""
    importlib.import_module(f"{PACKAGE}.adaptive_clipping")
    package = sys.modules[PACKAGE]
    others = {name: module for name, module in sys.modules.items() if not name.startswith(f"{PACKAGE}.")}
    registered = dict(keras.saving.get_custom_objects())
    with (
        mock.patch.dict(sys.modules, {**others, f"{PACKAGE}.tf_privacy": bases}, clear=True),
        mock.patch.multiple(
            package, tf_privacy=bases, gaussian=package.gaussian, adaptive_clipping=package.adaptive_clipping
        ),
    ):
        found = [importlib.import_module(f"{PACKAGE}.{name}") for name in ("gaussian", "adaptive_clipping")]
    keras.saving.get_custom_objects().update(registered)
    return found


def gaussian_sum(bases):
    return bases.gaussian_query.GaussianSumQuery(1.5, 2.0)


def adaptive_clip(bases):
    return bases.quantile_adaptive_clip_sum_query.QuantileAdaptiveClipSumQuery(1.5, 1.2, 0.3, 0.4, 0.8, BATCH_SIZE)


def our_gaussian_sum(bases):
    return mechanisms_over(bases)[0].GaussianSumQuery(1.5, 2.0, KEY)


def our_unclipped_sum(bases):
    return mechanisms_over(bases)[0].UnclippedGaussianSumQuery(2.0, KEY)


def our_adaptive_clip(bases):
    settings = mechanisms_over(bases)[1].AdaptiveClipping(target_quantile=0.3, learning_rate=0.4, count_stddev=0.8)
    return settings.make(1.5, 1.2, BATCH_SIZE, KEY)


QUERIES = (gaussian_sum, adaptive_clip, our_gaussian_sum, our_unclipped_sum, our_adaptive_clip)


def records(step):
    """Five records of two tensors each, of norms below and above 1.5."""
    rng = np.random.default_rng(step)
    shapes = {"a": (3,), "b": (2, 1)}
    return [
        {name: tf.constant(scale * rng.normal(size=shape), tf.float32) for name, shape in shapes.items()}
        for scale in (0.2, 0.5, 0.8, 2.0, 5.0)
    ]


def plain(value):
    """A state as nested dictionaries of lists, so that fields compare by name and values by their bits."""
    if hasattr(value, "_asdict"):
        return {name: plain(part) for name, part in value._asdict().items()}
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, dp_accounting.DpEvent):
        parts = [plain(part) for part in getattr(value, "events", ())]
        return [type(value).__name__, parts or plain(getattr(value, "noise_multiplier", 0))]
    array = np.asarray(value)
    return [array.dtype.name, array.tolist()]


def history(query):
    """All that three samples show at the interface, the second one merged of two parts."""
    tf.random.set_seed(3)
    state, seen = query.initial_global_state(), []
    for step in range(3):
        params, sample = query.derive_sample_params(state), query.initial_sample_state(records(step)[0])
        other = query.initial_sample_state(
            tf.nest.map_structure(lambda part: tf.TensorSpec(part.shape, part.dtype), records(step)[0])
        )
        seen += [plain(state), plain(params), plain(sample), plain(other)]
        for record in records(step):
            seen.append(plain(query.preprocess_record(params, record)))
            if step == 1:
                other = query.accumulate_record(params, other, record)
            else:
                sample = query.accumulate_preprocessed_record(sample, query.preprocess_record(params, record))
        sample = query.merge_sample_states(sample, other)
        result, state, event = query.get_noised_result(sample, state)
        seen += [plain(sample), plain(result), plain(event)]
    return [*seen, plain(state)]


class InterchangeableTest(parameterized.TestCase):
    @parameterized.parameters(*QUERIES)
    def test_same_states_results_events_and_draws(self, query):
        for found, expected in zip(history(query(stand_ins)), history(query(tf_privacy)), strict=True):
            self.assertEqual(found, expected)

    def test_same_metrics(self):
        found, expected = (adaptive_clip(bases) for bases in (stand_ins, tf_privacy))
        metrics = [each.derive_metrics(each.initial_global_state()) for each in (found, expected)]
        self.assertEqual(plain(metrics[0]), plain(metrics[1]))
        self.assertEqual(gaussian_sum(stand_ins).derive_metrics(()), gaussian_sum(tf_privacy).derive_metrics(()))

    def test_same_abstract_methods(self):
        names = "DPQuery", "SumAggregationDPQuery"
        found, expected = ([getattr(b.dp_query, name) for name in names] for b in (stand_ins, tf_privacy))
        for one, other in zip(found, expected, strict=True):
            self.assertEqual(one.__abstractmethods__, other.__abstractmethods__)

    @parameterized.parameters((1.1, 0.2), (-0.1, 0.2), (0.5, -0.2))
    def test_both_refuse(self, quantile, learning_rate):
        for bases in (stand_ins, tf_privacy):
            with self.assertRaises(ValueError):
                bases.quantile_adaptive_clip_sum_query.QuantileAdaptiveClipSumQuery(
                    1.0, 1.0, quantile, learning_rate, 1.0, BATCH_SIZE
                )

    def test_the_mechanisms_are_tensorflow_privacys_where_it_can_be_installed(self):
        from noisy_sgd.mechanisms import adaptive_clipping, gaussian

        origin = PACKAGE if sys.version_info >= (3, 12) else "tensorflow_privacy"
        for query in (gaussian.GaussianSumQuery, gaussian.UnclippedGaussianSumQuery):
            self.assertTrue(issubclass(query, tf_privacy.dp_query.DPQuery))
        self.assertTrue(issubclass(gaussian.GaussianSumQuery, tf_privacy.gaussian_query.GaussianSumQuery))
        adaptive = tf_privacy.quantile_adaptive_clip_sum_query.QuantileAdaptiveClipSumQuery
        self.assertTrue(issubclass(adaptive_clipping.QuantileAdaptiveClipSumQuery, adaptive))
        self.assertStartsWith(tf_privacy.dp_query.DPQuery.__module__, origin)

    def test_the_helper_builds_over_what_it_is_given_and_leaves_no_trace(self):
        modules = dict(sys.modules)
        gaussian, adaptive_clipping = mechanisms_over(stand_ins)
        self.assertTrue(issubclass(gaussian.UnclippedGaussianSumQuery, stand_ins.DPQuery))
        self.assertTrue(
            issubclass(adaptive_clipping.QuantileAdaptiveClipSumQuery, stand_ins.QuantileAdaptiveClipSumQuery)
        )
        self.assertIs(sys.modules[f"{PACKAGE}.tf_privacy"], tf_privacy)
        self.assertEqual(modules, dict(sys.modules))
        registered = keras.saving.get_custom_objects()["noisy_sgd>AdaptiveClipping"]
        self.assertIs(registered, sys.modules[f"{PACKAGE}.adaptive_clipping"].AdaptiveClipping)


class StandInsTest(parameterized.TestCase):
    def test_records_are_clipped_and_summed(self):
        query = stand_ins.GaussianSumQuery(1.5, 0.0)
        state = query.initial_global_state()
        sample, expected = query.initial_sample_state(records(0)[0]), 0.0
        for record in records(0):
            sample = query.accumulate_record(query.derive_sample_params(state), sample, record)
            flat = np.concatenate([np.ravel(record["a"]), np.ravel(record["b"])])
            expected = expected + flat * min(1.0, 1.5 / np.linalg.norm(flat))
        result, _, _ = query.get_noised_result(sample, state)
        np.testing.assert_allclose(np.concatenate([np.ravel(result["a"]), np.ravel(result["b"])]), expected, rtol=1e-5)

    def test_a_part_that_is_none_adds_nothing(self):
        query = stand_ins.GaussianSumQuery(1.5, 0.0)
        self.assertEqual(query.accumulate_preprocessed_record([tf.constant(2.0)], [None])[0], 2.0)

    def test_the_clip_norm_follows_the_quantile(self):
        query = stand_ins.QuantileAdaptiveClipSumQuery(1.5, 0.0, 0.3, 0.4, 0.0, BATCH_SIZE)
        state, clip = query.initial_global_state(), 1.5
        for step in range(4):
            params, sample = query.derive_sample_params(state), query.initial_sample_state(records(step)[0])
            norms = []
            for record in records(step):
                sample = query.accumulate_record(params, sample, record)
                norms.append(math.hypot(*np.ravel(record["a"]), *np.ravel(record["b"])))
            _, state, _ = query.get_noised_result(sample, state)
            clip *= math.exp(-0.4 * (np.mean(np.array(norms) <= clip) - 0.3))
            self.assertAlmostEqual(float(query.derive_metrics(state)["clip"]), clip, places=5)

    def test_the_noise_is_normal_and_of_the_stated_size(self):
        query = stand_ins.GaussianSumQuery(1.5, 3.0)
        tf.random.set_seed(0)
        noised, _, event = query.get_noised_result(tf.zeros([20_000]), query.initial_global_state())
        self.assertEqual(float(event.noise_multiplier), 2.0)
        self.assertGreater(stats.kstest(noised.numpy() / 3, stats.norm.cdf).pvalue, 1e-4)
        for wrong_scale in (2 / 3, 3 / 2):
            self.assertLess(stats.kstest(noised.numpy() / 3, stats.norm(scale=wrong_scale).cdf).pvalue, 1e-10)

    def test_the_events_are_those_of_the_sum_and_of_the_count(self):
        query = stand_ins.QuantileAdaptiveClipSumQuery(1.5, 1.2, 0.3, 0.4, 0.8, BATCH_SIZE)
        sample = query.initial_sample_state(tf.zeros([2]))
        event = query.get_noised_result(sample, query.initial_global_state())[2]
        np.testing.assert_allclose([float(part.noise_multiplier) for part in event.events], [1.2, 1.6], rtol=1e-6)


if __name__ == "__main__":
    absltest.main()
