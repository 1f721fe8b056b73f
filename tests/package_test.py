"""What `import noisy_sgd` does and does not do."""

import importlib
import importlib.util
import json
import pathlib
import pkgutil
import re
import subprocess
import sys
from unittest import mock

import keras
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd.models import group_normalization

_HEAVY = ("tensorflow", "keras", "numpy", "scipy", "matplotlib", "tensorflow_privacy", "dp_accounting")


class PackageTest(parameterized.TestCase):
    def test_importing_it_imports_nothing_heavy(self):
        listing = "import json, sys, noisy_sgd, noisy_sgd.keys; print(json.dumps(sorted(sys.modules)))"
        result = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
        self.assertEmpty(set(json.loads(result.stdout)) & set(_HEAVY))

    def test_keras_finds_saved_classes_without_their_modules(self):
        for name in ("mechanisms", "models", "optimizers", "training"):
            package = importlib.import_module(f"noisy_sgd.{name}")
            for module in pkgutil.iter_modules(package.__path__):
                importlib.import_module(f"{package.__name__}.{module.name}")
        registered = {key for key in keras.saving.get_custom_objects() if key.startswith("noisy_sgd>")}
        self.assertEqual(registered, {f"noisy_sgd>{name}" for name in noisy_sgd._SAVED})
        inputs = keras.Input((4, 4, 2))
        features = group_normalization.GroupNormalization(2)(inputs)
        model = noisy_sgd.PrivateModel(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(features)))
        optimizer = noisy_sgd.DPSGD(0.1, 1.0, 1.0, 8, adaptive_clipping=noisy_sgd.AdaptiveClipping())
        model.compile(optimizer, keras.losses.Huber())
        path = self.create_tempdir().full_path + "/saved.keras"
        model.save(path)
        with self.subTest("another process, Keras after the package"):
            loading = (
                "import noisy_sgd, keras; "
                f"model = keras.models.load_model({path!r}); "
                "print(type(model).__name__, type(model.layers[1]).__module__, "
                "type(model.optimizer.adaptive_clipping).__name__)"
            )
            result = subprocess.run([sys.executable, "-c", loading], capture_output=True, text=True, check=True)
            expected = "PrivateModel noisy_sgd.models.group_normalization AdaptiveClipping"
            self.assertEqual(result.stdout.split("\n")[-2], expected)
        with self.subTest("Keras first"):
            objects = keras.saving.get_custom_objects()
            real = {key: objects.pop(key) for key in registered}
            try:
                noisy_sgd._register_saved(sys.modules[noisy_sgd._KERAS_REGISTRY])
                self.assertIsNot(objects["noisy_sgd>PrivateModel"], noisy_sgd.PrivateModel)
                loaded = keras.models.load_model(path)
            finally:
                objects.update(real)
            self.assertIsInstance(loaded, noisy_sgd.PrivateModel)
            self.assertEqual(loaded.optimizer.get_config(), optimizer.get_config())

    @parameterized.parameters((2, 7), (3, 9), (3, 14), (4, 0))
    def test_a_python_that_cannot_work_gets_one_sentence(self, *version):
        received = f"{version[0]}.{version[1]}.1"
        with (
            mock.patch.object(importlib.util, "find_spec", return_value=None),
            self.assertRaises(ImportError) as refused,
        ):
            noisy_sgd._refuse_python(version, received)
        message = str(refused.exception)
        self.assertIn(f"received Python {received}", message)
        self.assertIn("uv run --python 3.11", message)
        self.assertNotIn("\n", message)

    @parameterized.parameters((3, 10), (3, 11), (3, 12), (3, 13), (3, 14))
    def test_a_python_that_works_is_not_refused(self, *version):
        noisy_sgd._refuse_python(version, f"{version[0]}.{version[1]}.7")

    def test_pyproject_reads_its_version(self):
        self.assertRegex(noisy_sgd.__version__, r"^\d+\.\d+\.\d+$")
        pyproject = (pathlib.Path(__file__).parents[1] / "pyproject.toml").read_text()
        self.assertIn('dynamic = ["version"]', pyproject)
        self.assertIn('version = { attr = "noisy_sgd.__version__" }', pyproject)

    def test_changelog_and_citation_name_the_version(self):
        root = pathlib.Path(__file__).parents[1]
        newest = re.search(r"^## (\S+),", (root / "CHANGELOG.md").read_text(), re.MULTILINE)[1]
        cited = re.search(r"^version: (\S+)$", (root / "CITATION.cff").read_text(), re.MULTILINE)[1]
        self.assertEqual({newest, cited}, {noisy_sgd.__version__})

    def test_an_unknown_name_is_an_attribute_error(self):
        with self.assertRaisesRegex(AttributeError, "has no attribute 'PrivateModle'"):
            _ = noisy_sgd.PrivateModle

    def test_public_names_are_listed(self):
        public = {"NoisySGD", "DPSGD", "PrivateModel", "clipped_gradient_sum", "ClippedSum", "privacy", "sde", "models"}
        self.assertEmpty(public - set(dir(noisy_sgd)))


if __name__ == "__main__":
    absltest.main()
