"""Tests of the binary least_squares, from its command line to a drawn figure, and of what it refuses."""

from unittest import mock

from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.experiments import least_squares
from noisy_sgd.studies import least_squares as studied
from tests.experiments import toy_binary


class LeastSquaresTest(toy_binary.Tests, parameterized.TestCase):
    binary = least_squares
    small = ["--num_runs=2"]

    @parameterized.parameters(
        ("--num_examples=0", "`--num_examples` must be at least 1"),
        ("--dimension=60", "`--dimension` must be less than `--num_examples`=60"),
        ("--regime=over_parameterized --dimension=3", "`--dimension` must be more than"),
        ("--regime=over", "`--regime` must be one of under_parameterized, over_parameterized"),
        ("--relative_step=2", "`--relative_step` must lie between 0 and 1"),
        ("--regime=over_parameterized --noise_scale=0", "`--noise_scale` must be above 0"),
        ("--regime=over_parameterized --relative_step=0.2", "`--relative_step` means nothing to `--regime=over_param"),
    )
    def test_refuses(self, arguments, message):
        self.assert_refused(message, *arguments.split())

    def test_any_seed(self):
        lines = []
        for seed in (-1, -2, 0):
            self.run_binary(*self.small, f"--seed={seed}", f"--run_dir={self.root}/{seed}")
            lines.append(str(records.read(self.root / str(seed)).metrics))
        self.assertLen(set(lines), 3)

    def test_the_former_spelling_of_a_regime_is_taken_and_recorded(self):
        spellings = [self.binary.parse([self.name, f"--regime=over_paramet{ending}"]) for ending in ("erized", "rised")]
        self.assertEqual(*spellings)
        self.assertEqual(spellings[0].resolved()["regime"], "over_parametrised")

    def test_two_processes_do_not_share_a_directory(self):
        arguments = ["--num_runs=2", f"--run_dir={self.root}/run"]
        measure = studied.surrogate_covariance

        def meanwhile(**options):
            _, stderr = self.run_binary(*arguments, status=2)
            self.assertRegex(stderr, "^[^\n]*/run is in use by another process; wait for it to end[^\n]*\n$")
            return measure(**options)

        with mock.patch.object(studied, "surrogate_covariance", side_effect=meanwhile):
            self.run_binary(*arguments)
        self.assertLen(records.read(self.root / "run").metrics, 2)

    def test_a_failed_measurement_starts_again(self):
        arguments = ["--num_runs=2", f"--run_dir={self.root}/run"]
        with mock.patch.object(studied, "sampled_covariance", side_effect=MemoryError("no room")):
            _, stderr = self.run_binary(*arguments, status=1)
        self.assertRegex(stderr, "The measurement failed: no room. When that is fixed, the same command makes it.\n$")
        self.run_binary(*arguments)
        self.assertLen(records.read(self.root / "run").metrics, 2)


if __name__ == "__main__":
    absltest.main()
