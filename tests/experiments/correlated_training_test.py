import pathlib
import sys

from absl.testing import absltest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import toy_binary

from noisy_sgd import records
from noisy_sgd.experiments import correlated_training


class CorrelatedTrainingTest(toy_binary.Runs, absltest.TestCase):
    binary = correlated_training

    def test_a_smoke_run_ends_in_a_figure(self):
        stdout, _ = self.run_binary("--smoke", "--num_processes=1", f"--run_dir={self.root}/run")
        record = records.read(self.root / "run")
        self.assertLen(record.results["rows"], 5)
        self.assertLen(record.results["table"], 8)
        self.assertIn("epsilon 8, many draws: ", stdout)
        self.assertIn(f"figure: {self.root}/run/figures/correlated_training.png", stdout)

    def test_bad_values_are_refused_in_a_sentence(self):
        self.assert_refused("`--epsilons` must list distinct numbers above 0", "--epsilons=1,1")
        self.assert_refused("`--draws` must be a whole number of at least 2", "--draws=1")


if __name__ == "__main__":
    absltest.main()
