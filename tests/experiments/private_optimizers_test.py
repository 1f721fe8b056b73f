from unittest import mock

from absl.testing import absltest

from noisy_sgd import records
from noisy_sgd.experiments import private_optimizers
from noisy_sgd.studies import private_optimizers as study
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

    def test_a_record_of_fewer_optimizers_is_refused(self):
        arguments = ("--smoke", "--num_processes=1", f"--run_dir={self.root}/run")
        with mock.patch.object(study, "OPTIMIZERS", ("dp_sgd",)):
            fewer = private_optimizers.parse(["", *arguments]).resolved()
        records.reopen(self.root / "run", fewer, privacy={"text": ""})
        _, stderr = self.run_binary(*arguments, status=2)
        self.assertRegex(stderr, "optimizers is .*dp_sgd.* there and .*dp_sgld.* here")

    def test_bad_values_are_refused_in_a_sentence(self):
        self.assert_refused("`--batch_sizes` must be a small and a large one", "--batch_sizes=16,8")


if __name__ == "__main__":
    absltest.main()
