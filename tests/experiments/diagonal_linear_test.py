"""Tests of the binary diagonal_linear, from its command line to a drawn figure, and of what it refuses."""

import errno
import os
from unittest import mock

from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.experiments import diagonal_linear
from noisy_sgd.studies import diagonal_linear as studied
from tests.experiments import toy_binary


class DiagonalLinearTest(toy_binary.Tests, parameterized.TestCase):
    binary = diagonal_linear
    small = ["--num_steps=50", "--num_runs=2", "--noise_scale=0,0.5"]

    @parameterized.parameters(
        ("--alpha=-1", "`--alpha` must be positive"),
        ("--relative_step=0", "`--relative_step` must be positive"),
        ("--noise_scale=0,-1", "`--noise_scale` must be at least 0"),
        ("--noise_scale=0,x", "`--noise_scale` must list numbers"),
        ("--noise_scale=0,nan", "`--noise_scale` must be at least 0"),
        ("--noise_scale=0.5,0.5", "`--noise_scale` must list one or more different"),
        ("--figure=8", "`--figure` must be one of curves, distance, gap"),
        ("--num_runs=0", "`--num_runs` must be at least 1"),
    )
    def test_refuses(self, arguments, message):
        self.assert_refused(message, *arguments.split())

    def test_any_seed(self):
        lines = []
        for seed in (-1, -2, 0):
            self.run_binary(*self.small, f"--seed={seed}", f"--run_dir={self.root}/{seed}")
            lines.append(str(records.read(self.root / str(seed)).metrics))
        self.assertLen(set(lines), 3)

    def test_a_full_disk_while_drawing_loses_nothing(self):
        arguments = ["--num_steps=20", "--num_runs=1", f"--run_dir={self.root}/run"]
        replace = os.replace

        def full(source, target):
            if str(target).endswith(".pdf"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(source, target)

        with mock.patch.object(os, "replace", side_effect=full):
            _, stderr = self.run_binary(*arguments, status=1)
        self.assertRegex(stderr, r"run.pdf cannot be written: No space left on device. The record is complete; [^\n]*$")
        self.assertEqual(os.listdir(self.root / "run" / "figures"), ["run.png"])
        stdout, _ = self.run_binary(*arguments)
        self.assertIn("is finished", stdout)
        self.assertCountEqual(os.listdir(self.root / "run" / "figures"), ["run.png", "run.pdf", "run.csv"])

    def test_runs_that_all_diverge_are_drawn(self):
        self.run_binary("--num_steps=20", "--num_runs=1", "--alpha=5", f"--run_dir={self.root}/run")

    def test_a_damaged_record_is_named(self):
        arguments = ["--num_steps=20", "--num_runs=1", f"--run_dir={self.root}/run"]
        self.run_binary(*arguments)
        path = self.root / "run" / "metrics.jsonl"
        path.write_bytes(path.read_bytes()[:40] + b"\n")
        _, stderr = self.run_binary(*arguments, status=2)
        self.assertRegex(stderr, f"^[^\n]*{path} is damaged: its line 1 [^\n]*\n$")

    def test_a_finished_run_is_drawn_not_run(self):
        arguments = ["--num_steps=20", "--num_runs=1", f"--run_dir={self.root}/run"]
        self.run_binary(*arguments)
        (self.root / "run" / "figures" / "run.png").unlink()
        with mock.patch.object(records, "create", side_effect=AssertionError("it was measured again")):
            stdout, stderr = self.run_binary(*arguments)
        self.assertIn("is finished", stdout)
        self.assertEmpty(stderr)
        self.assertTrue((self.root / "run" / "figures" / "run.png").exists())
        _, stderr = self.run_binary(*arguments, "--seed=1", status=2)
        self.assertIn("seed is 0 there and 1 here", stderr)

    def test_an_interrupted_run_is_not_finished_and_starts_again(self):
        arguments = ["--num_steps=20", "--num_runs=1", f"--run_dir={self.root}/run"]
        with mock.patch.object(studied, "finals", side_effect=KeyboardInterrupt):
            _, stderr = self.run_binary(*arguments, status=130)
        self.assertEndsWith(stderr, "interrupted.\n")
        self.assertNotIn("Traceback", stderr)
        self.assertEmpty(records.find(self.root))
        self.run_binary(*arguments)
        self.assertLen(records.find(self.root), 1)


if __name__ == "__main__":
    absltest.main()
