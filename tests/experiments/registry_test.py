"""Tests of the list of experiments: it is whole, and an experiment is added by its own files and one line of it."""

import contextlib
import io
import pathlib
import sys
import textwrap
from unittest import mock

from absl.testing import absltest, parameterized

from noisy_sgd import experiments, figures, records, studies
from noisy_sgd.experiments import batch_size_sweep, flags, registry, report, reproduce
from noisy_sgd.experiments.flags import flagfiles
from noisy_sgd.experiments.report import theory_measurements

HOME = pathlib.Path(experiments.__file__).parent

# The files of an experiment that somebody adds.
FILES = {
    "studies/random_walk.py": """
        import numpy as np

        def measure(num_steps):
            '''Mean squared distances of 1000 walks from their start.'''
            walks = np.cumsum(np.random.default_rng(0).standard_normal((1000, num_steps)), axis=1)
            means = np.mean(walks**2, axis=0)
            return [{"step": step, "squared_distance": value} for step, value in enumerate(means, start=1)]
    """,
    "figures/random_walk.py": """
        from noisy_sgd.figures import canvas

        @canvas.styled
        def draw(run, directory, name="random_walk"):
            figure, (axes,) = canvas.panels()
            axes.plot([line["squared_distance"] for line in run.metrics])
            return canvas.save(figure, run.metrics, directory, name)
    """,
    "experiments/random_walk.py": """
        import dataclasses

        from noisy_sgd.experiments import flags
        from noisy_sgd.experiments.flags import command_line
        from noisy_sgd.experiments.support import recorded_measurement, toy_experiment
        from noisy_sgd.figures import random_walk as figures
        from noisy_sgd.studies import random_walk

        @dataclasses.dataclass(frozen=True, kw_only=True)
        class Settings(toy_experiment.Settings):
            num_steps: int = 100
            run_dir: str = "runs/random_walk"

        def parse(argv):
            '''How far a random walk comes.'''
            return command_line.read(argv, parse, "walk", Settings, {"num_steps": "steps", "run_dir": "place"})

        def main(settings):
            toy_experiment.draw(run(settings), draw)

        def run(settings):
            def measured(append, advance):
                for line in random_walk.measure(settings.num_steps):
                    append(line)
                advance(1)
                return {}

            return recorded_measurement.run(settings.run_dir, settings.resolved(), measured, total=1, unit="walks")

        def draw(record, directory):
            return figures.draw(record, directory)
    """,
    "experiments/report/random_walk_claims.py": """
        from noisy_sgd.experiments.report import claims

        def linear(run):
            last = run.metrics[-1]
            ratio = last["squared_distance"] / last["step"]
            return claims.Outcome(here=f"{ratio:.2f} per step", reached=abs(ratio - 1) < 0.2)

        CLAIMS = (claims.of_run("A walk's squared distance grows by 1 per step", "1", "random_walk", "walk", linear),)
    """,
    "configs/random_walk/walk.flags": "--num_steps=50",
}


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
        folder = pathlib.Path(self.create_tempdir())
        for name, text in FILES.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
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
