import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized
from scipy import stats

from noisy_sgd.gradients import clipped_sum
from noisy_sgd.mechanisms import adaptive_clipping
from noisy_sgd.optimizers import sgd
from noisy_sgd.training import distribution, private_model

RNG = np.random.default_rng(0)
X = RNG.normal(size=(48, 6)).astype(np.float32)
Y = RNG.integers(0, 3, 48)
LOSS = "sparse_categorical_crossentropy"


def setUpModule():
    distribution.use_logical_devices(2)


def network(model_class=private_model.PrivateModel, dtype="float32", regularizer=None, dropout=0.0):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((6,), dtype=dtype)
    hidden = keras.layers.Dense(5, activation="tanh", kernel_regularizer=regularizer, dtype=dtype)(inputs)
    if dropout:
        hidden = keras.layers.Dropout(dropout, dtype=dtype)(hidden)
    return model_class(inputs, keras.layers.Dense(3, activation="softmax", dtype=dtype)(hidden))


def dp(batch_size=16, noise_multiplier=0.5, l2_norm_clip=0.3, **arguments):
    return sgd.DPSGD(0.1, l2_norm_clip, noise_multiplier, batch_size, seed=3, **arguments)


def trained(
    make_optimizer,
    *,
    strategy="default",
    epochs=1,
    dtype="float32",
    fit_arguments=None,
    model=None,
    **compile_arguments,
):
    strategy = distribution.make_strategy(strategy)
    with strategy.scope():
        model = (model or network)(dtype=dtype)
        model.compile(make_optimizer(), LOSS, **compile_arguments)
    history = model.fit(
        X.astype(dtype),
        Y,
        **{"batch_size": 16, "shuffle": False, "verbose": 0, "epochs": epochs, **(fit_arguments or {})},
    )
    return model, history.history


def assert_same_weights(first, second, atol):
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=atol)


