"""Every binary on images, from its command line to a drawn figure, and what it refuses."""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import re
import shutil
import signal
import tempfile
from unittest import mock

import keras
import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.data import bundled
from noisy_sgd.experiments import batch_size_sweep, benchmark, flags, registry, reproduce, train
from noisy_sgd.experiments.benchmarks import steps as benchmark_steps
from noisy_sgd.experiments.report import theory_measurements
from noisy_sgd.runs import builders, callbacks, checkpoints

SMALL = "--model=mlp --hidden=8 --num_train_examples=48 --num_steps=6 --eval_every=3 --learning_rate=0.1".split()
SWEEP = [*SMALL, "--batch_size=8,16", "--num_seeds=2", "--effective_noise=0.02", "--l2_norm_clip=1", "--ema_decay=0.5"]
ROOT = pathlib.Path(__file__).parents[2]
FLAGFILES = ("quick", "full")


class BinaryTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))

    def _run(self, parse, main, *arguments, status=0):
        """Runs a binary in this process; returns what it wrote to stdout and stderr."""
        stdout, stderr = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            with self.assertRaises(SystemExit) as caught:
                flags.run(parse, main, ["binary", *arguments])
        self.assertEqual(caught.exception.code or 0, status, stderr.getvalue())
        return stdout.getvalue(), stderr.getvalue()

    def _assert_figure(self, directory, name):
        for ending, start in ((".png", b"\x89PNG"), (".pdf", b"%PDF"), (".csv", b"algorithm,")):
            self.assertStartsWith((directory / f"{name}{ending}").read_bytes()[:10], start)


