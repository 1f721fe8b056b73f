import contextlib
import io
import runpy
import sys
from unittest import mock

from absl.testing import absltest, parameterized

from noisy_sgd.experiments import registry
from noisy_sgd.experiments.support import console


class ConsoleTest(parameterized.TestCase):
    def _run(self, *arguments):
        """Returns the module that is run and its command line."""
        with mock.patch.object(runpy, "run_module") as run, mock.patch.object(sys, "argv", ["noisy-sgd"]):
            console.main(arguments)
            return run.call_args.args[0], sys.argv

    def test_runs_a_binary(self):
        module, argv = self._run("train", "--num_steps=8")
        self.assertEqual((module, argv), ("noisy_sgd.experiments.train", ["train", "--num_steps=8"]))

    def test_a_configuration_by_its_name(self):
        module, argv = self._run("reproduce", "quick", "--run_dir=x")
        self.assertEqual(module, "noisy_sgd.experiments.reproduce")
        self.assertEqual(argv, ["reproduce", "--flagfile=configs/reproduce/quick.flags", "--run_dir=x"])

    @parameterized.parameters(
        (["trian"], "noisy-sgd: NAME is not known (Received: trian); did you mean train?"),
        (["train", "digits_sgd"], "CONFIGURATION is not known (Received: digits_sgd); did you mean digits_dp_sgd?"),
        (["registry"], "NAME is not known (Received: registry)"),
        (["benchmark", "quick"], "CONFIGURATION is not known (Received: quick); choose one of none: it has none"),
    )
    def test_refuses(self, arguments, message):
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr), self.assertRaises(SystemExit) as ended:
            self._run(*arguments)
        self.assertEqual(ended.exception.code, 2)
        self.assertIn(message, stderr.getvalue())
        self.assertEqual(stderr.getvalue().count("\n"), 1)

    def test_lists_every_binary(self):
        stdout = io.StringIO()
        with contextlib.redirect_stdout(stdout):
            console.main([])
        for name in ("train", "benchmark", "reproduce", *registry.studies()):
            self.assertRegex(stdout.getvalue(), rf"(?m)^{name} +\w")


if __name__ == "__main__":
    absltest.main()
