"""What `import noisy_sgd` does and does not do."""

import json
import subprocess
import sys

from absl.testing import absltest, parameterized

import noisy_sgd

_HEAVY = ("tensorflow", "keras", "numpy", "scipy", "matplotlib", "tensorflow_privacy", "dp_accounting")


class PackageTest(parameterized.TestCase):
    def test_importing_it_imports_nothing_heavy(self):
        listing = "import json, sys, noisy_sgd, noisy_sgd.keys; print(json.dumps(sorted(sys.modules)))"
        result = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
        self.assertEmpty(set(json.loads(result.stdout)) & set(_HEAVY))

    @parameterized.parameters((3, 9), (3, 12), (3, 13), (4, 0))
    def test_a_python_that_cannot_work_gets_one_sentence(self, *version):
        received = f"{version[0]}.{version[1]}.1"
        with self.assertRaises(ImportError) as refused:
            noisy_sgd._refuse_python(version, received)
        message = str(refused.exception)
        self.assertIn(f"received Python {received}", message)
        self.assertIn("uv run --python 3.11", message)
        self.assertNotIn("\n", message)

    @parameterized.parameters((3, 10), (3, 11))
    def test_a_python_that_works_is_not_refused(self, *version):
        noisy_sgd._refuse_python(version, f"{version[0]}.{version[1]}.7")

    def test_an_unknown_name_is_an_attribute_error(self):
        with self.assertRaisesRegex(AttributeError, "has no attribute 'PrivateModle'"):
            _ = noisy_sgd.PrivateModle

    def test_public_names_are_listed(self):
        public = {"NoisySGD", "DPSGD", "PrivateModel", "clipped_gradient_sum", "ClippedSum", "privacy", "sde", "models"}
        self.assertEmpty(public - set(dir(noisy_sgd)))


if __name__ == "__main__":
    absltest.main()
