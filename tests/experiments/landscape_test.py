"""Tests of the binary landscape, and of what all studies on images share."""

from absl.testing import absltest, parameterized

from noisy_sgd.experiments import landscape
from tests.experiments import toy_binary


class LandscapeTest(toy_binary.Tests, parameterized.TestCase):
    binary = landscape
    small = ["--smoke"]
    figures = 2

    def test_a_record_tells_the_data_set_and_no_folder(self):
        (self.root / "empty").mkdir()
        arguments = ["--dataset=mnist_or_digits", f"--data_dir={self.root}/empty", f"--run_dir={self.root}/run"]
        settings = landscape.parse([self.name, "--smoke", *arguments])
        described = settings.resolved()
        self.assertEqual((described["dataset"], described["num_seeds"], described["network"]), ("digits", 2, "mlp"))
        self.assertEmpty({"run_dir", "data_dir", "num_processes"} & set(described))
        self.assertNotIn("num_processes", settings.common)

    @parameterized.parameters(
        ("--num_seeds=1", "`--num_seeds` must be at least 2"),
        ("--num_train_examples=255", "`--num_train_examples` must be at least 256"),
        ("--num_steps=0", "`--num_steps` must be at least 1"),
        ("--dataset=cifar", "`--dataset` must be one of mnist"),
        ("--network=lstm", "`--network` must be one of mlp"),
        ("--dataset=digits --data_dir=there", "`--data_dir` is read only for MNIST"),
    )
    def test_refuses(self, arguments, message):
        self.assert_refused(message, *arguments.split())

    def test_mnist_that_cannot_be_loaded_is_refused(self):
        folder = self.root / "data"
        folder.mkdir()
        (folder / "mnist.npz").write_text("no archive")
        _, stderr = self.run_binary(f"--data_dir={folder}", "--dataset=mnist", f"--run_dir={self.root}/run", status=2)
        self.assertRegex(stderr, "mnist.npz")
        self.assertEqual([path.name for path in self.root.iterdir()], ["data"])


if __name__ == "__main__":
    absltest.main()
