from absl.testing import absltest

from noisy_sgd import records
from noisy_sgd.experiments import private_optimizers
from tests.experiments import toy_binary


class PrivateOptimizersTest(toy_binary.Runs, absltest.TestCase):
    binary = private_optimizers

    def test_a_smoke_run_ends_in_figures(self):
        stdout, _ = self.run_binary("--smoke", "--num_processes=1", "--num_epochs=1", f"--run_dir={self.root}/run")
        record = records.read(self.root / "run")
        self.assertLen(record.results["rows"], 9)
        self.assertNotIn("num_steps", record.config)
        for name in ("accuracies", "calibration", "reliability"):
            self.assertIn(f"figure: {self.root}/run/figures/{name}.png", stdout)

    def test_bad_values_are_refused_in_a_sentence(self):
        self.assert_refused("`--batch_sizes` must be a small and a large one", "--batch_sizes=16,8")


if __name__ == "__main__":
    absltest.main()