class TrainTest(BinaryTest):
    @parameterized.parameters(
        ["--algorithm=sgd"],
        ["--algorithm=noisy_sgd --effective_noise=0.02 --strategy=mirrored"],
        ["--algorithm=dp_sgd --noise_multiplier=2 --l2_norm_clip=1 --microbatch_size=4"],
    )
    def test_records_a_run_and_draws_it(self, options):
        directory = self.root / "run"
        arguments = [*SMALL, "--batch_size=8", *options.split(), f"--run_dir={directory}"]
        stdout, stderr = self._run(flags.train, train.main, *arguments)
        self.assertIn("6/6 steps", stderr)
        self.assertIn(str(directory), stdout)
        record = records.read(directory)
        private = record.config["algorithm"]["algorithm"] == "dp_sgd"
        self.assertEqual(record.status, records.FINISHED)
        self.assertIn("Guaranteed" if private else "No privacy guarantee", record.privacy["text"])
        self.assertIn(record.privacy["text"], stdout)
        self.assertEqual(record.results["num_parameters"], 64 * 8 + 8 + 8 * 10 + 10)
        epochs = [line for line in record.metrics if "val_accuracy" in line]
        self.assertEqual([line["step"] for line in epochs], [3, 6])
        self.assertEqual("loss" in epochs[0], not private, "a private run records no training loss")
        norms = [line for line in record.metrics if "squared_noise_norm" in line]
        self.assertLen(norms, 2 if record.config["algorithm"]["algorithm"] == "noisy_sgd" else 0)
        self.assertNotEmpty(list((directory / "tensorboard").rglob("events.*")))
        self._assert_figure(directory / "figures", "test_accuracy")
        self.assertIn(f"model: {directory}/model.keras\n", stdout)

    def test_the_trained_network_can_be_taken_away(self):
        directory = self.root / "run"
        self._run(flags.train, train.main, *SMALL, "--batch_size=8", "--ema_decay=0.9", f"--run_dir={directory}")
        images = bundled.load("digits")
        results = records.read(directory).results
        for name, accuracy in (("model.keras", "val_accuracy"), ("model_ema.keras", "val_ema_accuracy")):
            model = keras.models.load_model(directory / name)
            predicted = np.argmax(model(images.test_images), axis=-1)
            self.assertAlmostEqual(np.mean(predicted == images.test_labels), results[accuracy], places=6)
        more = [f"--model={directory}/model_ema.keras", "--num_train_examples=48", "--num_steps=1", "--batch_size=8"]
        self._run(flags.train, train.main, *more, f"--run_dir={self.root}/more")

    def test_a_finished_run_is_drawn_not_run(self):
        directory = self.root / "run"
        arguments = [*SMALL, "--batch_size=8", f"--run_dir={directory}"]
        self._run(flags.train, train.main, *arguments)
        before = (directory / "metrics.jsonl").stat().st_mtime_ns
        (directory / "figures" / "test_accuracy.png").unlink()
        stdout, stderr = self._run(flags.train, train.main, *arguments)
        self.assertIn("finished", stdout)
        self.assertEqual((directory / "metrics.jsonl").stat().st_mtime_ns, before)
        self._assert_figure(directory / "figures", "test_accuracy")
        _, stderr = self._run(flags.train, train.main, *arguments, "--noresume", status=2)
        self.assertRegex(stderr, "`--resume` cannot be off for a finished run")

    @parameterized.parameters(signal.SIGTERM, signal.SIGINT)
    def test_a_signal_stops_the_run_and_the_same_command_goes_on(self, number):
        options = "--algorithm=dp_sgd --noise_multiplier=2 --l2_norm_clip=1 --batch_size=8 --sampling=poisson"
        arguments = [*SMALL, *options.split(), f"--run_dir={self.root}/run"]
        progress = callbacks.Progress.on_train_batch_end

        def preempted(self, batch, logs=None):
            progress(self, batch, logs)
            if batch == 2:
                os.kill(os.getpid(), number)

        handlers = [signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)]
        with mock.patch.object(callbacks.Progress, "on_train_batch_end", preempted):
            _, stderr = self._run(flags.train, train.main, *arguments, status=75)
        self.assertEqual([signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)], handlers)
        self.assertIn("stopped after step 3; the same command goes on from there", stderr)
        self.assertEqual(records.read(self.root / "run").status, records.RUNNING)
        stdout, _ = self._run(flags.train, train.main, *arguments)
        self.assertIn("The run continues from step 3, bit for bit.", stdout)
        self.assertEqual(records.read(self.root / "run").results["step"], 6)

    def test_an_interrupt_before_the_first_step_is_one_sentence(self):
        with mock.patch.object(builders, "build", side_effect=KeyboardInterrupt):
            stdout, stderr = self._run(flags.train, train.main, f"--run_dir={self.root}/run", status=130)
        self.assertRegex(stderr, "^[^\n]*: interrupted.\n$")
        self.assertEmpty(os.listdir(self.root))

    def test_private_metrics_are_shown_where_that_is_asked_for_and_stay_out_of_the_record(self):
        options = "--algorithm=dp_sgd --noise_multiplier=2 --l2_norm_clip=1 --batch_size=8".split()
        shown = []
        for folder, more in (("a", []), ("b", ["--show_private_metrics"])):
            directory = self.root / folder
            _, stderr = self._run(flags.train, train.main, *SMALL, *options, *more, f"--run_dir={directory}")
            self.assertIn("epsilon", stderr)
            shown.append("loss" in stderr)
            self.assertNotIn('"loss"', (directory / "metrics.jsonl").read_text())
            lines = [json.loads(line) for line in (directory / "private" / "metrics.jsonl").read_text().splitlines()]
            self.assertEqual([line["step"] for line in lines], [3, 6])
            self.assertContainsSubset({"loss", "accuracy", "fraction_clipped", "non_finite_examples"}, lines[0])
        self.assertEqual(shown, [False, True])
        written = [b"".join(p.read_bytes() for p in (self.root / f / "tensorboard").rglob("events.*")) for f in "ab"]
        self.assertEqual([b"fraction_clipped" in one for one in written], [False, True])

    def test_a_checkpoint_that_cannot_be_written_is_one_sentence(self):
        arguments = [*SMALL, "--batch_size=8", f"--run_dir={self.root}/run"]
        refused = ValueError("checkpoints/step_00000006.npz cannot be written: No space left on device")
        with mock.patch.object(checkpoints, "save", side_effect=refused):
            _, stderr = self._run(flags.train, train.main, *arguments, status=1)
        self.assertRegex(stderr, "The run failed: .*No space left on device. When that is fixed, .*\n$")
        self.assertNotIn("Traceback", stderr)
        self._run(flags.train, train.main, *arguments)

    def test_a_noise_seed_is_said_to_void_the_guarantee(self):
        arguments = [*SMALL, "--algorithm=dp_sgd", "--noise_multiplier=2", "--l2_norm_clip=1", "--noise_seed=1"]
        stdout, _ = self._run(flags.train, train.main, *arguments, f"--run_dir={self.root}/run", "--batch_size=8")
        self.assertIn("No privacy guarantee: the noise can be recomputed", stdout)

    @parameterized.parameters(
        (["--num_train_examples=48", "--batch_size=49"], "`--batch_size` must be at most the 48 examples"),
        (["--num_train_examples=2000"], "1437"),
        (["--model=nowhere.keras"], "nowhere.keras"),
        (["--algorithm=noisy_sgd", "--noise_multiplier=-1"], "`--noise_multiplier` must be at least 0"),
        (
            "--algorithm=dp_sgd --noise_multiplier=1 --l2_norm_clip=1 --max_epsilon=0.001".split(),
            r"`--max_epsilon` must be at least [\d.]+ to allow one step",
        ),
        (["--checkpoint_dir=/dev/null/checkpoints"], "/dev/null/checkpoints cannot be written: Not a directory"),
        (["--checkpoint_dir=nowhere://checkpoints"], "nowhere://checkpoints cannot be written: .*not implemented"),
    )
    def test_bad_input_is_one_sentence_status_2_and_nothing_written(self, arguments, message):
        stdout, stderr = self._run(flags.train, train.main, *arguments, f"--run_dir={self.root}/run", status=2)
        self.assertRegex(stderr, message)
        self.assertEqual(stderr.count("\n"), 1, stderr)
        self.assertEmpty(stdout)
        self.assertEmpty(os.listdir(self.root))

    def test_labels_out_of_range_are_refused_before_training(self):
        generator = np.random.default_rng(0)
        images, labels = generator.integers(0, 256, (60, 28, 28), np.uint8), np.arange(60) % 12
        np.savez(self.root / "mnist.npz", x_train=images, y_train=labels, x_test=images[:5], y_test=labels[:5])
        arguments = ["--dataset=mnist", f"--data_dir={self.root}", "--model=mlp", f"--run_dir={self.root}/run"]
        stdout, stderr = self._run(flags.train, train.main, *arguments, status=2)
        self.assertRegex(stderr, "`--data_dir` must hold MNIST as Keras has it: y_train .* its label 10 is 10[^\n]*\n$")
        self.assertEmpty(stdout)
        self.assertEqual(os.listdir(self.root), ["mnist.npz"])

    def test_what_an_operation_refuses_in_training_is_said(self):
        arguments = [*SMALL, "--batch_size=8", f"--run_dir={self.root}/run"]
        images = bundled.load("digits", train_size=48)
        wrong = dataclasses.replace(images, train_labels=images.train_labels + 10)
        with mock.patch.object(bundled, "load", return_value=wrong):
            _, stderr = self._run(flags.train, train.main, *arguments, status=1)
        self.assertRegex(stderr, "The run failed: Received a label value of [^\n]*\n$")

    def test_a_negative_seed_is_a_seed(self):
        for name in ("a", "b"):
            more = ["--algorithm=noisy_sgd", "--effective_noise=0.1", "--seed=-3", f"--run_dir={self.root}/{name}"]
            self._run(flags.train, train.main, *SMALL, "--batch_size=8", *more)
        self.assertEqual(*((self.root / name / "metrics.jsonl").read_bytes() for name in ("a", "b")))

    def test_a_private_umask_is_kept(self):
        before = os.umask(0o077)
        try:
            self._run(flags.train, train.main, *SMALL, "--batch_size=8", f"--run_dir={self.root}/run")
        finally:
            os.umask(before)
        for path in (self.root / "run").rglob("*"):
            self.assertFalse(path.stat().st_mode & 0o077, path)

    def test_a_saved_model_is_fed_what_is_said(self):
        inputs = keras.Input((8, 8, 1))
        keras.Model(inputs, keras.layers.Dense(10)(keras.layers.Flatten()(inputs))).save(self.root / "mine.keras")
        arguments = [f"--model={self.root}/mine.keras", "--num_train_examples=48", "--num_steps=2", "--batch_size=8"]
        stdout, _ = self._run(flags.train, train.main, *arguments, f"--run_dir={self.root}/run")
        self.assertRegex(stdout, "mine.keras gets pixels from 0 to 1, scaled from the data's range, 0 to 16; set ")
        self.assertEqual(records.read(self.root / "run").config["model"]["pixel_range"], "auto")

    def test_batch_normalization_is_refused(self):
        path = self.root / "mine.keras"
        layers = [keras.layers.Flatten(), keras.layers.BatchNormalization(), keras.layers.Dense(10)]
        inputs = x = keras.Input((8, 8, 1))
        for layer in layers:
            x = layer(x)
        keras.Model(inputs, x).save(path)
        _, stderr = self._run(flags.train, train.main, f"--model={path}", f"--run_dir={self.root}/run", status=2)
        self.assertRegex(stderr, "BatchNormalization.*GroupNormalization")
        self.assertEqual(stderr.count("\n"), 1, stderr)
        self.assertEqual(os.listdir(self.root), ["mine.keras"])

    def test_a_file_in_the_place_of_the_directory_is_refused(self):
        (self.root / "file").write_text("")
        _, stderr = self._run(flags.train, train.main, f"--run_dir={self.root}/file/run", status=2)
        self.assertIn("is a file", stderr)
        self.assertEqual(stderr.count("\n"), 1, stderr)

    def test_a_directory_with_another_run_is_refused(self):
        arguments = [*SMALL, "--batch_size=8", f"--run_dir={self.root}/run"]
        self._run(flags.train, train.main, *arguments)
        _, stderr = self._run(flags.train, train.main, *arguments, "--seed=1", status=2)
        self.assertIn("run.seed is 0 there and 1 here", stderr)

    def test_a_dry_run_states_what_would_be_done_and_writes_nothing(self):
        directory = self.root / "run"
        arguments = [*SMALL, "--batch_size=8", "--algorithm=dp_sgd", "--noise_multiplier=2", "--l2_norm_clip=1"]
        arguments += ["--max_epsilon=5", f"--run_dir={directory}"]
        stdout, _ = self._run(flags.train, train.main, *arguments, "--num_steps=600", "--dry_run")
        for found in (
            "learning_rate=0.1",
            r"6\d\d weights",
            "48 training examples",
            r"steps: \d+ of 600",
            "Guaranteed: ",
        ):
            self.assertRegex(stdout, found)
        self.assertEmpty(os.listdir(self.root))
        steps = int(re.search(r"steps: (\d+) of", stdout)[1])
        self.assertBetween(steps, 6, 599, "the budget ends it")
        stdout_of_run, _ = self._run(flags.train, train.main, *arguments, "--num_steps=600", "--eval_every=600")
        self.assertIn(f"allows {steps} of the 600 steps", stdout_of_run)