class IdentitiesTest(parameterized.TestCase):
    @parameterized.parameters(
        lambda: keras.optimizers.SGD(0.1),
        lambda: sgd.NoisySGD(0.1, 0.0, seed=1),
        lambda: sgd.DPSGD(0.1, float("inf"), 0.0, 16),
    )
    def test_without_noise_and_clip_it_is_keras_sgd(self, make_optimizer):
        reference = network(keras.Model)
        reference.compile(keras.optimizers.SGD(0.1), LOSS, metrics=["accuracy"])
        expected = reference.fit(X, Y, batch_size=16, shuffle=False, verbose=0, epochs=2).history
        model, history = trained(make_optimizer, epochs=2, metrics=["accuracy"])
        assert_same_weights(model, reference, 2e-6)
        np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)
        np.testing.assert_allclose(history["accuracy"], expected["accuracy"], rtol=1e-5)

    def test_dp_sgd_below_its_clip_is_noisy_sgd(self):
        below, _ = trained(lambda: dp(l2_norm_clip=100.0, noise_multiplier=0.002), epochs=3)
        noisy, _ = trained(lambda: sgd.NoisySGD(0.1, 0.2 / 16, seed=3), epochs=3)
        assert_same_weights(below, noisy, 2e-6)
        clipped, _ = trained(lambda: dp(l2_norm_clip=0.1, noise_multiplier=2.0), epochs=3)
        with self.assertRaises(AssertionError):
            assert_same_weights(clipped, noisy, 1e-3)

    @parameterized.product(
        strategy=("default", "mirrored"), microbatch_size=(None, 4, 5, 16), optimizer=("dp_sgd", "noisy_sgd"),
    )  # fmt: skip
    def test_replicas_and_microbatches_change_nothing(self, strategy, microbatch_size, optimizer):
        make = dp if optimizer == "dp_sgd" else lambda: sgd.NoisySGD(0.1, 0.05, seed=3)
        one_batch = {"steps_per_epoch": 1}
        reference, _ = trained(make, fit_arguments=one_batch)
        model, _ = trained(make, strategy=strategy, microbatch_size=microbatch_size, fit_arguments=one_batch)
        assert_same_weights(model, reference, 1e-6)

    @parameterized.parameters(("mirrored", 4), ("mirrored", None), ("default", 4))
    def test_in_float64_twenty_steps_agree(self, strategy, microbatch_size):
        arguments = dict(epochs=7, dtype="float64")
        reference, _ = trained(lambda: dp(momentum=0.9), **arguments)
        model, _ = trained(lambda: dp(momentum=0.9), strategy=strategy, microbatch_size=microbatch_size, **arguments)
        assert_same_weights(model, reference, 1e-10)

    @parameterized.product(strategy=("default", "mirrored"), engine=("vectorized", "book_keeping"))
    def test_the_engine_changes_nothing(self, strategy, engine):
        reference, _ = trained(dp, epochs=7, dtype="float64", engine="vectorized")
        model, _ = trained(dp, epochs=7, dtype="float64", engine=engine, strategy=strategy, microbatch_size=3)
        assert_same_weights(model, reference, 1e-10)

    def test_xla_changes_nothing(self):
        reference, _ = trained(dp, microbatch_size=8)
        model, _ = trained(dp, microbatch_size=8, jit_compile=True)
        assert_same_weights(model, reference, 1e-6)

    def test_replicas_stay_bit_identical(self):
        model, _ = trained(lambda: dp(momentum=0.9), strategy="mirrored", epochs=7, microbatch_size=4)  # 21 noisy steps
        for weight in [*model.trainable_weights, *model.optimizer.variables]:
            first, second = weight.value.values
            np.testing.assert_array_equal(first.numpy(), second.numpy())

    @parameterized.parameters(("default", None), ("default", 5), ("mirrored", None))
    def test_an_epochs_smaller_last_batch_is_padded(self, strategy, microbatch_size):
        arguments = {"epochs": 2, "dtype": "float64", "fit_arguments": {"batch_size": 20}}  # 20, 20 and 8 examples
        reference = network(dtype="float64")
        reference.compile(dp(batch_size=20), LOSS)
        for _ in range(2):
            for first in (0, 20, 40):
                reference.train_on_batch(X[first : first + 20].astype("float64"), Y[first : first + 20])
        model, _ = trained(lambda: dp(batch_size=20), strategy=strategy, microbatch_size=microbatch_size, **arguments)
        assert_same_weights(model, reference, 1e-10)

    def test_a_smaller_last_batch_is_divided_by_the_configured_size(self):
        halved, _ = trained(lambda: sgd.DPSGD(0.1, 1e6, 0.0, 32), fit_arguments={"steps_per_epoch": 1})
        whole, _ = trained(lambda: sgd.DPSGD(0.05, 1e6, 0.0, 16), fit_arguments={"steps_per_epoch": 1})
        assert_same_weights(halved, whole, 1e-6)


class NoiseTest(parameterized.TestCase):
    @parameterized.product(strategy=("default", "mirrored"), optimizer=("dp_sgd", "noisy_sgd"))
    def test_the_noise_of_a_step_follows_its_law(self, strategy, optimizer):
        scale = 1.5 * 2.0 / 8
        strategy = distribution.make_strategy(strategy)
        with strategy.scope():
            inputs = keras.Input((2,))
            model = private_model.PrivateModel(inputs, keras.layers.Dense(100_000, use_bias=False)(inputs))
            make = {
                "dp_sgd": lambda: sgd.DPSGD(1.0, 2.0, 1.5, 8),
                "noisy_sgd": lambda: sgd.NoisySGD(1.0, scale, seed=5),
            }[optimizer]
            model.compile(make(), lambda y, p: 0.0 * tf.reduce_sum(p, axis=-1), microbatch_size=2)
        before = model.get_weights()[0].copy()
        model.fit(np.ones((8, 2)), np.zeros((8, 1)), batch_size=8, verbose=0)
        noise = (model.get_weights()[0] - before).ravel() / scale  # 200,000 draws
        self.assertAlmostEqual(noise.std(), 1.0, delta=0.01)
        self.assertGreater(stats.kstest(noise, stats.norm.cdf).pvalue, 1e-4)
        for wrong_scale in (2 / 3, 3 / 2):
            self.assertLess(stats.kstest(noise, stats.norm(scale=wrong_scale).cdf).pvalue, 1e-10)

    def test_an_empty_batch_is_a_pure_noise_step(self):
        strategy = distribution.make_strategy("default")
        model = network()
        model.compile(sgd.DPSGD(1.0, 1.0, 1.0, 16), LOSS)
        before = [weight.copy() for weight in model.get_weights()]
        strategy.run(model.accumulate, args=(X[:4] * np.nan, Y[:4], None, np.zeros(4)))
        strategy.run(model.finish)
        moved = np.concatenate([(a - b).ravel() for a, b in zip(model.get_weights(), before, strict=True)])
        self.assertTrue(np.all(np.isfinite(moved)))
        # 53 weights: a chi-squared test, two-sided, of the variance of the noise.
        tail = stats.chi2.cdf(np.sum(np.square(moved * 16)), moved.size)
        self.assertBetween(tail, 5e-4, 1 - 5e-4)

    def test_squared_norms_are_the_mean_gradients_and_the_noises(self):
        strategy = distribution.make_strategy("default")
        model = network()
        model.compile(sgd.DPSGD(1.0, float("inf"), 0.0, 16), LOSS)
        before = [weight.copy() for weight in model.get_weights()]
        strategy.run(model.accumulate, args=(X[:16], Y[:16]))
        gradient, noise = strategy.run(model.squared_norms)
        strategy.run(model.finish)
        moved = sum(np.sum(np.square(a - b)) for a, b in zip(model.get_weights(), before, strict=True))
        np.testing.assert_allclose(gradient, moved, rtol=1e-4)
        self.assertEqual(float(noise), 0.0)


