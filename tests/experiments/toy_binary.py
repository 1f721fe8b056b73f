"""What every binary on a toy problem has to do: the tests that the test of each binary inherits.

class LeastSquaresTest(toy_binary.Tests, parameterized.TestCase):
    binary, small, figures = least_squares, ["--num_runs=2"], 1
"""

import contextlib
import io
import pathlib
import tempfile

from noisy_sgd import records
from noisy_sgd.experiments import flags

CONFIGS = pathlib.Path(__file__).parents[2] / "configs"


class Runs:
    """Runs a binary in this process.

    Attributes:
        binary: its module.
        small: arguments with which it takes a second.
    """

    binary = None
    small = ()

    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
        self.name = self.binary.__name__.rpartition(".")[2]

    def run_binary(self, *arguments, status=0):
        """Runs the binary, which has to end with this status; returns what it wrote to stdout and stderr."""
        stdout, stderr = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            with self.assertRaises(SystemExit) as caught:
                flags.run(self.binary.parse, self.binary.main, [self.name, *arguments])
        self.assertEqual(caught.exception.code or 0, status, stderr.getvalue())
        return stdout.getvalue(), stderr.getvalue()

    def assert_refused(self, message, *arguments):
        """The binary refuses its arguments in one sentence, with status 2, and writes nothing."""
        stdout, stderr = self.run_binary(*arguments, f"--run_dir={self.root}/run", status=2)
        self.assertRegex(stderr, message)
        self.assertEqual(stderr.count("\n"), 1, stderr)
        self.assertEmpty(stdout)
        self.assertEmpty(list(self.root.iterdir()))


class Tests(Runs):
    """Tests of every binary.

    Attributes:
        figures: how many figures it draws. Defaults to 1.
    """

    figures = 1

    def flagfiles(self):
        """The binary's flagfiles."""
        found = sorted((CONFIGS / self.name).glob("*.flags"))
        self.assertNotEmpty(found)
        return found

    def test_a_flagfile_ends_in_figures(self):
        for flagfile in self.flagfiles():
            with self.subTest(flagfile.name):
                directory = self.root / flagfile.stem
                arguments = [f"--flagfile={flagfile}", *self.small, f"--run_dir={directory}"]
                stdout, stderr = self.run_binary(*arguments)
                self.assertRegex(stderr, r"([\d]+)/\1 (steps|measurements|data sets)")
                record = records.read(directory)
                self.assertEqual(record.status, records.FINISHED)
                self.assertIn("No privacy guarantee", record.privacy["text"])
                figures = sorted((directory / "figures").glob("*.png"))
                self.assertLen(figures, self.figures)
                for figure in figures:
                    self.assertIn(f"figure: {figure}", stdout)
                    self.assertStartsWith(figure.read_bytes(), b"\x89PNG")
                    self.assertGreater(figure.with_suffix(".csv").read_text().count("\n"), 1)

    def test_flags_default_to_the_settings_defaults(self):
        settings = self.binary.parse([self.name])
        self.assertEqual(settings.run_dir, f"runs/{self.name}")
        self.assertEqual(settings, type(settings)(run_dir=settings.run_dir, **self.defaults))

    # Defaults of the binary that are not those of its class of settings.
    defaults = {}


class CaseTests(Tests):
    """Tests of every binary that measures data set by data set, in several processes."""

    small = ["--smoke", "--num_processes=1"]

    def test_refuses_what_is_not_a_number_of_its_own(self):
        for name in ("num_data_sets", "num_runs", "num_processes"):
            with self.subTest(name):
                self.assert_refused(f"`--{name}` must be at least 1", f"--{name}=0")
        self.assert_refused("Unknown command line flag 'alpha'", "--alpha=1")
