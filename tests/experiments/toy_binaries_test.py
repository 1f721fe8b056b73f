"""Every binary on a toy problem, from its command line to a drawn figure, and what it refuses."""

import contextlib
import errno
import io
import os
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.experiments import deep_diagonal, diagonal_linear, flags, least_squares, noise_threshold, sde_error
from noisy_sgd.experiments.support import toy_problems

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"
MODULES = {
    "deep_diagonal": deep_diagonal,
    "diagonal_linear": diagonal_linear,
    "least_squares": least_squares,
    "noise_threshold": noise_threshold,
    "sde_error": sde_error,
}
FIGURES = {"deep_diagonal": 2, "noise_threshold": 3, "sde_error": 2}
SMALL = {
    "deep_diagonal": ["--num_data_sets=1", "--num_runs=1", "--num_steps=30"],
    "noise_threshold": ["--num_data_sets=1", "--num_runs=1", "--num_steps=30"],
    "diagonal_linear": ["--num_steps=50", "--num_runs=2", "--noise_scale=0,0.5"],
    "least_squares": ["--num_runs=2"],
    "sde_error": ["--num_paths=3"],
}


def flagfiles():
    return sorted(path for name in MODULES for path in (CONFIGS / name).glob("*.flags"))


class ToyBinaryTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))

    def _run(self, name, *arguments, status=0):
        stdout, stderr = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            with self.assertRaises(SystemExit) as caught:
                flags.run(getattr(flags, name), MODULES[name].main, [name, *arguments])
        self.assertEqual(caught.exception.code or 0, status, stderr.getvalue())
        return stdout.getvalue(), stderr.getvalue()

    @parameterized.parameters(*((path.parent.name, path.stem) for path in flagfiles()))
    def test_a_flagfile_ends_in_figures(self, name, stem):
        directory = self.root / stem
        flagfile = f"--flagfile={CONFIGS / name / stem}.flags"
        stdout, stderr = self._run(name, flagfile, *SMALL[name], f"--run_dir={directory}")
        self.assertRegex(stderr, r"([\d]+)/\1 (steps|measurements|data sets)")
        record = records.read(directory)
        self.assertEqual(record.status, records.FINISHED)
        self.assertIn("No privacy guarantee", record.privacy["text"])
        figures = sorted((directory / "figures").glob("*.png"))
        self.assertLen(figures, FIGURES.get(name, 1))
        for figure in figures:
            self.assertIn(f"figure: {figure}", stdout)
            self.assertStartsWith(figure.read_bytes(), b"\x89PNG")
            self.assertGreater(figure.with_suffix(".csv").read_text().count("\n"), 1)

    def test_two_processes_do_not_share_a_directory(self):
        arguments = ["--num_runs=2", f"--run_dir={self.root}/run"]
        recorded = least_squares.surrogate_covariance

        def meanwhile(**options):
            _, stderr = self._run("least_squares", *arguments, status=2)
            self.assertRegex(stderr, "^[^\n]*/run is in use by another process; wait for it to end[^\n]*\n$")
            return recorded(**options)

        with mock.patch.object(least_squares, "surrogate_covariance", side_effect=meanwhile):
            self._run("least_squares", *arguments)
        self.assertLen(records.read(self.root / "run").metrics, 2)

    def test_an_interrupted_measurement_starts_again(self):
        arguments = ["--num_runs=2", f"--run_dir={self.root}/run"]
        with mock.patch.object(least_squares, "sampled_covariance", side_effect=MemoryError("no room")):
            _, stderr = self._run("least_squares", *arguments, status=1)
        self.assertRegex(stderr, "The measurement failed: no room. Once that is mended, the same command makes it.\n$")
        self._run("least_squares", *arguments)
        self.assertLen(records.read(self.root / "run").metrics, 2)

    @parameterized.parameters("least_squares", "sde_error", "diagonal_linear")
    def test_any_seed(self, name):
        lines = []
        for seed in (-1, -2, 0):
            directory = f"{self.root}/{seed}"
            self._run(name, *SMALL[name], f"--seed={seed}", f"--run_dir={directory}")
            lines.append(str(records.read(directory).metrics))
        self.assertLen(set(lines), 3)

    def test_a_full_disk_while_drawing_loses_nothing(self):
        arguments = ["--num_steps=20", "--num_runs=1", f"--run_dir={self.root}/run"]
        replace = os.replace

        def full(source, target):
            if str(target).endswith(".pdf"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(source, target)

        with mock.patch.object(os, "replace", side_effect=full):
            _, stderr = self._run("diagonal_linear", *arguments, status=1)
        self.assertRegex(stderr, r"run.pdf cannot be written: No space left on device. The record is complete; [^\n]*$")
        self.assertEqual(os.listdir(self.root / "run" / "figures"), ["run.png"])
        stdout, _ = self._run("diagonal_linear", *arguments)
        self.assertIn("is finished", stdout)
        self.assertCountEqual(os.listdir(self.root / "run" / "figures"), ["run.png", "run.pdf", "run.csv"])

    def test_runs_that_all_diverge_are_drawn(self):
        self._run("diagonal_linear", "--num_steps=20", "--num_runs=1", "--alpha=5", f"--run_dir={self.root}/run")

    def test_a_damaged_record_is_named(self):
        arguments = ["--num_steps=20", "--num_runs=1", f"--run_dir={self.root}/run"]
        self._run("diagonal_linear", *arguments)
        path = self.root / "run" / "metrics.jsonl"
        path.write_bytes(path.read_bytes()[:40] + b"\n")
        _, stderr = self._run("diagonal_linear", *arguments, status=2)
        self.assertRegex(stderr, f"^[^\n]*{path} is damaged: its line 1 [^\n]*\n$")

    def test_a_finished_run_is_drawn_not_run(self):
        arguments = ["--num_steps=20", "--num_runs=1", f"--run_dir={self.root}/run"]
        self._run("diagonal_linear", *arguments)
        (self.root / "run" / "figures" / "run.png").unlink()
        with mock.patch.object(records, "create", side_effect=AssertionError("it was measured again")):
            stdout, stderr = self._run("diagonal_linear", *arguments)
        self.assertIn("is finished", stdout)
        self.assertEmpty(stderr)
        self.assertTrue((self.root / "run" / "figures" / "run.png").exists())
        _, stderr = self._run("diagonal_linear", *arguments, "--seed=1", status=2)
        self.assertIn("seed is 0 there and 1 here", stderr)

    @parameterized.parameters(*((path.parent.name, path.stem) for path in flagfiles()))
    def test_a_flagfile_opens_with_its_command(self, name, stem):
        text = (CONFIGS / name / f"{stem}.flags").read_text()
        command = f"# python -m noisy_sgd.experiments.{name} --flagfile=configs/{name}/{stem}.flags\n"
        self.assertStartsWith(text, command)
        for word in ("Expected:", "Time:", f"--run_dir=runs/{name}/{stem}"):
            self.assertIn(word, text)

    def test_an_interrupted_run_is_not_finished_and_starts_again(self):
        arguments = ["--num_steps=20", "--num_runs=1", f"--run_dir={self.root}/run"]
        with mock.patch.object(diagonal_linear, "finals", side_effect=KeyboardInterrupt):
            _, stderr = self._run("diagonal_linear", *arguments, status=130)
        self.assertEndsWith(stderr, "interrupted.\n")
        self.assertNotIn("Traceback", stderr)
        self.assertEmpty(records.find(self.root))
        self._run("diagonal_linear", *arguments)
        self.assertLen(records.find(self.root), 1)

    @parameterized.parameters(
        ("diagonal_linear", ["--alpha=-1"], "`--alpha` must be positive"),
        ("diagonal_linear", ["--relative_step=0"], "`--relative_step` must be positive"),
        ("diagonal_linear", ["--noise_scale=0,-1"], "`--noise_scale` must be at least 0"),
        ("diagonal_linear", ["--noise_scale=0,x"], "`--noise_scale` must list numbers"),
        ("diagonal_linear", ["--noise_scale=0,nan"], "`--noise_scale` must be at least 0"),
        ("diagonal_linear", ["--noise_scale=0.5,0.5"], "`--noise_scale` must list one or more different"),
        ("diagonal_linear", ["--figure=8"], "`--figure` must be one of curves, distance, gap"),
        ("diagonal_linear", ["--num_runs=0"], "`--num_runs` must be at least 1"),
        ("least_squares", ["--num_examples=0"], "`--num_examples` must be at least 1"),
        ("least_squares", ["--dimension=60"], "`--dimension` must be less than `--num_examples`=60"),
        ("least_squares", ["--regime=over_parametrised", "--dimension=3"], "`--dimension` must be more than"),
        ("least_squares", ["--relative_step=2"], "`--relative_step` must lie between 0 and 1"),
        ("least_squares", ["--regime=over_parametrised", "--noise_scale=0"], "`--noise_scale` must be above 0"),
        ("sde_error", ["--num_paths=1"], "`--num_paths` must be at least 2"),
        ("noise_threshold", ["--num_data_sets=0"], "`--num_data_sets` must be at least 1"),
        ("deep_diagonal", ["--num_steps=0"], "`--num_steps` must be at least 1"),
        ("sde_error", ["--alpha=1"], "Unknown command line flag 'alpha'"),
    )
    def test_bad_input_is_one_sentence_status_2_and_nothing_written(self, name, arguments, message):
        stdout, stderr = self._run(name, *arguments, f"--run_dir={self.root}/run", status=2)
        self.assertRegex(stderr, message)
        self.assertEqual(stderr.count("\n"), 1, stderr)
        self.assertEmpty(stdout)
        self.assertEmpty(os.listdir(self.root))

    def test_flags_default_to_the_configurations_defaults(self):
        self.assertEqual(flags.diagonal_linear(["binary"]), toy_problems.DiagonalLinear())
        self.assertEqual(flags.least_squares(["binary"]), toy_problems.LeastSquares())
        self.assertEqual(flags.noise_threshold(["binary"]), toy_problems.Family())
        self.assertEqual(flags.sde_error(["binary"]), toy_problems.SdeError())


if __name__ == "__main__":
    absltest.main()