def adaptive(noise_multiplier=0.5, count_stddev=1.0, batch_size=16, learning_rate=0.1, **arguments):
    query = adaptive_clipping.AdaptiveClipping(count_stddev=count_stddev, **arguments)
    return sgd.DPSGD(learning_rate, 0.3, noise_multiplier, batch_size, seed=3, momentum=0.9, adaptive_clipping=query)


class AdaptiveClippingTest(parameterized.TestCase):
    @parameterized.parameters(("mirrored", 4), ("default", 5))
    def test_replicas_and_microbatches_learn_the_same_bound(self, strategy, microbatch_size):
        reference, _ = trained(adaptive, epochs=3, dtype="float64")
        model, _ = trained(adaptive, epochs=3, dtype="float64", strategy=strategy, microbatch_size=microbatch_size)
        assert_same_weights(model, reference, 1e-10)
        bound = float(reference.optimizer.current_l2_norm_clip)
        self.assertNotAlmostEqual(bound, 0.3, places=2)
        np.testing.assert_allclose(float(model.optimizer.current_l2_norm_clip), bound, rtol=1e-6)
        if strategy == "mirrored":
            for variable in model.optimizer.variables:
                first, second = variable.value.values
                np.testing.assert_array_equal(first.numpy(), second.numpy())

    def test_resuming_is_not_stopping(self):
        path = self.create_tempdir().full_path + "/model.keras"
        trained(adaptive)[0].save(path)
        resumed = keras.models.load_model(path)
        resumed.fit(X, Y, batch_size=16, shuffle=False, verbose=0)
        unbroken, _ = trained(adaptive, epochs=2)
        assert_same_weights(resumed, unbroken, 0.0)
        bounds = [float(model.optimizer.current_l2_norm_clip) for model in (resumed, unbroken)]
        self.assertEqual(*bounds)

    def test_the_bound_becomes_the_quantile_of_the_norms(self):
        def make():
            return adaptive(0.0, 1.0, batch_size=48, learning_rate=0.0, target_quantile=0.75)

        arguments = dict(epochs=60, fit_arguments={"batch_size": 48}, microbatch_size=20)
        model, _ = trained(make, **arguments)
        norms = clipped_sum.clipped_gradient_sum(
            model, keras.losses.sparse_categorical_crossentropy, X, Y, l2_norm_clip=1.0
        ).norms
        below = np.mean(np.asarray(norms) <= float(model.optimizer.current_l2_norm_clip))
        self.assertAlmostEqual(below, 0.75, delta=0.07)  # noise of one example on the count of 48

    def test_both_noises_follow_their_laws_on_two_replicas(self):
        with distribution.make_strategy("mirrored").scope():
            inputs = keras.Input((2,))
            model = private_model.PrivateModel(inputs, keras.layers.Dense(50_000, use_bias=False)(inputs))
            query = adaptive_clipping.AdaptiveClipping(count_stddev=0.4, target_quantile=1.0)
            optimizer = sgd.DPSGD(1.0, 2.0, 1.5, 8, seed=5, adaptive_clipping=query)
            model.compile(optimizer, lambda y, p: 0.0 * tf.reduce_sum(p, axis=-1), microbatch_size=2)
        factors = []
        for _ in range(3):
            before, bound = model.get_weights()[0].copy(), float(optimizer.current_l2_norm_clip)
            model.fit(np.ones((4, 2)), np.zeros((4, 1)), batch_size=8, verbose=0)
            noise = (model.get_weights()[0] - before).ravel() / (1.5 * bound / 8)  # 100,000 draws
            self.assertGreater(stats.kstest(noise, stats.norm.cdf).pvalue, 1e-4)
            for wrong_scale in (2 / 3, 3 / 2):
                self.assertLess(stats.kstest(noise, stats.norm(scale=wrong_scale).cdf).pvalue, 1e-10)
            factors.append(float(optimizer.current_l2_norm_clip) / bound)
        # Four examples of nominally eight, all of gradient zero and so within the bound: 0.75 plus N(0, 0.05^2).
        fractions = 1.0 - np.log(factors) / 0.2
        self.assertBetween(np.abs((fractions - 0.75) / 0.05).max(), 0.05, 4.0)

    def test_squared_norms_are_of_the_steps_own_noise(self):
        strategy = distribution.make_strategy("default")
        model = network()
        model.compile(sgd.DPSGD(1.0, 0.3, 1.0, 16, adaptive_clipping=adaptive_clipping.AdaptiveClipping()), LOSS)
        before = [weight.copy() for weight in model.get_weights()]
        strategy.run(model.accumulate, args=(X[:4] * np.nan, Y[:4], None, np.zeros(4)))
        _, noise = strategy.run(model.squared_norms)
        strategy.run(model.finish)
        moved = sum(np.sum(np.square(a - b)) for a, b in zip(model.get_weights(), before, strict=True))
        np.testing.assert_allclose(noise, moved, rtol=1e-4)