class SweepTest(BinaryTest):
    def test_records_every_run_and_draws_the_figures(self):
        stdout, _ = self._run(flags.batch_size_sweep, batch_size_sweep.main, *SWEEP, f"--run_dir={self.root}/sweep")
        runs = records.find(self.root / "sweep")
        self.assertLen(runs, 3 * 2 * 2)
        for name in ("batch_size_sweep", "batch_size_sweep_curves", "gradient_and_noise_norms"):
            self._assert_figure(self.root / "sweep" / "figures", name)
        self.assertIn("dp_sgd, batch size 8: Guaranteed", stdout)
        finals = {(r.config["algorithm"]["algorithm"], r.config["run"]["seed"]): r.results["val_loss"] for r in runs}
        self.assertLen(set(finals.values()), len(finals), "algorithms and seeds differ")

    def test_other_settings_in_the_same_place_are_refused_before_anything_runs(self):
        arguments = [*SWEEP, "--algorithm=sgd", "--batch_size=8", f"--run_dir={self.root}/sweep"]
        self._run(flags.batch_size_sweep, batch_size_sweep.main, *arguments)
        _, stderr = self._run(flags.batch_size_sweep, batch_size_sweep.main, *arguments, "--learning_rate=1", status=2)
        self.assertIn("algorithm.learning_rate is 0.1 there and 1.0 here", stderr)


