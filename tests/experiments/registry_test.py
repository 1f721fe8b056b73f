"""Tests of the list of experiments: it is whole, and an experiment is added by its own files and one line of it."""

import contextlib
import io
import pathlib
import re
import sys
from unittest import mock

from absl.testing import absltest, parameterized

from noisy_sgd import experiments, figures, records, studies
from noisy_sgd.experiments import batch_size_sweep, flags, registry, report, reproduce
from noisy_sgd.experiments.flags import flagfiles
from noisy_sgd.experiments.report import theory_measurements

HOME = pathlib.Path(experiments.__file__).parent

# The files of an experiment that somebody adds, as the manual shows them.
PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "adding.md").read_text()
FILES = dict(re.findall(r'```\w+ title="(?:noisy_sgd/)?([^"]+)"\n(.*?)```', PAGE, flags=re.DOTALL))


class RegistryTest(parameterized.TestCase):
    def test_every_experiment_that_is_run_and_drawn_is_listed(self):
        names = {path.stem for path in HOME.glob("*.py") if "\ndef run(" in path.read_text()}
        self.assertEqual(names, {one.name for one in registry.EXPERIMENTS if (HOME / f"{one.name}.py").exists()})
        self.assertLen({one.name for one in registry.EXPERIMENTS}, len(registry.EXPERIMENTS))

    @parameterized.parameters(*registry.studies())
    def test_a_study_has_binary_and_flagfiles(self, name):
        study = registry.studies()[name]
        for function in ("parse", "main", "run", "draw"):
            self.assertTrue(callable(getattr(study.binary, function)), function)
        for flagfile in study.flagfiles:
            self.assertTrue(flagfile.exists(), flagfile)

    def test_rows_are_of_their_experiment_and_differ(self):
        texts = []
        for experiment in registry.EXPERIMENTS:
            for claim in experiment.claims:
                self.assertEqual(claim.experiment, experiment.name)
                texts.append(claim.text)
        self.assertNotEmpty(texts)
        self.assertLen(set(texts), len(texts))

    def test_an_experiment_is_added_by_its_files_and_one_entry(self):
        self.assertLen(FILES, 5)
        folder = pathlib.Path(self.create_tempdir())
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        results, flagfile = folder / "results", folder / "configs/random_walk/walk.flags"
        self.addCleanup(lambda: [sys.modules.pop(name) for name in list(sys.modules) if "random_walk" in name])
        entry = registry.Experiment("random_walk", "random_walk_claims", ("walk",))
        with contextlib.ExitStack() as stack:
            for package, name in (
                (studies, "studies"),
                (figures, "figures"),
                (experiments, "experiments"),
                (report, "experiments/report"),
            ):
                stack.enter_context(mock.patch.object(package, "__path__", [*package.__path__, str(folder / name)]))
            stack.enter_context(mock.patch.object(registry, "EXPERIMENTS", (*registry.EXPERIMENTS, entry)))
            stack.enter_context(mock.patch.object(flagfiles, "CONFIGS", folder / "configs"))
            # The quick report is another test's.
            for module in (batch_size_sweep, theory_measurements):
                stack.enter_context(mock.patch.object(module, "run"))
                stack.enter_context(mock.patch.object(module, "draw", return_value=[]))
            self.assertEqual(entry.flagfiles, (flagfile,))
            stdout, stderr = io.StringIO(), io.StringIO()
            stack.enter_context(contextlib.redirect_stdout(stdout))
            stack.enter_context(contextlib.redirect_stderr(stderr))
            stack.enter_context(self.assertRaises(SystemExit))
            arguments = ["--algorithm=sgd", f"--run_dir={results}", f"--study={flagfile}"]
            flags.run(reproduce.parse, reproduce.main, ["reproduce", *arguments])
        self.assertIn("1/1 walks", stderr.getvalue())
        self.assertRegex(
            stdout.getvalue(), "  reached  A walk's squared distance grows by 1 per step: [01].* per step\n"
        )
        self.assertIn("figures/random_walk/walk/random_walk.png", (results / "report.md").read_text())
        self.assertEqual(records.read(results / "random_walk" / "walk").config, {"num_steps": 50})


if __name__ == "__main__":
    absltest.main()
