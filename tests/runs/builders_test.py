import dataclasses
import os
import pathlib
import tempfile
import types

import dp_accounting
import keras
import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd import config, privacy
from noisy_sgd.data import bundled
from noisy_sgd.mechanisms import gaussian
from noisy_sgd.models import named_weights
from noisy_sgd.optimizers import adam, extrapolation, lars, sgd
from noisy_sgd.runs import builders, recorded_run
from noisy_sgd.training import private_model

ALGORITHMS = {
    "sgd": {},
    "noisy_sgd": {"effective_noise": 0.02},
    "dp_sgd": {"effective_noise": 0.02, "l2_norm_clip": 1.0, "noise_seed": 5},
}


def _settings(algorithm="sgd", *, seed=0, run_dir=None, data=None, model=None, **options):
    options = {
        "batch_size": 16,
        "num_steps": 6,
        "learning_rate": 0.1,
        "momentum": 0.5,
        **ALGORITHMS[algorithm],
        **options,
    }
    return config.Config(
        data=data or config.Data(num_train_examples=40),
        model=model or config.Model(model="mlp", hidden=(8,)),
        training=config.Training(algorithm=algorithm, **options),
        run=config.Run(seed=seed, run_dir=run_dir, eval_every=3),
    )


def stated(settings, num_examples):
    return builders.privacy_statement(settings, builders.optimizer(settings), num_examples)


class BuildTest(parameterized.TestCase):
    @parameterized.parameters(("sgd", keras.optimizers.SGD), ("noisy_sgd", sgd.NoisySGD), ("dp_sgd", sgd.DPSGD))
    def test_the_optimizer_has_the_configured_noise(self, name, kind):
        settings = _settings(name)
        optimizer = builders.build(settings).model.optimizer
        self.assertIs(type(optimizer), kind)
        self.assertAlmostEqual(float(optimizer.learning_rate), 0.1, places=6)
        self.assertEqual(optimizer.momentum, 0.5)
        if name != "sgd":
            self.assertAlmostEqual(float(optimizer.noise_std), 0.02, places=7)

    @parameterized.parameters(
        ("sgd", "adam", keras.optimizers.Adam),
        ("sgd", "adamw", keras.optimizers.AdamW),
        ("dp_sgd", "adam", adam.DPAdam),
        ("dp_sgd", "adamw", adam.DPAdamW),
        ("sgd", "lars", lars.LARS),
        ("noisy_sgd", "lars", lars.NoisyLARS),
        ("dp_sgd", "lars", lars.DPLARS),
        ("sgd", "extrap_sgd", extrapolation.ExtrapSGD),
        ("noisy_sgd", "extrap_sgd", extrapolation.NoisyExtrapSGD),
        ("dp_sgd", "extrap_sgd", extrapolation.DPExtrapSGD),
    )
    def test_other_optimizers(self, algorithm, name, kind):
        momentum = 0.0 if name.startswith("adam") else 0.5
        optimizer = builders.optimizer(_settings(algorithm, optimizer=name, momentum=momentum))
        self.assertIs(type(optimizer), kind)
        self.assertEqual(getattr(optimizer, "momentum", 0.0), momentum)
        self.assertAlmostEqual(float(optimizer.learning_rate), 0.1, places=6)
        if algorithm == "dp_sgd":
            self.assertAlmostEqual(float(optimizer.noise_std), 0.02, places=7)

    def test_what_is_accounted_for_is_what_the_mechanism_does(self):
        settings = _settings("dp_sgd", l2_norm_clip=0.3, effective_noise=None, noise_multiplier=1.1, noise_seed=None)
        optimizer = builders.optimizer(settings)
        claimed = builders.privacy_statement(settings, optimizer, 40)
        weaker = property(lambda self: dp_accounting.GaussianDpEvent(1.1 / 2))
        with absltest.mock.patch.object(gaussian.GaussianSumQuery, "event", weaker):
            self.assertGreater(builders.privacy_statement(settings, optimizer, 40).epsilon, 1.5 * claimed.epsilon)

    def test_the_learned_clip_is_accounted_for(self):
        settings = _settings("dp_sgd", target_quantile=0.6, noise_seed=None)
        optimizer = builders.optimizer(settings)
        self.assertEqual(optimizer.adaptive_clipping.target_quantile, 0.6)
        sigma = settings.training.resolved_noise_multiplier
        joint = (sigma**-2 + (16 / 10) ** -2) ** -0.5
        plan = builders.plan(settings, optimizer, 40, settings.training.num_steps)
        expected = privacy.epsilon(
            joint, 16, 40, settings.training.num_steps, plan.delta, sampling=settings.training.sampling
        )
        self.assertAlmostEqual(plan.epsilon, expected, places=9)
        self.assertEqual(builders.privacy_statement(settings, optimizer, 40).epsilon, plan.epsilon)

    def test_clipping_and_precision_are_the_configured_ones(self):
        settings = _settings("dp_sgd", clipping="per_layer", model=config.Model(model="mlp", precision="bfloat16"))
        objects = builders.build(settings)
        self.assertEqual(objects.model.optimizer.clipping, "per_layer")
        self.assertEqual({layer.compute_dtype for layer in objects.model.layers[2:-1]}, {"bfloat16"})
        self.assertEqual({weight.dtype for weight in objects.model.trainable_weights}, {"float32"})

    @parameterized.parameters("nf_resnet_tiny", "mlp")
    def test_networks_by_name_are_functions_of_the_seed(self, name):
        images = bundled.load("digits")
        networks = [builders.network(config.Model(model=name), images, seed) for seed in (0, 0, 1)]
        first, again, other = ([np.array(weight) for weight in one.get_weights()] for one in networks)
        self.assertTrue(all(np.array_equal(a, b) for a, b in zip(first, again, strict=True)))
        self.assertFalse(all(np.array_equal(a, b) for a, b in zip(first, other, strict=True)))
        self.assertIsInstance(networks[0], private_model.PrivateModel)

    def test_every_name_of_the_configuration_is_known(self):
        images = bundled.load("digits")
        images = dataclasses.replace(images, train_images=np.zeros([1, 28, 28, 1], np.uint8))
        for name in set(config.MODELS) - {"nf_resnet50"}:
            with self.subTest(name):
                self.assertEqual(builders.network(config.Model(model=name), images, 0).output_shape, (None, 10))

    def test_a_batch_larger_than_the_data_is_refused(self):
        with self.assertRaisesRegex(ValueError, "`--batch_size` must be at most the 40 examples.*batch_size=41"):
            builders.build(_settings(batch_size=41))


class SavedModelTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.path = str(pathlib.Path(self.enter_context(tempfile.TemporaryDirectory())) / "mine.keras")

    def _save(self, *layers, classes=10):
        inputs = keras.Input((8, 8, 1))
        x = keras.layers.Flatten()(inputs)
        for layer in layers:
            x = layer(x)
        model = keras.Model(inputs, keras.layers.Dense(classes)(x))
        model.save(self.path)
        return model

    def test_its_weights_are_taken(self):
        saved = self._save()
        objects = builders.build(_settings(model=config.Model(model=self.path)))
        np.testing.assert_array_equal(objects.model.get_weights()[0], saved.get_weights()[0])

    def test_batch_normalization_is_refused(self):
        self._save(keras.layers.BatchNormalization())
        for name in ALGORITHMS:
            with self.assertRaisesRegex(ValueError, "BatchNormalization"):
                builders.build(_settings(name, model=config.Model(model=self.path)))

    def test_one_that_does_not_fit_is_refused(self):
        self._save(classes=3)
        with self.assertRaisesRegex(ValueError, "`--model` must map images of shape .8, 8, 1. to 10 logits"):
            builders.build(_settings(model=config.Model(model=self.path)))

    def test_a_run_says_what_it_is_fed(self):
        self._save()
        objects = builders.build(_settings(model=config.Model(model=self.path, pixel_range="0,2")))
        self.assertRegex(objects.fed, "^mine.keras gets pixels from 0 to 2, scaled from the data's range, 0 to 16; ")
        self.assertIsNone(builders.build(_settings()).fed)


class RestartTest(parameterized.TestCase):
    @parameterized.parameters(("sgd", {}), ("noisy_sgd", {"ema_decay": 0.9}), ("dp_sgd", {"target_quantile": 0.5}))
    def test_a_restarted_run_is_the_run_built_anew(self, name, options):
        with tempfile.TemporaryDirectory() as directory:
            shared = builders.build(_settings(name, seed=0, **options))
            weights = {}
            for folder, objects, seed in (("other", shared, 0), ("shared", shared, 1), ("fresh", None, 1)):
                settings = _settings(name, seed=seed, run_dir=f"{directory}/{folder}", **options)
                if objects is None:
                    objects = builders.build(settings)
                else:
                    builders.restart(objects, settings)
                with recorded_run.started(objects, settings) as run:
                    recorded_run.train(run)
                weights[folder] = np.concatenate([weight.ravel() for weight in objects.model.get_weights()])
            metrics = [pathlib.Path(directory, folder, "metrics.jsonl").read_bytes() for folder in ("shared", "fresh")]
        np.testing.assert_array_equal(weights["shared"], weights["fresh"])
        self.assertEqual(*metrics)
        self.assertGreater(np.abs(weights["shared"] - weights["other"]).max(), 0.01)

    def test_every_private_run_has_a_key_of_its_own(self):
        settings = _settings("dp_sgd", noise_seed=None)
        objects = builders.build(settings)
        keys = [objects.model.optimizer._noise_key.variable.numpy().tolist()]
        for _ in range(2):
            builders.restart(objects, settings)
            keys.append(objects.model.optimizer._noise_key.variable.numpy().tolist())
        self.assertLen({tuple(key) for key in keys}, 3)