def views_of(x, count):
    """[N, count, ...]: made-up views of examples; the first one is the example itself."""
    noise = np.random.default_rng(7).normal(size=(len(x), count, *x.shape[1:])).astype(x.dtype)
    noise[:, 0] = 0.0
    return x[:, None] + noise


class ViewsTest(parameterized.TestCase):
    @parameterized.parameters(
        ("default", None, "vectorized"),
        ("mirrored", 5, "vectorized"),
        ("default", 5, "book_keeping"),
        ("mirrored", None, "book_keeping"),
        ("mirrored", 5, "noisy_sgd"),
    )
    def test_equal_views_change_nothing(self, strategy, microbatch_size, optimizer):
        make = (lambda: sgd.NoisySGD(0.1, 0.05, seed=3)) if optimizer == "noisy_sgd" else dp
        engine = "auto" if optimizer == "noisy_sgd" else optimizer
        arguments = dict(dtype="float64", engine=engine, metrics=["accuracy"], epochs=2)
        reference, history = trained(make, **arguments)
        with distribution.make_strategy(strategy).scope():
            model = network(dtype="float64")
            model.compile(
                make(), LOSS, metrics=["accuracy"], engine=engine, microbatch_size=microbatch_size,
                augmentation_multiplicity=3,
            )  # fmt: skip
        x = np.repeat(X.astype("float64")[:, None], 3, axis=1)
        found = model.fit(x, Y, batch_size=16, epochs=2, shuffle=False, verbose=0, validation_data=(X, Y)).history
        assert_same_weights(model, reference, 1e-10)
        for name, values in history.items():
            np.testing.assert_allclose(found[name], values, rtol=1e-5, err_msg=name)
        self.assertAlmostEqual(found["val_loss"][-1], model.evaluate(X, Y, verbose=0)[0], places=5)

    @parameterized.parameters("vectorized", "book_keeping", "noisy_sgd")
    def test_an_examples_gradient_is_the_mean_over_its_views_clipped_once(self, optimizer):
        """One step of a linear softmax model, by hand in float64."""
        x, y, bound = views_of(X[:8].astype("float64"), 4), Y[:8], 1.8
        inputs = keras.Input((6,), dtype="float64")
        outputs = keras.layers.Dense(3, activation="softmax", use_bias=False, dtype="float64")(inputs)
        model = private_model.PrivateModel(inputs, outputs)
        make = sgd.NoisySGD(1.0, 0.0, seed=1)
        if optimizer != "noisy_sgd":
            make = sgd.DPSGD(1.0, bound, 0.0, 8)
        engine = "auto" if optimizer == "noisy_sgd" else optimizer
        model.compile(make, LOSS, engine=engine, batch_size=8, augmentation_multiplicity=4)
        (kernel,) = (weight.copy() for weight in model.get_weights())
        exponentials = np.exp(x @ kernel)
        probabilities = exponentials / exponentials.sum(axis=-1, keepdims=True)
        gradients = np.einsum("bki,bkc->bic", x, probabilities - np.eye(3)[y][:, None]) / 4
        norms = np.sqrt(np.square(gradients).sum(axis=(1, 2)))
        self.assertBetween(np.mean(norms > bound), 0.2, 0.8, norms)
        seen = distribution.make_strategy("default").run(model.accumulate, args=(x, y))
        distribution.make_strategy("default").run(model.finish)
        chosen = np.take_along_axis(probabilities, y[:, None, None], axis=2)[..., 0]
        np.testing.assert_allclose(seen.losses, -np.log(chosen).mean(axis=1), rtol=1e-5)
        np.testing.assert_allclose(seen.predictions, probabilities.mean(axis=1), rtol=1e-5)
        if optimizer == "noisy_sgd":
            self.assertIsNone(seen.norms)
            clipped = gradients
        else:
            np.testing.assert_allclose(seen.norms, norms, rtol=1e-5)
            clipped = gradients * np.minimum(1, bound / norms)[:, None, None]
        # The loss works in single precision.
        np.testing.assert_allclose(kernel - model.get_weights()[0], clipped.mean(axis=0), rtol=0, atol=1e-6)

    @parameterized.parameters("dp_sgd", "noisy_sgd")
    def test_padding_has_no_view(self, optimizer):
        x = views_of(X[:6].astype("float64"), 2)
        x[4:] = np.nan
        weights = []
        for rows, mask in ((6, np.arange(6) < 4), (4, np.ones(4, bool))):
            model = network(dtype="float64")
            make = dp() if optimizer == "dp_sgd" else sgd.NoisySGD(0.1, 0.05, seed=3)
            model.compile(make, LOSS, batch_size=16, augmentation_multiplicity=2)
            strategy = distribution.make_strategy("default")
            seen = strategy.run(model.accumulate, args=(x[:rows], Y[:rows], None, mask))
            strategy.run(model.finish)
            weights.append(model)
            np.testing.assert_array_equal(seen.losses[4:], np.zeros(rows - 4))
        assert_same_weights(*weights, 1e-10)

    def test_saving_keeps_the_multiplicity(self):
        model = network()
        model.compile(dp(), LOSS, augmentation_multiplicity=2)
        path = self.create_tempdir().full_path + "/model.keras"
        model.save(path)
        self.assertEqual(keras.models.load_model(path).get_compile_config()["augmentation_multiplicity"], 2)


