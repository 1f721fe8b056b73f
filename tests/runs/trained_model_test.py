import os
import pathlib
import subprocess
import tempfile
import zipfile
from unittest import mock

import keras
import numpy as np
from absl.testing import absltest

import noisy_sgd
from noisy_sgd.models import nf_resnet
from noisy_sgd.runs import trained_model
from noisy_sgd.training import private_model


def trained():
    """A private model whose optimizer has taken a step, with a secret key."""
    options = {"input_shape": (8, 8, 1), "pixel_range": (0.0, 16.0), "seed": 0}
    model = nf_resnet("nf_resnet_tiny", 10, model_class=private_model.PrivateModel, **options)
    optimizer = noisy_sgd.DPSGD(0.5, l2_norm_clip=1.0, noise_multiplier=1.0, batch_size=4)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    images = np.random.default_rng(0).uniform(0, 16, [4, 8, 8, 1]).astype("float32")
    model.fit(images, np.arange(4), verbose=0)
    return model, images


class TrainedModelTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model, cls.images = trained()

    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
        self.path = self.root / "model.keras"

    def test_keras_loads_it_and_it_predicts_the_same(self):
        trained_model.save(self.path, self.model)
        loaded = keras.models.load_model(self.path)
        self.assertNotIsInstance(loaded, private_model.PrivateModel)
        np.testing.assert_array_equal(loaded(self.images), self.model(self.images))

    def test_nothing_of_the_training_is_in_it(self):
        trained_model.save(self.path, self.model)
        with zipfile.ZipFile(self.path) as file:
            self.assertCountEqual(file.namelist(), ["metadata.json", "config.json", "model.weights.h5"])
            contents = b"".join(map(file.read, file.namelist()))
        key = np.asarray(self.model.optimizer._noise_key.variable).tobytes()
        # The search would find what it looks for.
        self.assertTrue(self.model.layers[-1].bias.numpy().tobytes() in contents)
        for secret in (key, key.hex().encode(), b"dp_sgd", b"DPSGD", b"noise_multiplier"):
            self.assertFalse(secret in contents)

    def test_it_is_replaced_as_a_whole_or_not_at_all(self):
        self.path.write_bytes(b"before")
        (self.root / ".model.partial.keras").write_bytes(b"left by a killed writer")
        with mock.patch.object(os, "replace", side_effect=OSError(28, "No space left on device")):
            with self.assertRaisesRegex(ValueError, "model.keras cannot be written: No space left on device"):
                trained_model.save(self.path, self.model)
        self.assertEqual(self.path.read_bytes(), b"before")
        self.assertEqual(os.listdir(self.root), ["model.keras"])
        trained_model.save(self.path, self.model)
        self.assertTrue(zipfile.is_zipfile(self.path))

    def test_a_full_disk_is_one_sentence(self):
        small = self.root / "small"
        small.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", small]
        if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
            self.skipTest("mounting a small filesystem needs rights")
        self.addCleanup(subprocess.run, ["umount", small], check=True)
        with self.assertRaisesRegex(ValueError, "model.keras cannot be written: No space left on device"):
            trained_model.save(small / "model.keras", self.model)
        self.assertEmpty(os.listdir(small))


if __name__ == "__main__":
    absltest.main()
