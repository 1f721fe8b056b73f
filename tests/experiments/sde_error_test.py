"""Tests of the binary sde_error, from its command line to drawn figures, and of what it refuses."""

from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.experiments import sde_error
from tests.experiments import toy_binary


class SdeErrorTest(toy_binary.Tests, parameterized.TestCase):
    binary = sde_error
    small = ["--num_paths=3"]
    figures = 2

    @parameterized.parameters(
        ("--num_paths=1", "`--num_paths` must be at least 2"),
        ("--noise_scale=-1", "`--noise_scale` must be at least 0"),
        ("--alpha=1", "Unknown command line flag 'alpha'"),
    )
    def test_refuses(self, arguments, message):
        self.assert_refused(message, *arguments.split())

    def test_any_seed(self):
        lines = []
        for seed in (-1, -2, 0):
            self.run_binary(*self.small, f"--seed={seed}", f"--run_dir={self.root}/{seed}")
            lines.append(str(records.read(self.root / str(seed)).metrics))
        self.assertLen(set(lines), 3)


if __name__ == "__main__":
    absltest.main()
