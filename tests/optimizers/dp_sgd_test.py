import json
import pathlib
import zipfile

import dp_accounting
import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from scipy import stats

from noisy_sgd.gradients import clipped_sum, clipping
from noisy_sgd.mechanisms import adaptive_clipping, gaussian
from noisy_sgd.optimizers import sgd


def clipped(values, bound=1.0, statistic=None):
    values = [tf.constant(value, tf.float32) for value in values]
    return clipping.ClippedSum(values=values, norms=tf.zeros([0]), l2_sensitivity=bound, statistic=statistic)


def key_of(optimizer):
    return tuple(int(half) for half in optimizer._noise_key.variable.numpy())


class DPSGDTest(parameterized.TestCase):
    def test_one_step_by_hand(self):
        weight = keras.Variable(np.zeros(3))
        sgd.DPSGD(0.5, 1.0, 0.0, 4).apply(clipped([[1.0, -2.0, 4.0]]), [weight])
        np.testing.assert_allclose(weight.numpy(), [-0.125, 0.25, -0.5], rtol=1e-6)

    def test_noise_is_multiplier_times_clip_over_batch_size(self):
        size = 200_000
        weight = keras.Variable(np.zeros(size))
        optimizer = sgd.DPSGD(1.0, 3.0, 1.5, 10)
        optimizer.apply(clipped([np.zeros(size)], bound=3.0), [weight])
        self.assertAlmostEqual(optimizer.noise_std, 0.45)
        self.assertAlmostEqual(weight.numpy().std() / 0.45, 1.0, delta=0.01)
        self.assertGreater(stats.kstest(weight.numpy() / 0.45, stats.norm.cdf).pvalue, 1e-4)
        for wrong_scale in (2 / 3, 3 / 2):
            self.assertLess(stats.kstest(weight.numpy() / 0.45, stats.norm(scale=wrong_scale).cdf).pvalue, 1e-10)
        self.assertEqual(optimizer.event, dp_accounting.GaussianDpEvent(1.5))

    def test_at_one_seed_its_noise_is_noisy_sgds(self):
        ours, other = keras.Variable(np.zeros(5)), keras.Variable(np.zeros(5))
        dp = sgd.DPSGD(1.0, 2.0, 1.5, 10, seed=7)
        noisy = sgd.NoisySGD(1.0, 0.3, seed=7)
        for _ in range(3):
            dp.apply(clipped([np.ones(5)], bound=2.0), [ours])
            noisy.apply([tf.fill([5], 0.1)], [other])
        np.testing.assert_allclose(ours.numpy(), other.numpy(), rtol=1e-5)

    def test_bare_gradients_are_refused(self):
        weight = keras.Variable(np.zeros(3))
        for call in (
            lambda: sgd.DPSGD(0.5, 1.0, 1.0, 4).apply([tf.ones(3)], [weight]),
            lambda: sgd.DPSGD(0.5, 1.0, 1.0, 4).apply_gradients([(tf.ones(3), weight)]),
        ):
            with self.assertRaisesRegex(TypeError, "PrivateModel"):
                call()
        np.testing.assert_array_equal(weight.numpy(), np.zeros(3))

    def test_plain_fit_is_refused(self):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile(sgd.DPSGD(0.1, 1.0, 1.0, 4), "mse")
        with self.assertRaisesRegex(TypeError, "PrivateModel"):
            model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)

    def test_a_sum_clipped_to_another_bound_is_refused(self):
        with self.assertRaisesRegex(ValueError, "l2_norm_clip=1.0. Received: l2_sensitivity=2.0"):
            sgd.DPSGD(0.5, 1.0, 1.0, 4).apply(clipped([[1.0]], bound=2.0), [keras.Variable(np.zeros(1))])

    @parameterized.parameters("l2_norm_clip", "noise_multiplier", "batch_size", "noise_std", "clipping")
    def test_what_the_accountant_was_told_cannot_be_changed(self, name):
        with self.assertRaises(AttributeError):
            setattr(sgd.DPSGD(0.5, 1.0, 1.0, 4), name, 100)

    def test_every_private_run_has_its_own_key(self):
        keys = {key_of(sgd.DPSGD(0.5, 1.0, 1.0, 4)) for _ in range(10)}
        self.assertLen(keys, 10)
        optimizer = sgd.DPSGD(0.5, 1.0, 1.0, 4)
        self.assertNotEqual(key_of(optimizer), key_of(sgd.DPSGD.from_config(optimizer.get_config())))

    def test_a_secret_is_taken_as_bytes_and_not_shown(self):
        first, second = sgd.DPSGD(0.5, 1.0, 1.0, 4), sgd.DPSGD(0.5, 1.0, 1.0, 4, seed=7)
        for optimizer in (first, second):
            optimizer.rekey(b"0123456789abcdef")
            self.assertIsNone(optimizer.seed)
            self.assertNotIn("0123456789abcdef", json.dumps(keras.optimizers.serialize(optimizer)) + repr(optimizer))
        self.assertEqual(key_of(first), key_of(second))
        first.rekey(None)
        self.assertNotEqual(key_of(first), key_of(second))

    def test_the_key_is_in_no_config_and_no_saved_model(self):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        optimizer = sgd.DPSGD(0.1, 1.0, 1.0, 4)
        model.compile(optimizer, "mse")
        optimizer.apply(clipped([np.zeros((3, 2)), np.zeros(2)]), model.trainable_weights)
        self.assertIsNone(optimizer.get_config()["seed"])
        secrets = [half.to_bytes(8, "little", signed=True) for half in key_of(optimizer)]
        secrets += [str(half).encode() for half in key_of(optimizer)]
        folder = pathlib.Path(self.create_tempdir().full_path)
        model.save(folder / "model.keras")
        model.save_weights(folder / "model.weights.h5")
        model.export(folder / "exported", verbose=False)
        with zipfile.ZipFile(folder / "model.keras") as archive:
            archive.extractall(folder / "unpacked")
        files = [path for path in folder.rglob("*") if path.is_file()]
        self.assertGreater(len(files), 4)
        for path in files:
            for secret in secrets:
                self.assertNotIn(secret, path.read_bytes(), path)
        self.assertNotIn(str(key_of(optimizer)[0]), json.dumps(keras.optimizers.serialize(optimizer)) + repr(optimizer))

    def test_loaded_weights_bring_another_secret(self):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        optimizer = sgd.DPSGD(0.1, 1.0, 1.0, 4)
        model.compile(optimizer, "mse")
        optimizer.build(model.trainable_weights)
        before, path = key_of(optimizer), self.create_tempdir().full_path + "/model.weights.h5"
        model.save_weights(path)
        self.assertEqual(key_of(optimizer), before)
        model.load_weights(path)
        self.assertNotEqual(key_of(optimizer), before)

    def test_config_round_trip(self):
        optimizer = sgd.DPSGD(0.1, 2.0, 1.5, 8, seed=7, momentum=0.9, nesterov=True, weight_decay=0.01)
        rebuilt = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        self.assertIsInstance(rebuilt, sgd.DPSGD)
        self.assertEqual(rebuilt.get_config(), optimizer.get_config())
        self.assertEqual(key_of(rebuilt), key_of(optimizer))

    @parameterized.parameters("automatic", "normalized", "per_layer", ([1.2, 1.6],), (np.array([1.2, 1.6]),))
    def test_the_clip_function_survives_a_round_trip(self, how):
        optimizer = sgd.DPSGD(0.1, 2.0, 1.5, 8, seed=7, clipping=how)
        config = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
        rebuilt = keras.optimizers.deserialize(config)
        self.assertEqual(rebuilt.clipping, optimizer.clipping)
        self.assertEqual(rebuilt.clip.l2_sensitivity, 2.0)

    def test_no_clip_and_no_noise_is_sgd(self):
        ours, other = keras.Variable(np.zeros(3)), keras.Variable(np.zeros(3))
        optimizer, reference = sgd.DPSGD(0.1, float("inf"), 0.0, 4, momentum=0.9), keras.optimizers.SGD(0.1, 0.9)
        for gradient in np.random.default_rng(0).normal(size=(10, 3)):
            optimizer.apply(clipped([4 * gradient], bound=float("inf")), [ours])
            reference.apply([tf.constant(gradient, tf.float32)], [other])
        np.testing.assert_allclose(ours.numpy(), other.numpy(), atol=2e-6)
        self.assertEqual(optimizer.noise_std, 0.0)
        self.assertEqual(optimizer.event, dp_accounting.NonPrivateDpEvent())

    @parameterized.parameters(
        ({"l2_norm_clip": 0.0}, "`l2_norm_clip` must be positive.*Received: l2_norm_clip=0.0"),
        ({"l2_norm_clip": float("inf")}, "`l2_norm_clip` must be finite where there is noise"),
        (
            {"noise_multiplier": -0.1},
            "`noise_multiplier` must be a finite number at least 0.*Received: noise_multiplier=-0.1",
        ),
        ({"noise_multiplier": float("nan")}, "Received: noise_multiplier=nan"),
        (
            {"noise_multiplier": None},
            "`noise_multiplier` must be a finite number at least 0.*Received: noise_multiplier=None",
        ),
        ({"l2_norm_clip": None}, "`l2_norm_clip` must be positive.*Received: l2_norm_clip=None"),
        ({"l2_norm_clip": "1"}, "`l2_norm_clip` must be positive.*Received: l2_norm_clip='1'"),
        ({"batch_size": 0}, "`batch_size` must be a whole number of at least 1. Received: batch_size=0"),
        ({"batch_size": 2.5}, "`batch_size` must be a whole number of at least 1. Received: batch_size=2.5"),
        ({"clipping": "soft"}, "`clipping` must be"),
        ({"clipping": [3.0, 4.0]}, "root of the sum of squares is l2_norm_clip=1.0"),
        (
            {"clipping": "automatic", "l2_norm_clip": float("inf"), "noise_multiplier": 0.0},
            "finite with clipping='automatic'.*Received: l2_norm_clip=inf",
        ),
        ({"clipnorm": 1.0}, "`clipnorm` is not supported"),
        ({"loss_scale_factor": 1.0}, "`loss_scale_factor` is not supported"),
    )
    def test_bad_arguments_are_refused(self, arguments, message):
        good = {"learning_rate": 0.1, "l2_norm_clip": 1.0, "noise_multiplier": 1.0, "batch_size": 4}
        with self.assertRaisesRegex(ValueError, message):
            sgd.DPSGD(**{**good, **arguments})