class EvaluationTest(absltest.TestCase):
    def test_weights_and_their_average_are_evaluated(self):
        objects = builders.build(_settings(ema_decay=0.5))
        before = objects.evaluate()
        self.assertEqual(before["ema_accuracy"], before["accuracy"])
        variable = objects.model.trainable_variables[0]
        kept = variable.numpy()
        variable.assign(kept + 1.0)
        after = objects.evaluate()
        # A change that no step has seen is not in the average.
        self.assertEqual(before["ema_loss"], after["ema_loss"])
        self.assertNotEqual(before["loss"], after["loss"])
        np.testing.assert_array_equal(variable.numpy(), kept + 1.0)

    def test_every_test_image_counts_once(self):
        images = bundled.load("digits")
        objects = builders.build(_settings())
        logits = objects.model.predict(images.test_images, verbose=0)
        self.assertAlmostEqual(
            objects.evaluate()["accuracy"], np.mean(logits.argmax(-1) == images.test_labels), places=6
        )


class NetworkTest(absltest.TestCase):
    def test_an_nf_resnet_has_its_convention_normalization_and_initial_weights(self):
        images = types.SimpleNamespace(
            image_shape=(16, 16, 3), pixel_range=(0.0, 255.0), num_classes=7, normalization=([1.0, 2.0, 3.0], [4.0] * 3)
        )
        chosen = config.Model(model="nf_resnet_tiny", convention="tan")
        made = builders.network(chosen, images, seed=0)
        self.assertTrue(made.get_layer("stage1_block1_conv1").unbiased_variance)
        np.testing.assert_allclose(
            made.get_layer("rescaling")(tf.constant([1.0, 4.0, 7.0])), [0.0, 0.5, 1.0], atol=1e-6
        )
        path = os.path.join(self.create_tempdir(), "weights.npz")
        np.savez(path, **named_weights.arrays(made))
        again = builders.network(dataclasses.replace(chosen, initial_weights=path), images, seed=1)
        for ours, theirs in zip(again.get_weights(), made.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)

    def test_the_tanh_network_gets_pixels_from_0_to_1(self):
        mnist = types.SimpleNamespace(
            image_shape=(28, 28, 1), pixel_range=(0.0, 255.0), normalization=None, num_classes=10
        )
        network = builders.network(config.Model(model="mnist_cnn_tanh"), mnist, 0)
        first = network.get_layer("convolution1")
        self.assertIs(first.activation, keras.activations.tanh)
        pixels = np.array([0.0, 255.0])[:, None, None, None] * np.ones((28, 28, 1))
        seen = keras.Model(network.input, first.input)(pixels)
        np.testing.assert_allclose(seen[:, 0, 0, 0], [0, 1], atol=1e-6)


class PrivacyStatementTest(parameterized.TestCase):
    @parameterized.parameters("sgd", "noisy_sgd")
    def test_only_dp_sgd_has_one(self, name):
        self.assertFalse(stated(_settings(name), 1000).guaranteed)

    def test_delta_is_below_one_over_the_examples(self):
        for examples, delta in ((999, 1e-3), (1000, 1e-4), (60_000, 1e-5)):
            made = stated(_settings("dp_sgd", noise_seed=None), examples)
            self.assertTrue(made.guaranteed)
            self.assertAlmostEqual(made.delta, delta, places=12)

    def test_a_noise_seed_voids_it(self):
        made = stated(_settings("dp_sgd", noise_seed=3), 1000)
        self.assertFalse(made.guaranteed)
        self.assertIn("seed", made.reason)

    def test_no_noise_is_no_guarantee(self):
        settings = _settings("dp_sgd", noise_seed=None, effective_noise=None, noise_multiplier=0.0)
        self.assertFalse(stated(settings, 1000).guaranteed)


if __name__ == "__main__":
    absltest.main()