class ReproduceTest(BinaryTest):
    def test_resumes_and_then_only_redraws(self):
        results = self.root / "results"
        arguments = [*SWEEP, "--algorithm=sgd,noisy_sgd", "--theory_share=0.02", f"--run_dir={results}"]
        stdout, stderr = self._run(reproduce.parse, reproduce.main, *arguments)
        self.assertIn("0 of 8 runs are finished", stdout)
        self.assertIn("17/17 measurements", stderr)
        report = (results / "report.md").read_text()
        for verdict in ("reached", "-2.9 per doubling", "figures/batch_size_sweep.png", "prints sigma^2 / 4"):
            self.assertIn(verdict, report)
        trends = "DP-SGD, which was left out, and the trends, which need three batch sizes"
        self.assertEqual(report.count("| not run |"), 4, trends)
        for name in ("least_squares_covariance", "theorem_1", "diagonal_linear_order"):
            self.assertIn(f"figures/{name}.png", report)
            self.assertStartsWith((results / "figures" / f"{name}.png").read_bytes(), b"\x89PNG")
        self.assertIn("data:image/png;base64", (results / "report.html").read_text())

        shutil.rmtree(results / "batch_size_sweep" / "sgd-batch_8-seed_1")
        stdout, _ = self._run(reproduce.parse, reproduce.main, *arguments)
        self.assertIn("7 of 8 runs are finished", stdout)
        # The run that was made again may have taken another time.
        again = (results / "report.md").read_text()
        self.assertEqual(*(re.sub(r"\d+ seconds", "SECONDS", text) for text in (again, report)))

        (results / "report.md").unlink()
        stdout, stderr = self._run(reproduce.parse, reproduce.main, *arguments)
        self.assertIn("8 of 8 runs are finished", stdout)
        self.assertEmpty(stderr, "nothing is trained")
        self.assertEqual((results / "report.md").read_text(), again)

    def test_runs_studies_and_judges_their_figures(self):
        study = self.root / "diagonal_linear" / "figure_5.flags"
        study.parent.mkdir()
        study.write_text(f"--flagfile={ROOT}/configs/diagonal_linear/figure_5.flags\n--num_steps=40\n--num_runs=2\n")
        results = self.root / "results"
        arguments = [*SWEEP, "--algorithm=sgd", "--batch_size=8", "--theory_share=0.02", f"--run_dir={results}"]
        stdout, _ = self._run(reproduce.parse, reproduce.main, *arguments, f"--study={study}")
        self.assertRegex(stdout, "reached  Figure 5")
        self.assertNotIn("Figure 7", stdout, "its run is not part of this report")
        self.assertIn("figures/diagonal_linear/figure_5/figure_5.png", (results / "report.md").read_text())
        self.assertEqual(records.find(results / "diagonal_linear")[0].status, records.FINISHED)

    def test_each_study_of_an_experiment_has_figures_of_its_own(self):
        results, folder = self.root / "results", self.root / "sde_error"
        folder.mkdir()
        for name, noise_scale in (("weak_noise", 0.1), ("strong_noise", 0.5)):
            (folder / f"{name}.flags").write_text(f"--num_paths=3\n--noise_scale={noise_scale}\n")
        arguments = ["--algorithm=sgd", f"--run_dir={results}"]
        arguments.append(f"--study={folder}/weak_noise.flags,{folder}/strong_noise.flags")
        # The quick report is another test's.
        with contextlib.ExitStack() as stack:
            for module in (batch_size_sweep, theory_measurements):
                stack.enter_context(mock.patch.object(module, "run"))
                stack.enter_context(mock.patch.object(module, "draw", return_value=[]))
            self._run(reproduce.parse, reproduce.main, *arguments)
        report, tables = (results / "report.md").read_text(), []
        for name in ("weak_noise", "strong_noise"):
            drawn = f"figures/sde_error/{name}/sde_strong_error"
            self.assertIn(f"({drawn}.png)", report)
            self.assertStartsWith((results / f"{drawn}.png").read_bytes(), b"\x89PNG")
            tables.append((results / f"{drawn}.csv").read_text())
        self.assertNotEqual(*tables)

    @parameterized.parameters(
        ("configs/reproduce/quick.flags", "`--study` must lie in a folder .*diagonal_linear"),
        ("nowhere/diagonal_linear/figure_3.flags", "nowhere/diagonal_linear/figure_3.flags"),
    )
    def test_refuses_a_study(self, study, message):
        _, stderr = self._run(reproduce.parse, reproduce.main, *SWEEP, f"--study={study}", status=2)
        self.assertRegex(stderr, message)
        self.assertEqual(stderr.count("\n"), 1, stderr)

    def test_the_full_flagfile_adds_studies_to_the_quick_one(self):
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(ROOT)
        quick, full = (reproduce.parse(["reproduce", f"--flagfile=configs/reproduce/{n}.flags"]) for n in FLAGFILES)
        self.assertEqual((full.sweep, full.theory), (quick.sweep, quick.theory))
        places = [study.settings.run_dir for study in full.studies]
        for experiment in registry.studies().values():
            expected = [f"results/{experiment.name}/{name}" for name in experiment.reported]
            self.assertEqual([place for place in places if place.startswith(f"results/{experiment.name}/")], expected)
            self.assertTrue(expected or not experiment.claims, "the full report decides every row")

    def test_studies_read_images_from_the_reports_folder(self):
        own = self.root / "pruning" / "own.flags"
        own.parent.mkdir()
        own.write_text("--dataset=mnist\n--data_dir=own\n")
        flagfiles = [f"{ROOT}/configs/batch_size_effect/{name}.flags" for name in ("mnist", "digits")]
        flagfiles += [f"{ROOT}/configs/{name}/mnist.flags" for name in ("private_optimizers", "tan_search")]
        flagfiles += [f"{ROOT}/configs/landscape/images.flags", f"{ROOT}/configs/sde_error/orders.flags", str(own)]
        arguments = ["reproduce", *SWEEP, f"--study={','.join(flagfiles)}"]
        studies = reproduce.parse([*arguments, "--data_dir=F"]).studies
        read = [getattr(study.settings, "data_dir", "-") for study in studies]
        self.assertEqual(read, ["F", None, "F", "F", "F", "-", "own"])
        read = [getattr(study.settings, "data_dir", "-") for study in reproduce.parse(arguments).studies]
        self.assertEqual(read, [None, None, None, None, None, "-", "own"])

    def test_another_theory_in_the_same_place_is_refused_before_anything_runs(self):
        theory_run = records.create(self.root / "theory" / "run", {"share": 1.0}, privacy="none")
        theory_run.finish({})
        _, stderr = self._run(reproduce.parse, reproduce.main, *SWEEP, f"--run_dir={self.root}", status=2)
        self.assertIn("`--run_dir` holds another run", stderr)
        self.assertEqual(os.listdir(self.root), ["theory"])

    def test_the_quick_flagfile_is_figure_1s_protocol(self):
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(ROOT)
        sweep = reproduce.parse(["reproduce", "--flagfile=configs/reproduce/quick.flags"]).sweep
        settings = [one.training for one in sweep.runs.values()]
        sizes = sorted({one.batch_size for one in settings})
        self.assertLen(sweep.runs, 75)
        self.assertEqual([large / small for small, large in zip(sizes, sizes[1:], strict=False)], [2.0] * 4)
        self.assertLen({(one.num_steps, one.learning_rate) for one in settings}, 1)
        for algorithm in ("noisy_sgd", "dp_sgd"):
            stds = [one.noise_std for one in settings if one.algorithm == algorithm]
            self.assertAlmostEqual(max(stds), min(stds), places=12)


