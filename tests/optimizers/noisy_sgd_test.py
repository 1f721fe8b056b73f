import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from scipy import stats

from noisy_sgd.optimizers import sgd
from noisy_sgd.training import distribution


def setUpModule():
    distribution.use_logical_devices(2)


def steps_from_zero(optimizer, gradients, shape=(3,), dtype="float32"):
    weight = keras.Variable(np.zeros(shape), dtype=dtype, name="weight")
    for gradient in gradients:
        optimizer.apply([tf.constant(gradient, dtype)], [weight])
    return weight.numpy()


class NoisySGDTest(parameterized.TestCase):
    @parameterized.parameters(
        {}, {"momentum": 0.9}, {"momentum": 0.9, "nesterov": True}, {"weight_decay": 0.1, "momentum": 0.5}
    )
    def test_without_noise_it_is_sgd(self, **arguments):
        gradients = np.random.default_rng(0).normal(size=(10, 3))
        ours = steps_from_zero(sgd.NoisySGD(0.1, 0.0, seed=1, **arguments), gradients)
        keras_sgd = steps_from_zero(keras.optimizers.SGD(0.1, **arguments), gradients)
        np.testing.assert_allclose(ours, keras_sgd, atol=2e-6)

    def test_one_step_by_hand(self):
        optimizer = sgd.NoisySGD(0.5, 2.0, seed=1)
        noise = steps_from_zero(optimizer, [[0.0, 0.0, 0.0]]) / (-0.5 * 2.0)
        weight = steps_from_zero(sgd.NoisySGD(0.5, 2.0, seed=1), [[1.0, -2.0, 3.0]])
        np.testing.assert_allclose(weight, -0.5 * (np.array([1.0, -2.0, 3.0]) + 2.0 * noise), rtol=1e-6)

    def test_momentum_carries_the_noised_gradient(self):
        noise = [steps_from_zero(sgd.NoisySGD(1.0, 1.0, seed=1), np.zeros((count, 3))) for count in (1, 2)]
        first, second = -noise[0], -(noise[1] - noise[0])
        weight = steps_from_zero(sgd.NoisySGD(1.0, 1.0, seed=1, momentum=0.5), np.zeros((2, 3)))
        np.testing.assert_allclose(weight, -(first + (0.5 * first + second)), rtol=1e-5)

    def test_noise_follows_its_law(self):
        size = 200_000
        weight = steps_from_zero(sgd.NoisySGD(1.0, 0.3, seed=4), [np.zeros(size)], shape=(size,))
        self.assertAlmostEqual(weight.std() / 0.3, 1.0, delta=0.01)
        self.assertGreater(stats.kstest(weight / 0.3, stats.norm.cdf).pvalue, 1e-4)
        for wrong_scale in (2 / 3, 3 / 2):
            self.assertLess(stats.kstest(weight / 0.3, stats.norm(scale=wrong_scale).cdf).pvalue, 1e-10)

    def test_steps_seeds_and_weights_get_independent_noise(self):
        size = 50_000
        zeros = np.zeros(size)
        one = steps_from_zero(sgd.NoisySGD(1.0, 1.0, seed=4), [zeros], (size,))
        two = steps_from_zero(sgd.NoisySGD(1.0, 1.0, seed=4), [zeros, zeros], (size,)) - one
        other = steps_from_zero(sgd.NoisySGD(1.0, 1.0, seed=5), [zeros], (size,))
        pair = [keras.Variable(zeros.astype(np.float32)) for _ in range(2)]
        sgd.NoisySGD(1.0, 1.0, seed=4).apply([tf.zeros(size), tf.zeros(size)], pair)
        for a, b in ((one, two), (one, other), (pair[0].numpy(), pair[1].numpy())):
            self.assertLess(abs(np.corrcoef(a, b)[0, 1]), 5 / np.sqrt(size))

    def test_config_round_trip_gives_the_same_steps(self):
        optimizer = sgd.NoisySGD(
            keras.optimizers.schedules.ExponentialDecay(0.1, 2, 0.5), 0.3, seed=4, momentum=0.9, nesterov=True
        )
        rebuilt = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
        self.assertIsInstance(rebuilt, sgd.NoisySGD)
        gradients = np.ones((5, 3))
        np.testing.assert_array_equal(steps_from_zero(optimizer, gradients), steps_from_zero(rebuilt, gradients))

    def test_noise_std_is_an_assignable_variable_of_its_final_shape(self):
        optimizer = sgd.NoisySGD(1.0, np.array([[1.0], [0.0]]), seed=4)
        first = steps_from_zero(optimizer, [np.zeros((2, 3))], shape=(2, 3), dtype="float64")
        self.assertEqual(optimizer.noise_std.dtype, "float64")
        np.testing.assert_array_equal(first[1], np.zeros(3))
        self.assertTrue(np.all(first[0] != 0))
        optimizer.noise_std.assign([[0.0], [2.0]])
        self.assertEqual(optimizer.get_config()["noise_std"], [[0.0], [2.0]])

    def test_a_resumed_optimizer_continues_the_noise(self):
        model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
        model.compile(sgd.NoisySGD(0.1, 0.5, seed=3, momentum=0.9), "mse")
        x, y = np.ones((8, 3), np.float32), np.ones((8, 2), np.float32)
        model.fit(x, y, batch_size=4, verbose=0, shuffle=False)
        path = self.create_tempdir().full_path + "/model.keras"
        model.save(path)
        resumed = keras.models.load_model(path)
        for each in (model, resumed):
            each.fit(x, y, batch_size=4, verbose=0, shuffle=False)
        for a, b in zip(model.get_weights(), resumed.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)

    def test_plain_fit_on_two_replicas_adds_the_noise_once(self):
        strategy = distribution.make_strategy("mirrored")
        self.assertEqual(strategy.num_replicas_in_sync, 2)
        with strategy.scope():
            model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(100_000, use_bias=False)])
            model.compile(sgd.NoisySGD(1.0, 0.25, seed=3), lambda y, p: 0.0 * p)
        before = model.get_weights()[0].copy()
        model.fit(np.zeros((4, 1)), np.zeros((4, 1)), batch_size=4, verbose=0)
        noise = (model.get_weights()[0] - before).ravel() / 0.25
        self.assertAlmostEqual(noise.std(), 1.0, delta=0.01)
        self.assertGreater(stats.kstest(noise, stats.norm.cdf).pvalue, 1e-4)

    def test_a_variable_without_gradient_is_left_alone(self):
        used, unused = keras.Variable(np.zeros(3)), keras.Variable(np.zeros(3))
        optimizer = sgd.NoisySGD(1.0, 1.0, seed=3)
        with self.assertWarnsRegex(UserWarning, "Gradients do not exist"):
            optimizer.apply([None, tf.zeros(3)], [unused, used])
        np.testing.assert_array_equal(unused.numpy(), np.zeros(3))
        self.assertTrue(np.all(used.numpy() != 0))

    @parameterized.parameters(
        ({"noise_std": -1.0}, "`noise_std` must be finite and at least 0. Received: noise_std=-1.0"),
        ({"noise_std": float("nan")}, "Received: noise_std=nan"),
        ({"noise_std": "a"}, "`noise_std` must be finite and at least 0. Received: noise_std='a'"),
        ({"noise_std": None}, "Received: noise_std=None"),
        ({"seed": None}, "`seed` must be an integer. Received: seed=None"),
        ({"geometry": "round"}, "`geometry` must be one of .*Received: geometry='round'"),
        ({"clipnorm": 1.0}, "`clipnorm` is not supported: .*DPSGD.*Received: clipnorm=1.0"),
        ({"clipvalue": 1.0}, "`clipvalue` is not supported"),
        ({"global_clipnorm": 1.0}, "`global_clipnorm` is not supported"),
        ({"gradient_accumulation_steps": 2}, "`gradient_accumulation_steps` is not supported.*microbatch_size"),
        ({"loss_scale_factor": 2.0}, "`loss_scale_factor` is not supported"),
        ({"ema_overwrite_frequency": 2}, "`ema_overwrite_frequency` is not supported"),
    )
    def test_bad_arguments_are_refused(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            sgd.NoisySGD(**{"learning_rate": 0.1, "noise_std": 1.0, "seed": 1, **arguments})

    def test_noisy_sgd_has_no_secret(self):
        optimizer = sgd.NoisySGD(0.1, 1.0, seed=1)
        with self.assertRaisesRegex(ValueError, "`seed` must be an integer. Received: seed=16 bytes"):
            optimizer.rekey(bytes(16))
        with self.assertRaisesRegex(ValueError, "Received: seed=None"):
            optimizer.rekey(None)
        optimizer.rekey(2)
        self.assertEqual(optimizer.get_config()["seed"], 2)


if __name__ == "__main__":
    absltest.main()
