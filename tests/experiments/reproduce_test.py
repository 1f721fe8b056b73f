"""Tests of the report's parts: some of them alone, one that fails, and the runs of any folder."""

import pathlib
from unittest import mock

from absl.testing import absltest

from noisy_sgd import records
from noisy_sgd.experiments import batch_size_sweep, escaping_time, registry, reproduce
from noisy_sgd.experiments.flags import flagfiles
from noisy_sgd.experiments.report import claims, imagenet_claims, paper_values, theory_measurements
from tests.experiments import toy_binary

SWEEP = "--model=mlp --hidden=8 --num_train_examples=48 --num_steps=6 --algorithm=sgd --batch_size=8,16".split()


def run_of(algorithm, size, accuracy, directory, dataset="imagenet2012"):
    described = {
        "data": {"dataset": dataset},
        "model": {"model": "nf_resnet50"},
        "algorithm": {"algorithm": algorithm, "batch_size": size, "num_steps": 72_000, "noise_std": 0.0},
        "run": {"seed": 0},
    }
    run = records.create(directory, described, privacy={})
    for step in (36_000, 72_000):
        norms = {"squared_gradient_norm": 5.0, "squared_noise_norm": 9.3}
        run.append({"step": step, "val_accuracy": accuracy, **norms})
    run.finish({"num_parameters": 25_557_032})
    return records.read(directory)


class ReproduceTest(toy_binary.Runs, absltest.TestCase):
    binary = reproduce

    def setUp(self):
        super().setUp()
        self.results = self.root / "results"
        folder = self.root / "escaping_time"
        folder.mkdir()
        (folder / "few.flags").write_text("--num_data_sets=2\n--num_runs=2\n--num_steps=100\n--num_processes=1\n")
        study = f"--study={folder}/few.flags"
        self.arguments = [*SWEEP, "--theory_share=0.02", study, f"--run_dir={self.results}"]

    def test_a_section_alone(self):
        made = []
        with (
            mock.patch.object(batch_size_sweep, "run", lambda sweep: made.append("batch_size_sweep")),
            mock.patch.object(theory_measurements, "run", lambda *arguments: made.append("theory")),
        ):
            self.run_binary(*self.arguments, "--section=escaping_time")
            self.assertEmpty(made)
            self.run_binary(*self.arguments, "--section=theory")
            self.assertEqual(made, ["theory"])
        text = (self.results / "report.md").read_text()
        self.assertIn("figures/escaping_time/few/", text)
        self.assertIn("| not run |", text, "the others' rows are there")
        _, stderr = self.run_binary(*self.arguments, "--section=pruning", status=2)
        self.assertRegex(stderr, "`--section` must list some of .*escaping_time")

    def test_a_failure_does_not_lose_the_other_sections(self):
        with (
            mock.patch.object(batch_size_sweep, "run"),
            mock.patch.object(theory_measurements.theory, "measurements", side_effect=OSError(28, "No space left")),
        ):
            with self.assertRaises(OSError, msg="a failure outside of a measurement is a bug, and is shown as one"):
                self.run_binary(*self.arguments)
        failing = [("covariance", mock.Mock(side_effect=OSError(28, "No space left")))]
        with (
            mock.patch.object(batch_size_sweep, "run"),
            mock.patch.object(theory_measurements.theory, "measurements", return_value=failing),
        ):
            _, stderr = self.run_binary(*self.arguments, status=1)
        self.assertIn("theory failed; when that is fixed", stderr)
        text = (self.results / "report.md").read_text()
        self.assertIn("Failed: The measurement failed: No space left", text)
        self.assertIn("figures/escaping_time/few/", text)
        self.assertLen(records.find(self.results / "escaping_time"), 1)

    def test_a_request_to_stop_ends_all(self):
        stopped = mock.Mock(side_effect=reproduce.flags.Ended(reproduce.endings.STOPPED, "stopped"))
        with mock.patch.object(batch_size_sweep, "run", stopped), mock.patch.object(escaping_time, "run") as later:
            self.run_binary(*self.arguments, status=reproduce.endings.STOPPED)
        later.assert_not_called()

    def test_finished_runs_of_any_folder(self):
        folder = self.root / "elsewhere"
        for size, accuracy in ((128, 0.598), (256, 0.572)):
            run_of("noisy_sgd", size, accuracy, folder / f"b{size}")
        stdout, _ = self.run_binary(f"--finished_runs={folder}", f"--run_dir={self.results}")
        self.assertRegex(stdout, "reached  ImageNet, Noisy-SGD: .*: 59.8 % at B = 128, 57.2 % at B = 256; 1 seeds")
        self.assertRegex(stdout, "not run  ImageNet, DP-SGD")
        text = (self.results / "report.md").read_text()
        self.assertIn("figures/batch_size_sweep.png", text)
        self.assertIn(str(folder), text)
        _, stderr = self.run_binary(f"--finished_runs={self.root}", f"--run_dir={self.results}", status=2)
        self.assertRegex(stderr, "`--finished_runs` must hold run directories of finished training runs")
        arguments = [f"--finished_runs={folder}", f"--run_dir={self.results}", "--num_steps=6"]
        _, stderr = self.run_binary(*arguments, status=2)
        self.assertRegex(stderr, "`--num_steps` is not read together with --finished_runs")


class RowsTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.every = [(name, path.stem) for name, study in registry.studies().items() for path in study.flagfiles]

    def test_a_report_with_all_runs_lists_what_it_does_not_run(self):
        listed = reproduce._claims(self.every)
        self.assertEqual(listed, [claim for experiment in registry.EXPERIMENTS for claim in experiment.claims])
        self.assertNotEmpty([claim for claim in listed if claim.run == "cnn"], "an overnight run")

    def test_a_report_without_one_run_lists_its_own_rows_alone(self):
        own = [run for run in self.every if run != ("batch_size_effect", "mnist")]
        names = {claim.run for claim in reproduce._claims(own) if claim.experiment == "batch_size_effect"}
        self.assertContainsSubset({"quick", "digits"}, names)
        self.assertNoCommonElements({"mnist", "cnn"}, names)

    def test_a_flagfile_of_the_package_is_named_as_it_can_be_typed(self):
        folder = flagfiles.CONFIGS / "audit"
        self.assertEqual(flagfiles.as_typed(folder / "digits.flags"), "configs/audit/digits.flags")
        self.assertEqual(flagfiles.as_typed(pathlib.Path("mine/audit/a.flags")), "mine/audit/a.flags")


class ImageNetClaimsTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.create_tempdir().full_path)
        self.claim = next(claim for claim in imagenet_claims.CLAIMS if "Noisy-SGD" in claim.text)

    def _verdict(self, difference, **options):
        expected = paper_values.FIGURE_1["noisy_sgd"][512]
        run = run_of("noisy_sgd", 512, (expected + difference) / 100, self.root / f"run{difference}", **options)
        (row,) = claims.judge_runs([self.claim], [run])
        return row.verdict

    def test_within_a_point_and_a_half(self):
        self.assertEqual(self._verdict(1.4), claims.REACHED)
        self.assertEqual(self._verdict(-1.6), claims.NOT_REACHED)
        self.assertEqual(self._verdict(0.0, dataset="digits"), claims.NOT_RUN)

    def test_at_every_batch_size(self):
        expected = paper_values.FIGURE_1["noisy_sgd"]
        runs = [run_of("noisy_sgd", size, expected[size] / 100, self.root / f"{size}") for size in (128, 256)]
        runs.append(run_of("noisy_sgd", 512, (expected[512] - 2) / 100, self.root / "512"))
        (row,) = claims.judge_runs([self.claim], runs)
        self.assertEqual(row.verdict, claims.NOT_REACHED)


if __name__ == "__main__":
    absltest.main()