class BenchmarkTest(BinaryTest):
    def test_prints_a_line_a_case(self):
        stdout, _ = self._run(
            flags.benchmark, benchmark.main, "--workload=mnist_cnn", "--batch_size=4", "--num_rounds=3"
        )
        lines = [json.loads(line) for line in stdout.splitlines()]
        self.assertEqual([line["algorithm"] for line in lines], ["sgd", "noisy_sgd", "dp_sgd"])
        for line in lines:
            self.assertAlmostEqual(line["examples_per_s"] * line["median_ms"] / 4000, 1.0, places=2)
            self.assertAlmostEqual(line["ratio_to_sgd"], line["median_ms"] / lines[0]["median_ms"], places=2)
            used = line["processor_ms"] / lines[0]["processor_ms"]
            self.assertAlmostEqual(line["processor_ratio_to_sgd"], used, places=2)
            self.assertGreater(line["processor_ms"], 0)
            self.assertEqual((line["workload"], line["batch_size"], line["rounds"]), ("mnist_cnn", 4, 3))
            # The weights, 104 KB in float32, at the least. Without oneDNN TensorFlow counts nothing.
            if line["peak_tensors_mib"] is not None:
                self.assertGreater(line["peak_tensors_mib"], 0.1)
                self.assertLess(line["peak_tensors_mib"], 100)

    def test_a_finished_benchmark_is_drawn_without_a_step(self):
        arguments = ["--workload=nf_resnet50", "--batch_size=2", "--num_rounds=2", "--algorithm=sgd,dp_sgd"]
        arguments.append(f"--run_dir={self.root}/benchmark")
        peaks = {"peak_memory_mib": None, "peak_tensors_mib": 1.0}
        step, figures = mock.Mock(), self.root / "benchmark" / "figures"
        with (
            mock.patch.object(benchmark_steps, "compiled", return_value=(step, None)),
            mock.patch.object(benchmark, "peaks", return_value=peaks),
        ):
            self._run(flags.benchmark, benchmark.main, *arguments)
            self.assertEqual(step.call_count, 2 * (2 + 2))
            record = records.read(self.root / "benchmark" / "nf_resnet50")
            self.assertEqual(record.status, records.FINISHED)
            self.assertNotIn("run_dir", record.config)
            shutil.rmtree(figures)
            (self.root / "benchmark").rename(self.root / "moved")
            stdout, _ = self._run(flags.benchmark, benchmark.main, *arguments[:-1], f"--run_dir={self.root}/moved")
            self.assertEqual(step.call_count, 2 * (2 + 2))
            self.assertIn("nf_resnet50 is finished", stdout)
            self.assertStartsWith((self.root / "moved" / "figures" / "speed.png").read_bytes(), b"\x89PNG")
            other = [*arguments[:-1], "--num_rounds=3", f"--run_dir={self.root}/moved"]
            _, stderr = self._run(flags.benchmark, benchmark.main, *other, status=2)
            self.assertIn("num_rounds is 2 there and 3 here", stderr)


if __name__ == "__main__":
    absltest.main()
