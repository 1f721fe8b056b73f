"""Public names are listed, load when they are first used, and import nothing before."""

import importlib
import pathlib
import subprocess
import sys

from absl.testing import absltest, parameterized

LAZY = ("data", "figures", "gradients", "mechanisms", "optimizers", "runs", "studies", "toy", "training")
PACKAGES = ("noisy_sgd", *(f"noisy_sgd.{name}" for name in LAZY))
OTHERS = tuple(f"noisy_sgd.{name}" for name in ("models", "privacy", "sampling", "sde"))


class LazyTest(parameterized.TestCase):
    @parameterized.parameters(*PACKAGES, *OTHERS)
    def test_every_listed_name_loads(self, package):
        module = importlib.import_module(package)
        self.assertNotEmpty(module.__all__)
        self.assertTrue(module.__doc__)
        for name in module.__all__:
            self.assertIsNotNone(getattr(module, name))
            self.assertIn(name, dir(module))

    def test_another_name_is_refused(self):
        with self.assertRaisesRegex(AttributeError, "module 'noisy_sgd.optimizers' has no attribute 'Adam'"):
            importlib.import_module("noisy_sgd.optimizers").__getattr__("Adam")

    def test_a_package_of_studies_lists_each_of_its_modules(self):
        studies = importlib.import_module("noisy_sgd.studies")
        folder = pathlib.Path(studies.__file__).parent
        expected = {path.stem for path in folder.glob("*.py")} - {"__init__"} | {"laboratory"}
        self.assertEqual(set(studies.__all__), expected)

    def test_listing_imports_no_tensorflow(self):
        code = f"import sys, {', '.join(PACKAGES)}; assert not {{'tensorflow', 'keras'}} & set(sys.modules)"
        subprocess.run([sys.executable, "-c", code], check=True)


if __name__ == "__main__":
    absltest.main()