def adaptive(noise_multiplier=0.0, batch_size=4, seed=7, count_stddev=0.0, **arguments):
    query = adaptive_clipping.AdaptiveClipping(count_stddev=count_stddev)
    return sgd.DPSGD(1.0, 2.0, noise_multiplier, batch_size, seed=seed, adaptive_clipping=query, **arguments)


class AdaptiveClippingTest(parameterized.TestCase):
    def test_two_steps_by_hand(self):
        weight, optimizer = keras.Variable(np.zeros(2)), adaptive()
        optimizer.apply(clipped([[1.0, -2.0]], 2.0, tf.constant(2.0)), [weight])  # all four within the bound
        np.testing.assert_allclose(weight.numpy(), [-0.25, 0.5], rtol=1e-6)
        bound = 2.0 * np.exp(-0.2 * 0.5)
        np.testing.assert_allclose(optimizer.current_l2_norm_clip, bound, rtol=1e-6)
        optimizer.apply(clipped([[0.0, 0.0]], bound, tf.constant(-1.0)), [weight])  # one within, three not
        np.testing.assert_allclose(optimizer.current_l2_norm_clip, bound * np.exp(0.2 * 0.25), rtol=1e-6)
        self.assertEqual(optimizer.l2_norm_clip, 2.0)

    def test_the_noise_follows_the_learned_bound(self):
        size = 200_000
        weight, optimizer = keras.Variable(np.zeros(size)), adaptive(1.5, count_stddev=1.0)
        optimizer.build([weight])
        for _ in range(3):
            bound, before = float(optimizer.current_l2_norm_clip), weight.numpy()
            self.assertAlmostEqual(float(optimizer.noise_std), 1.5 * bound / 4, places=6)
            optimizer.apply(clipped([np.zeros(size)], bound, tf.constant(-2.0)), [weight])
            noise = (weight.numpy() - before) / (1.5 * bound / 4)
            self.assertGreater(stats.kstest(noise, stats.norm.cdf).pvalue, 1e-4)
            for wrong_scale in (2 / 3, 3 / 2):
                self.assertLess(stats.kstest(noise, stats.norm(scale=wrong_scale).cdf).pvalue, 1e-10)
        self.assertGreater(float(optimizer.current_l2_norm_clip), 2.1)

    def test_the_event_is_the_pair(self):
        events = [dp_accounting.GaussianDpEvent(1.5), dp_accounting.GaussianDpEvent(6.0)]
        self.assertEqual(adaptive(1.5, count_stddev=3.0).event, dp_accounting.ComposedDpEvent(events))

    def test_a_sum_clipped_to_an_older_bound_is_refused(self):
        weight, optimizer = keras.Variable(np.zeros(2)), adaptive()
        optimizer.apply(clipped([[1.0, -2.0]], 2.0, tf.constant(2.0)), [weight])
        with self.assertRaisesRegex(ValueError, "current_l2_norm_clip=1.8.*Received: l2_sensitivity=2.0"):
            optimizer.apply(clipped([[1.0, -2.0]], 2.0, tf.constant(2.0)), [weight])
        step = tf.function(lambda: optimizer.apply(clipped([[1.0, -2.0]], 2.0, tf.constant(2.0)), [weight]))
        with self.assertRaisesRegex(tf.errors.InvalidArgumentError, "own bound"):
            step()
        np.testing.assert_allclose(weight.numpy(), [-0.25, 0.5], rtol=1e-6)

    def test_the_statistic_comes_from_the_norms_without_padding(self):
        norms, present = tf.constant([1.0, 3.0, 1.0, 0.0]), tf.constant([True, True, True, False])
        total = clipping.ClippedSum(values=[tf.constant([1.0])], norms=norms, l2_sensitivity=2.0, present=present)
        optimizer = adaptive()
        optimizer.apply(total, [keras.Variable(np.zeros(1))])
        expected = adaptive()
        expected.apply(clipped([[1.0]], 2.0, tf.constant(0.5)), [keras.Variable(np.zeros(1))])
        self.assertEqual(float(optimizer.current_l2_norm_clip), float(expected.current_l2_norm_clip))

    def test_a_loop_of_ones_own_by_clipped_gradient_sum(self):
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        query = adaptive_clipping.AdaptiveClipping(count_stddev=0.0, target_quantile=0.25, learning_rate=1.0)
        optimizer = sgd.DPSGD(0.0, 5.0, 0.0, 64, adaptive_clipping=query)
        optimizer.build(model.trainable_weights)
        x = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)
        for _ in range(40):
            total = clipped_sum.clipped_gradient_sum(
                model, lambda y, p: tf.square(p[:, 0] - y), x, x[:, 0], l2_norm_clip=optimizer.current_l2_norm_clip
            )
            optimizer.apply(total, model.trainable_weights)
        below = np.mean(np.asarray(total.norms) <= float(optimizer.current_l2_norm_clip))
        self.assertAlmostEqual(below, 0.25, delta=2 / 64)

    def test_config_round_trip(self):
        optimizer = adaptive(1.5, count_stddev=3.0, momentum=0.9)
        config = json.loads(json.dumps(keras.optimizers.serialize(optimizer)))
        rebuilt = keras.optimizers.deserialize(config)
        self.assertEqual(rebuilt.adaptive_clipping, optimizer.adaptive_clipping)
        self.assertEqual(rebuilt.get_config(), optimizer.get_config())
        self.assertEqual(rebuilt.event, optimizer.event)

    @parameterized.parameters("adaptive_clipping", "current_l2_norm_clip")
    def test_it_cannot_be_changed(self, name):
        with self.assertRaises(AttributeError):
            setattr(adaptive(), name, None)

    @parameterized.parameters(
        (
            {"adaptive_clipping": 0.5},
            "`adaptive_clipping` must be a noisy_sgd.AdaptiveClipping or None. Received: adaptive_clipping=0.5",
        ),
        (
            {"clipping": "automatic"},
            '`clipping` must be "flat" where `adaptive_clipping`.*Received: clipping=.automatic',
        ),
        ({"l2_norm_clip": float("inf"), "noise_multiplier": 0.0}, "`l2_norm_clip` must be in"),
        ({"noise": gaussian.IndependentNoise()}, "`noise` must be None where `adaptive_clipping` learns"),
        ({"adaptive_clipping": None, "noise": 1.0}, "`noise` must be a noisy_sgd.mechanisms.Recipe.*noise=1.0"),
    )
    def test_bad_arguments_are_refused(self, arguments, message):
        query = adaptive_clipping.AdaptiveClipping()
        good = {
            "learning_rate": 0.1,
            "l2_norm_clip": 1.0,
            "noise_multiplier": 1.0,
            "batch_size": 4,
            "adaptive_clipping": query,
        }
        with self.assertRaisesRegex(ValueError, message):
            sgd.DPSGD(**{**good, **arguments})


if __name__ == "__main__":
    absltest.main()