class NoiseSecretTest(parameterized.TestCase):
    def test_the_same_secret_is_the_same_noise(self):
        weights = []
        for secret in (b"0123456789abcdef", b"0123456789abcdef", b"another secret!!", None):
            model = network()
            model.compile(sgd.DPSGD(1.0, 1.0, 1.0, 16), LOSS)
            model.prepare(secret)
            distribution.make_strategy("default").run(model.accumulate, args=(X[:16], Y[:16]))
            distribution.make_strategy("default").run(model.finish)
            weights.append(np.concatenate([weight.ravel() for weight in model.get_weights()]))
        np.testing.assert_array_equal(weights[0], weights[1])
        for other in weights[2:]:
            self.assertGreater(np.abs(weights[0] - other).max(), 0.01)

    def test_an_explicit_seed_stays(self):
        model = network()
        model.compile(dp(), LOSS)
        key = model.optimizer._noise_key.variable.numpy()
        model.prepare(b"0123456789abcdef")
        np.testing.assert_array_equal(model.optimizer._noise_key.variable.numpy(), key)


class KerasTest(parameterized.TestCase):
    def test_saving_loading_and_cloning_keep_class_and_optimizer(self):
        model, _ = trained(lambda: dp(momentum=0.9), microbatch_size=4)
        path = self.create_tempdir().full_path + "/model.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
        self.assertIsInstance(loaded, private_model.PrivateModel)
        self.assertIsInstance(keras.models.clone_model(model), private_model.PrivateModel)
        self.assertEqual(loaded.optimizer.get_config(), model.optimizer.get_config())
        self.assertEqual(loaded.get_compile_config(), model.get_compile_config())
        for each in (model, loaded):
            each.fit(X, Y, batch_size=16, shuffle=False, verbose=0)
        assert_same_weights(model, loaded, 0.0)

    def test_sample_weights_scale_losses_and_the_bound_still_holds(self):
        weights = np.where(np.arange(48) < 24, 2.0, 0.0).astype(np.float32)
        reference = network(keras.Model)
        reference.compile(keras.optimizers.SGD(0.1), LOSS)
        reference.fit(X, Y, sample_weight=weights, batch_size=16, shuffle=False, verbose=0)
        model, _ = trained(
            lambda: sgd.DPSGD(0.1, float("inf"), 0.0, 16),
            fit_arguments={"sample_weight": weights},
            microbatch_size=4,
        )
        assert_same_weights(model, reference, 2e-6)
        huge = trained(
            lambda: sgd.DPSGD(1.0, 0.1, 0.0, 16),
            fit_arguments={"sample_weight": 1e6 * np.ones(48, np.float32), "steps_per_epoch": 1},
        )[0]
        moved = sum(np.sum(np.square(a - b)) for a, b in zip(huge.get_weights(), network().get_weights(), strict=True))
        self.assertLessEqual(np.sqrt(moved), 0.1 * (1 + 1e-5))

    def test_metrics_validation_and_callbacks(self):
        seen = []
        callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append(logs))
        model, history = trained(
            dp,
            metrics=["accuracy"],
            microbatch_size=5,
            fit_arguments={"validation_data": (X, Y), "callbacks": [callback], "epochs": 2},
        )
        self.assertEqual(set(history), {"loss", "accuracy", "val_loss", "val_accuracy"})
        self.assertLen(seen, 2)
        loss, accuracy = model.evaluate(X, Y, verbose=0)
        np.testing.assert_allclose([loss, accuracy], [history["val_loss"][-1], history["val_accuracy"][-1]], rtol=1e-5)

    def test_weight_regularizers_are_added_after_clipping(self):
        def build(**arguments):
            return network(regularizer=keras.regularizers.L2(0.5), **arguments)

        reference = network(keras.Model, regularizer=keras.regularizers.L2(0.5))
        reference.compile(keras.optimizers.SGD(0.1), LOSS)
        expected = reference.fit(X, Y, batch_size=16, shuffle=False, verbose=0).history
        for strategy in ("default", "mirrored"):
            model, history = trained(
                lambda: sgd.DPSGD(0.1, float("inf"), 0.0, 16), model=build, strategy=strategy, microbatch_size=4
            )
            assert_same_weights(model, reference, 2e-6)
            np.testing.assert_allclose(history["loss"], expected["loss"], rtol=1e-5)
        pulled, _ = trained(lambda: sgd.DPSGD(0.1, 1e-9, 0.0, 16), model=build, fit_arguments={"steps_per_epoch": 1})
        np.testing.assert_allclose(pulled.get_weights()[0], build().get_weights()[0] * (1 - 0.1 * 2 * 0.5), rtol=1e-5)

    def test_dropout_trains(self):
        def build(**arguments):
            return network(dropout=0.5, **arguments)

        _, history = trained(dp, model=build, microbatch_size=4, epochs=2)
        self.assertTrue(np.all(np.isfinite(history["loss"])))

    @parameterized.parameters("default", "mirrored")
    def test_a_step_that_failed_leaves_nothing_behind(self, strategy):
        with distribution.make_strategy(strategy).scope():
            model, clean = network(), network()
            for each in (model, clean):
                each.compile(dp(l2_norm_clip=0.3), LOSS, microbatch_size=2)
        wrong = Y.copy()
        wrong[15] = 99
        with self.assertRaises(tf.errors.InvalidArgumentError):
            model.fit(X[:16], wrong[:16], batch_size=16, shuffle=False, verbose=0)
        model.set_weights(network().get_weights())
        model.optimizer.iterations.assign(0)
        for each in (model, clean):
            each.fit(X[:16], Y[:16], batch_size=16, shuffle=False, verbose=0)
        assert_same_weights(model, clean, 1e-6)

    def test_every_training_has_a_secret_of_its_own(self):
        model = network()
        model.compile(sgd.DPSGD(0.1, 1.0, 1.0, 16), LOSS)
        seen = set()
        for _ in range(2):
            model.fit(X, Y, 16, 1, verbose=0)
            seen.add(tuple(model.optimizer._noise_key.variable.numpy()))
        self.assertLen(seen, 2)

    def test_mixed_bfloat16_trains(self):
        inputs = keras.Input((6,))
        outputs = keras.layers.Dense(3, activation="softmax", dtype="mixed_bfloat16")(inputs)
        model = private_model.PrivateModel(inputs, outputs)
        model.compile(dp(), LOSS)
        model.fit(X, Y, verbose=0)
        self.assertTrue(np.all(np.isfinite(model.get_weights()[0])))

    def test_the_head_of_a_body_with_frozen_batch_normalization_trains(self):
        keras.utils.set_random_seed(0)
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(6, 8, 8, 3)).astype(np.float32), rng.integers(0, 2, 6)
        stem = [keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization(), keras.layers.GlobalAveragePooling2D()]
        body = keras.Sequential([keras.Input((8, 8, 3)), *stem])
        body.trainable = False
        # Other statistics than those of a new layer.
        body.layers[1].moving_mean.assign(rng.normal(size=4))
        body.layers[1].moving_variance.assign(rng.uniform(0.5, 2.0, 4))
        inputs = keras.Input((8, 8, 3))
        model = private_model.PrivateModel(inputs, keras.layers.Dense(2)(body(inputs)))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        features, before = body(x).numpy().astype(np.float64), model.get_weights()
        logits = features @ model.layers[-1].kernel.numpy() + model.layers[-1].bias.numpy()
        slopes = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) - np.eye(2)[y]
        factors = 1 / np.sqrt((slopes**2).sum(axis=1) * (1 + (features**2).sum(axis=1)))
        bound = float(np.median(1 / factors))
        factors = np.minimum(1.0, bound * factors)[:, None]
        model.compile(sgd.DPSGD(6.0, bound, 0.0, 6), loss)
        with self.assertNoLogs("absl", "WARNING"):
            model.fit(x, y, shuffle=False, verbose=0)
        *rest, kernel, bias = [a - b for a, b in zip(before, model.get_weights(), strict=True)]
        for change in rest:
            self.assertFalse(np.any(change))
        np.testing.assert_allclose(kernel, features.T @ (slopes * factors), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(bias, (slopes * factors).sum(axis=0), rtol=1e-3, atol=1e-5)
        body.trainable = True
        with self.assertRaisesRegex(ValueError, "in training mode.*`trainable = False`"):
            model.fit(x, y, verbose=0)

    @parameterized.parameters(None, 2)
    def test_sparse_data_train_as_dense_ones(self, microbatch_size):
        rng = np.random.default_rng(0)
        x = np.where(rng.random((6, 5)) < 0.4, 1.0, 0.0).astype(np.float32)
        y = rng.integers(0, 3, 6)
        found = []
        for kind in (x, tf.sparse.from_dense(x)):
            keras.utils.set_random_seed(0)
            inputs = keras.Input((5,), sparse=kind is not x)
            model = private_model.PrivateModel(inputs, keras.layers.Dense(3)(inputs))
            loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            model.compile(dp(batch_size=6, noise_multiplier=0.0), loss, microbatch_size=microbatch_size)
            model.fit(tf.data.Dataset.from_tensor_slices((kind, y)).batch(6), shuffle=False, verbose=0)
            found.append(model.get_weights())
        for dense, sparse in zip(*found, strict=True):
            np.testing.assert_allclose(sparse, dense, atol=1e-6)

    def test_ragged_data_are_refused(self):
        inputs = keras.Input((None,), dtype="int32")
        hidden = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(5, 3)(inputs))
        model = private_model.PrivateModel(inputs, keras.layers.Dense(1)(hidden))
        model.compile(dp(batch_size=2), "mse")
        data = tf.data.Dataset.from_tensor_slices((tf.ragged.constant([[1], [2, 3]]), [0.0, 1.0])).batch(2)
        with self.assertRaisesRegex(ValueError, "^`x` must .*`to_tensor.*ragged$"):
            model.fit(data, shuffle=False, verbose=0)

    def test_freezing_a_layer_after_compiling_again(self):
        model, _ = trained(dp)
        model.layers[1].trainable = False
        frozen = [weight.copy() for weight in model.layers[1].get_weights()]
        model.compile(dp(), LOSS)
        model.fit(X, Y, batch_size=16, verbose=0)
        for a, b in zip(model.layers[1].get_weights(), frozen, strict=True):
            np.testing.assert_array_equal(a, b)

    def test_arrays_are_batched_by_the_optimizers_batch_size(self):
        model = network()
        model.compile(dp(batch_size=24), LOSS)
        model.fit(X, Y, verbose=0)
        self.assertEqual(int(model.optimizer.iterations), 2)


