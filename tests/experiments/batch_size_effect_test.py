from absl.testing import absltest

from noisy_sgd import records
from noisy_sgd.experiments import batch_size_effect
from tests.experiments import toy_binary

FEW = ("--smoke", "--num_processes=1", "--num_steps=4", "--learning_rates=0.1")


class BatchSizeEffectTest(toy_binary.Runs, absltest.TestCase):
    binary = batch_size_effect

    def test_a_smoke_run_ends_in_figures(self):
        stdout, _ = self.run_binary(*FEW, f"--run_dir={self.root}/run")
        record = records.read(self.root / "run")
        self.assertEqual(record.config["dataset"], "digits")
        self.assertIn("No privacy guarantee", record.privacy["text"])
        self.assertNotIn("data_dir", record.config)
        # Records older than this option are of independent noise, and stay valid.
        self.assertNotIn("noise_coefficients", record.config)
        correlated = batch_size_effect.parse(["batch_size_effect", "--noise_coefficients=1,-0.9"])
        self.assertEqual(correlated.resolved()["noise_coefficients"], (1.0, -0.9))
        for name in ("accuracy_by_batch_size", "slopes"):
            self.assertIn(f"figure: {self.root}/run/figures/{name}.png", stdout)
        again, _ = self.run_binary(*FEW, f"--run_dir={self.root}/run")
        self.assertIn("is finished", again)

    def test_bad_values_are_refused_in_a_sentence(self):
        self.assert_refused("`--batch_sizes` must list at least three", "--batch_sizes=16,32")
        (self.root / "mnist.npz").write_text("no archive")
        _, stderr = self.run_binary(
            "--dataset=mnist", f"--data_dir={self.root}", f"--run_dir={self.root}/run", status=2
        )
        self.assertRegex(stderr, "MNIST could not be loaded: set .*data_dir")
        self.assertEqual([path.name for path in self.root.iterdir()], ["mnist.npz"])


if __name__ == "__main__":
    absltest.main()