class RefusalsTest(parameterized.TestCase):
    def test_larger_batches_than_configured_are_refused(self):
        model = network()
        model.compile(dp(), LOSS)
        before = [weight.copy() for weight in model.get_weights()]
        with self.assertRaisesRegex(ValueError, "at most the configured.*16. Received: batch_size=17"):
            model.fit(X, Y, batch_size=17, verbose=0)
        rows = tf.data.Dataset.from_tensor_slices((X, Y))
        for dataset in (rows.batch(17), rows.batch(17, drop_remainder=True)):
            with self.assertRaisesRegex(ValueError, "at most the configured"):
                model.fit(dataset, shuffle=False, verbose=0)
        for a, b in zip(model.get_weights(), before, strict=True):
            np.testing.assert_array_equal(a, b)

    @parameterized.parameters(
        ({"microbatch_size": 0}, "`microbatch_size` must be a positive integer.*Received: microbatch_size=0"),
        ({"batch_size": 17}, "`batch_size` must be the optimizer's.*Received: batch_size=17"),
        ({"engine": "fast"}, "Received: engine='fast'"),
        ({"augmentation_multiplicity": 0}, "must be a positive integer.*Received: augmentation_multiplicity=0"),
        ({"augmentation_multiplicity": None}, "must be a positive integer.*Received: augmentation_multiplicity=None"),
        ({"loss": "no_such_loss"}, "Received: loss='no_such_loss'"),
    )
    def test_bad_arguments_are_refused(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            network().compile(**{"optimizer": dp(), "loss": LOSS, **arguments})

    def test_what_xla_cannot_compile_is_refused(self):
        def hosted(x):
            return tf.ensure_shape(tf.numpy_function(np.tanh, [x], tf.float32), x.shape)

        inputs = keras.Input((4,))
        model = private_model.PrivateModel(inputs, keras.layers.Dense(3)(keras.layers.Lambda(hosted)(inputs)))
        model.compile(dp(batch_size=2), "mse", jit_compile=True)
        with self.assertRaisesRegex(ValueError, "^`jit_compile` must be False .*PyFunc.* Received: jit_compile=True$"):
            model.fit(np.ones((2, 4), "f"), np.ones((2, 3), "f"), verbose=0)

    def test_batch_normalization_is_refused(self):
        inputs = keras.Input((6,))
        hidden = keras.layers.BatchNormalization()(keras.layers.Dense(3)(inputs))
        with self.assertRaisesRegex(ValueError, "GroupNormalization"):
            private_model.PrivateModel(inputs, hidden).compile(dp(), LOSS)

    def test_float16_is_refused(self):
        inputs = keras.Input((6,))
        outputs = keras.layers.Dense(3, dtype="mixed_float16")(inputs)
        with self.assertRaisesRegex(ValueError, "mixed_bfloat16"):
            private_model.PrivateModel(inputs, outputs).compile(dp(), LOSS)


if __name__ == "__main__":
    absltest.main()
