import contextlib
import dataclasses
import importlib
import io
import math
import os
import pathlib
import subprocess
import sys
import tempfile
import textwrap

from absl.testing import absltest, parameterized

from noisy_sgd import config, privacy
from noisy_sgd.experiments import flags, reproduce
from noisy_sgd.experiments.benchmarks import cases
from noisy_sgd.experiments.flags import command_line, flagfiles
from noisy_sgd.experiments.support import console

ROOT = pathlib.Path(__file__).parents[2]
NEEDED = ("--algorithm=dp_sgd", "--noise_multiplier=1", "--l2_norm_clip=1")


def _refused(test, parse, *arguments):
    """Runs a binary that must refuse its arguments; returns the sentence."""
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), test.assertRaises(SystemExit) as caught:
        flags.run(parse, lambda _: test.fail("it ran"), ["binary", *arguments])
    test.assertEqual(caught.exception.code, 2)
    sentence = stderr.getvalue()
    test.assertEqual(sentence.count("\n"), 1, sentence)
    return sentence


def _help(test, parse, name="binary", flag="--helpfull"):
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout), test.assertRaises(SystemExit) as caught:
        parse([name, flag])
    test.assertEqual(caught.exception.code, 0)
    return stdout.getvalue()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Settings:
    sizes: tuple[int, ...] = (16, 32)
    rates: tuple[float, ...] = (0.5,)
    names: tuple[str, ...] = ("first",)
    count: int = 100
    run_dir: str = "runs/tried"

    unread = {}


def _read(*arguments):
    helps = dict.fromkeys(("sizes", "rates", "names", "count", "run_dir"), "a flag")
    smoke = {"sizes": (2,), "count": 1}
    return command_line.read(["tried", *arguments], _read, "tried", _Settings, helps, smoke=smoke)


class ReadTest(absltest.TestCase):
    def test_tuples_are_lists_of_their_kind(self):
        self.assertEqual(_read(), _Settings())
        read = _read("--sizes=1,2", "--rates=0.25,3", "--names=a,b")
        self.assertEqual(read, _Settings(sizes=(1, 2), rates=(0.25, 3.0), names=("a", "b")))
        self.assertIn("must list whole numbers", _refused(self, lambda argv: _read(*argv[1:]), "--sizes=1,x"))

    def test_smoke_takes_small_values_and_a_directory_of_its_own(self):
        self.assertEqual(_read("--smoke"), _Settings(sizes=(2,), count=1, run_dir="runs/tried_smoke"))
        self.assertEqual(_read("--smoke", "--run_dir=here", "--rates=1").run_dir, "here")

    def test_smoke_overrules_a_flagfile_and_no_typed_flag(self):
        path = pathlib.Path(self.create_tempdir(), "some.flags")
        path.write_text("--sizes=64\n--count=50\n--rates=3\n--run_dir=runs/filed\n")
        for arguments in ((f"--flagfile={path}",), ("-flagfile", str(path))):
            found = _read("--smoke", "--count=0", *arguments)
            self.assertEqual(found, _Settings(sizes=(2,), count=0, rates=(3.0,), run_dir="runs/filed_smoke"))
            self.assertEqual(_read(*arguments, "--run_dir=here", "--smoke").run_dir, "here")


class TrainTest(parameterized.TestCase):
    def test_defaults(self):
        made = flags.train(["train"])
        self.assertEqual(made.training, config.Training())
        self.assertEqual(made.run.run_dir, "runs/digits-nf_resnet_tiny-sgd-batch_64-seed_0")

    def test_every_flag_arrives(self):
        made = flags.train(
            "train --dataset=mnist --data_dir=there --num_train_examples=500 --label_noise=0.1 --model=mlp "
            "--hidden=8,4 --algorithm=dp_sgd --ema_decay=0.9 "
            "--batch_size=32 --microbatch_size=8 --num_steps=10 --learning_rate=0.25 --momentum=0.5 "
            "--noise_multiplier=2 --l2_norm_clip=3 --delta=1e-6 --noise_seed=4 --run_dir=here --seed=6 "
            "--strategy=mirrored --logical_devices=2 --eval_every=5 --augmentation=flip_and_crop --precision=bfloat16 "
            "--sampling=poisson --target_quantile=0.4 --augmentation_multiplicity=3 --max_epsilon=7 --noresume "
            "--checkpoint_dir=gs://there --checkpoint_every=20 --checkpoint_minutes=inf --keep_checkpoints=2 "
            "--show_private_metrics".split()
        )
        training = config.Training(
            algorithm="dp_sgd",
            batch_size=32,
            microbatch_size=8,
            num_steps=10,
            learning_rate=0.25,
            momentum=0.5,
            ema_decay=0.9,
            noise_multiplier=2.0,
            l2_norm_clip=3.0,
            noise_seed=4,
            delta=1e-6,
            sampling="poisson",
            target_quantile=0.4,
            augmentation_multiplicity=3,
            max_epsilon=7.0,
        )
        run = config.Run(
            run_dir="here",
            seed=6,
            strategy="mirrored",
            logical_devices=2,
            eval_every=5,
            resume=False,
            checkpoint_dir="gs://there",
            checkpoint_every=20,
            checkpoint_minutes=math.inf,
            keep_checkpoints=2,
            show_private_metrics=True,
        )
        data = config.Data(
            dataset="mnist", data_dir="there", num_train_examples=500, label_noise=0.1, augmentation="flip_and_crop"
        )
        model = config.Model(model="mlp", hidden=(8, 4), precision="bfloat16")
        self.assertEqual(made, config.Config(data=data, model=model, training=training, run=run))

    @parameterized.parameters(
        (["--dataset=imagenet2012", "--image_size=64"], "data", "image_size", 64),
        (["--strategy=tpu", "--tpu=node-1"], "run", "tpu", "node-1"),
        (["--strategy=multi_worker"], "run", "strategy", "multi_worker"),
        ([*NEEDED, "--clipping=per_layer"], "training", "clipping", "per_layer"),
        (
            [*NEEDED, "--sampling=cyclic", "--noise_correlation=1,-0.9"],
            "training",
            "noise_correlation",
            "1,-0.9",
        ),
        (["--resume"], "run", "resume", True),
        ([], "run", "checkpoint_minutes", 10.0),
    )
    def test_a_flag_arrives(self, arguments, group, name, expected):
        self.assertEqual(getattr(getattr(flags.train(["train", *arguments]), group), name), expected)

    def test_every_setting_has_a_flag_that_is_explained(self):
        text = _help(self, flags.train)
        for group in (config.Data, config.Model, config.Training, config.Run):
            for field in dataclasses.fields(group):
                self.assertRegex(text, rf"\n  --(\[no\])?{field.name}(=\S+)?:\s+\w")

    @parameterized.parameters(
        (["--batch_size=0"], "`--batch_size` must be at least 1"),
        (["--batch_size=10", "--microbatch_size=4"], "multiple of `--microbatch_size`=4"),
        (["--batch_size=many"], "--batch_size=many"),
        (["--algorithm=noisy_sgd", "--noise_multiplier=-1"], "`--noise_multiplier` must be at least 0"),
        (["--algorithm=noisy_sgd", "--noise_multiplier=1", "--effective_noise=0.1"], "give one of them"),
        (["--dataset=imagnet"], "`--dataset` must be one of digits"),
        (["--model=resnet"], "`--model` must be one of"),
        (["--algorithm=dp_sgd", "--noise_multiplier=1"], "`--l2_norm_clip` is needed"),
        (["--batchsize=64"], "Unknown command line flag 'batchsize'. Did you mean: batch_size"),
        (["64"], "two dashes.*64"),
        (["--flagfile=nowhere.flags"], "nowhere.flags"),
        (["--num_seeds=3"], "Unknown command line flag 'num_seeds'"),
        (["--strategy=tpu"], "`--tpu` is needed by `--strategy=tpu`"),
        (["--strategy=horovod"], "`--strategy` must be one of default, mirrored, multi_worker, tpu"),
        (["--tpu=node-1"], "`--tpu` means nothing to `--strategy=default`"),
        (["--sampling=uniform"], "`--sampling` must be one of shuffled, poisson"),
        (["--clipping=automatic"], "`--clipping` means nothing to sgd"),
        ([*NEEDED, "--clipping=automatic", "--target_quantile=0.5"], "`--target_quantile` cannot go with"),
        ([*NEEDED, "--target_quantile=2"], "`--target_quantile` must lie between 0 and 1"),
        ([*NEEDED, "--max_epsilon=-1"], "`--max_epsilon` must be positive"),
        ([*NEEDED, "--noise_correlation=lambda_cgd:0.9"], "`--sampling` must be cyclic with `--noise_correlation`"),
        ([*NEEDED, "--sampling=cyclic", "--noise_correlation=0.9:lambda"], "`--noise_correlation` names no kind"),
        (["--max_epsilon=1"], "`--max_epsilon` means nothing to sgd"),
        (["--augmentation=mixup"], "`--augmentation` must be one of none, crop, flip_and_crop"),
        (["--augmentation_multiplicity=2"], "`--augmentation_multiplicity` above 1 needs an augmentation"),
        (["--precision=float16"], "`--precision` must be one of float32, bfloat16"),
        (["--model=some.keras", "--precision=bfloat16"], "`--precision` cannot be given to a saved model"),
        (["--image_size=64"], "`--image_size` means nothing to digits"),
        (["--dataset=imagenet2012", "--label_noise=0.1"], "`--label_noise` is not offered for imagenet2012"),
        (["--checkpoint_every=0"], "`--checkpoint_every` must be at least 1"),
        (["--checkpoint_minutes=0"], "`--checkpoint_minutes` must be positive"),
        (["--keep_checkpoints=0"], "`--keep_checkpoints` must be at least 1"),
        (["--resume=perhaps"], "--resume=perhaps"),
        (["--model=mlp", "--hidden="], "`--hidden` needs `--model=mlp` and one or more positive whole numbers"),
        (["--run_dir="], "`--run_dir` must not be empty"),
        (["--num_steps=99999999999999999999"], "`--num_steps` must be at most 2147483647"),
        (["--model=mine.keras", "--pixel_range=1,0"], "`--pixel_range` must be raw, auto, or two rising numbers"),
        (["--show_private_metrics"], "`--show_private_metrics` means nothing to sgd"),
    )
    def test_bad_input_is_one_sentence_and_status_2(self, arguments, message):
        self.assertRegex(_refused(self, flags.train, *arguments), message)

    def test_flagfiles_are_found_from_any_folder_and_inside_each_other(self):
        root = self.create_tempdir()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(root.full_path)
        inner = root.create_file("inner.flags", "# comment\n\n--num_steps=7\n--batch_size=16\n").full_path
        outer = root.create_file("outer.flags", f"--flagfile={inner}\n--batch_size=32\n").full_path
        self.assertEqual(
            flagfiles.expanded(["train", "--flagfile", outer, "--seed=1"]),
            ["train", "--num_steps=7", "--batch_size=16", "--batch_size=32", "--seed=1"],
        )
        packaged = flagfiles.expanded(["train", "--flagfile=configs/train/digits_dp_sgd.flags"])
        self.assertIn("--algorithm=dp_sgd", packaged)
        pathlib.Path(inner).write_text(f"--flagfile={outer}\n")
        with self.assertRaisesRegex(config.ConfigError, "`--flagfile` must not name itself"):
            flagfiles.expanded(["train", f"--flagfile={outer}"])

    def test_a_flagfile_is_read_and_what_follows_it_wins(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "some.flags"
            path.write_text("# a comment\n--batch_size=32\n--num_steps=7\n")
            made = flags.train(["train", f"--flagfile={path}", "--num_steps=8"])
        self.assertEqual((made.training.batch_size, made.training.num_steps), (32, 8))

    def test_a_refused_command_line_writes_nothing(self):
        command = [sys.executable, "-m", "noisy_sgd.experiments.train", "--run_dir=run", "--checkpoint_dir=kept"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with tempfile.TemporaryDirectory() as directory:
            ended = subprocess.run(
                [*command, "--strategy=tpu"],
                cwd=directory,
                env=environment,
                capture_output=True,
                text=True,
                check=False,
            )
            self.assertEqual(os.listdir(directory), [])
        self.assertEqual((ended.returncode, ended.stdout), (2, ""))
        self.assertRegex(ended.stderr, r"^train: `--tpu` is needed by `--strategy=tpu`[^\n]*\n$")

    def test_help_names_its_groups_and_ends_well(self):
        text = _help(self, flags.train)
        self.assertStartsWith(text, "binary: One training run.\n", "it is named as it was called")
        titles = [line for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
        self.assertContainsSubset(["data:", "network:", "training:", "privacy, for dp_sgd:", "checkpoints:"], titles)

    @parameterized.parameters(*sorted(console.binaries()))
    def test_help_fits_a_screen_and_shows_a_command_that_parses(self, name):
        binary = importlib.import_module(f"noisy_sgd.experiments.{name}")
        lines = _help(self, binary.parse, name, "--help").splitlines()
        self.assertLessEqual(len(lines), 40)
        (place,) = (place for place, line in enumerate(lines) if line == "Example:")
        self.assertEmpty([line for line in lines if len(line) > 80 and line != lines[place + 1]])
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(ROOT)
        program, *arguments = lines[place + 1].split()[2:]
        self.assertEqual(program, f"noisy_sgd.experiments.{name}")
        binary.parse([name, *arguments])

    def test_help_tells_which_pixels_a_network_gets(self):
        self.assertRegex(" ".join(_help(self, flags.train).split()), r"mnist_cnn_tanh is .* pixels lie in \[0, 1\]")

    def test_two_parsings_are_independent(self):
        self.assertEqual(flags.train(["train", "--seed=3"]).run.seed, 3)
        self.assertEqual(flags.train(["train"]).run.seed, 0)

    def test_a_good_command_line_reaches_main(self):
        received = []
        with self.assertRaises(SystemExit) as caught:
            flags.run(flags.train, received.append, ["train", "--batch_size=32"])
        self.assertIsNone(caught.exception.code)
        self.assertEqual(received[0].training.batch_size, 32)


class FlagfilesTest(parameterized.TestCase):
    @parameterized.parameters(*sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/*/*.flags")))
    def test_a_flagfile_opens_with_its_command_and_is_read(self, path):
        text, (_, folder, name) = (ROOT / path).read_text(), pathlib.Path(path).parts
        name_of_binary = "train" if folder == "imagenet" else folder
        command = f"# python -m noisy_sgd.experiments.{name_of_binary} --flagfile={path}"
        self.assertRegex(text, rf"^{command}( --data_dir=DATA)?\n#\n")
        self.assertRegex(text, "\n# Expected[:,]")
        self.assertIn("\n# Time:", text)
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(ROOT)
        binary = importlib.import_module(f"noisy_sgd.experiments.{name_of_binary}")
        settings = binary.parse([name_of_binary, f"--flagfile={path}"])
        place = settings.run.run_dir if name_of_binary == "train" else settings.run_dir
        stem = pathlib.Path(name).stem
        expected = ("results", f"results/{stem}") if folder == "reproduce" else (f"runs/{folder}/{stem}",)
        self.assertIn(place, expected)

    def test_the_noise_for_epsilon_3_is_the_smallest(self):
        chosen = _flagfile("mnist_epsilon_3").training
        self.assertEqual(chosen.max_epsilon, 3)
        noise = privacy.noise_multiplier_for(
            3, chosen.batch_size, 60_000, chosen.num_steps, chosen.delta, sampling=chosen.sampling
        )
        self.assertEqual(chosen.noise_multiplier, noise)

    def test_the_budget_of_the_digits_ends_their_run(self):
        chosen = _flagfile("digits_poisson").training
        self.assertLess(_epsilon(chosen, 1437, 65), chosen.max_epsilon)
        self.assertGreater(_epsilon(chosen, 1437, 66), chosen.max_epsilon)
        self.assertLess(66, chosen.num_steps)

    @parameterized.parameters(("tan_16384", 0, 7.47), ("tan_32768", 0, 7.49), ("de_et_al", 10_000, 7.51))
    def test_imagenets_private_runs_have_the_epsilon_they_state(self, stem, held_out, epsilon):
        made = _flagfile(stem, folder="imagenet")
        self.assertEqual(made.data.held_out or 0, held_out)
        self.assertAlmostEqual(
            _epsilon(made.training, 1_281_167 - held_out, made.training.num_steps), epsilon, delta=0.005
        )
        self.assertIn(f" {epsilon} at delta 8e-7", (ROOT / f"configs/imagenet/{stem}.flags").read_text())

    @parameterized.parameters((128, 0.078125), (256, 0.15625), (512, 0.3125), (1024, 0.625))
    def test_imagenet_has_the_noise_of_figure_1(self, batch_size, sigma):
        made = _flagfile("noisy_sgd", f"--batch_size={batch_size}", folder="imagenet")
        self.assertAlmostEqual(made.training.resolved_noise_multiplier, sigma)
        self.assertEqual(made.data.resolved_image_size, 224)

    def test_only_the_clipping_differs_in_the_comparison(self):
        free, clipped = (_flagfile(stem, folder="imagenet") for stem in ("noisy_sgd", "clipping"))
        self.assertEqual((free.data, free.model), (clipped.data, clipped.model))
        self.assertEqual(free.training.noise_std, clipped.training.noise_std)
        own = {"algorithm": "noisy_sgd", "l2_norm_clip": None, "delta": None}
        self.assertEqual(dataclasses.replace(clipped.training, **own), free.training)

    def test_the_sweep_has_the_noise_and_the_rate_of_the_private_run(self):
        sweep, private = (_flagfile(stem, folder="imagenet").training for stem in ("tan_sweep", "tan_16384"))
        self.assertEqual(sweep.noise_std, private.noise_std)
        own = {"batch_size": 16384, "effective_noise": None, "noise_multiplier": 2.5}
        self.assertEqual(dataclasses.replace(sweep, **own), private)


def _flagfile(stem, *others, folder="train"):
    return flags.train(["train", f"--flagfile={ROOT}/configs/{folder}/{stem}.flags", *others])


def _epsilon(chosen, num_examples, num_steps):
    delta = chosen.delta or 1e-4
    noise = chosen.resolved_noise_multiplier
    return privacy.epsilon(noise, chosen.batch_size, num_examples, num_steps, delta, sampling=chosen.sampling)


class RefusalsTest(absltest.TestCase):
    def _exit(self, error):
        flags.train(["train"])
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr), self.assertRaises(SystemExit) as caught, flags.refusals():
            raise error
        return caught.exception.code, stderr.getvalue()

    def test_a_value_error_of_the_library_is_one_sentence(self):
        status, sentence = self._exit(ValueError("`model` has\n  a BatchNormalization layer"))
        self.assertEqual(status, 2)
        self.assertRegex(sentence, "^[^\n]*: `--model` has a BatchNormalization layer\n$")

    def test_arguments_are_called_as_the_flags_that_were_typed(self):
        for said, shown in (
            ("`train_size` must be less. Received: train_size=9", "`--num_train_examples` must be less. .*_examples=9"),
            ("`data_dir` lacks one of `files`", "`--data_dir` lacks one of `files`"),
        ):
            self.assertRegex(self._exit(ValueError(said))[1], f": {shown}\n$")

    def test_a_mistake_of_ours_keeps_its_traceback(self):
        with self.assertRaises(KeyError), flags.refusals():
            raise KeyError("ours")


class OtherBinariesTest(parameterized.TestCase):
    def test_sweep(self):
        sweep = flags.batch_size_sweep(
            "sweep --algorithm=sgd,dp_sgd --batch_size=8,16 --num_seeds=2 --effective_noise=0.01 --l2_norm_clip=1 "
            "--run_dir=there".split()
        )
        self.assertLen(sweep.runs, 8)
        self.assertEqual(sweep.run_dir, "there")

    def test_sweep_and_report_take_the_options_of_training(self):
        options = (
            "--algorithm=sgd,dp_sgd --batch_size=8 --num_seeds=1 --effective_noise=0.01 --l2_norm_clip=1 "
            "--sampling=poisson --clipping=automatic --augmentation=flip_and_crop --augmentation_multiplicity=2 "
            "--precision=bfloat16 --strategy=mirrored --logical_devices=2"
        ).split()
        for sweep in (
            flags.batch_size_sweep(["batch_size_sweep", *options]),
            reproduce.parse(["reproduce", *options]).sweep,
        ):
            plain, private = sweep.runs.values()
            self.assertEqual((plain.training.clipping, private.training.clipping), ("flat", "automatic"))
            for one in (plain, private):
                self.assertEqual((one.training.sampling, one.training.augmentation_multiplicity), ("poisson", 2))
                self.assertEqual((one.data.augmentation, one.model.precision), ("flip_and_crop", "bfloat16"))
                self.assertEqual((one.run.strategy, one.run.logical_devices), ("mirrored", 2))

    @parameterized.parameters(
        (["--strategy=multi_worker", "--algorithm=sgd"], "`--strategy` must be one of default, mirrored "),
        (["--strategy=tpu", "--algorithm=sgd"], "`--strategy` must be one of default, mirrored "),
        (["--augmentation_multiplicity=2", "--algorithm=sgd"], "`--augmentation_multiplicity` above 1 needs"),
        (["--tpu=node-1"], "Unknown command line flag 'tpu'"),
        (["--noresume"], "Unknown command line flag 'noresume'"),
        (["--max_epsilon=1"], "Unknown command line flag 'max_epsilon'"),
        (["--batch_size=8,x", "--algorithm=sgd"], "`--batch_size` must list whole numbers"),
        (["--algorithm=noisy_sgd"], "`--effective_noise` is needed"),
        (["--noise_multiplier=1", "--algorithm=noisy_sgd"], "Unknown command line flag 'noise_multiplier'"),
    )
    def test_sweep_refuses(self, arguments, message):
        self.assertRegex(_refused(self, flags.batch_size_sweep, *arguments), message)

    def test_benchmark(self):
        made = flags.benchmark("benchmark --workload=mlp --algorithm=sgd,dp_sgd --batch_size=8 --num_rounds=2".split())
        self.assertEqual(
            made, cases.Benchmark(workload="mlp", algorithms=("sgd", "dp_sgd"), batch_size=8, num_rounds=2)
        )
        self.assertRegex(_refused(self, flags.benchmark, "--workload=bert"), "`--workload` must be one of")

    @parameterized.parameters(
        ("--sweep=input --algorithm=dp_sgd", r"`--algorithm` means nothing to `--sweep=input`.*algorithm=dp_sgd\)"),
        ("--sweep=input --algorithm=sgd,noisy_sgd,dp_sgd", "`--algorithm`.*algorithm=sgd,noisy_sgd,dp_sgd"),
        ("--sweep=input --microbatch_size=8", "`--microbatch_size` means nothing to `--sweep=input`"),
        ("--sweep=noise --algorithm=dp_sgd", "`--algorithm` means nothing to `--sweep=noise`"),
        ("--sweep=batch_size --microbatch_size=64 --batch_size=64", "`--batch_size` means nothing to `--sweep=batch_"),
        ("--workload=diagonal_linear --algorithm=sgd", "`--algorithm` means nothing to diagonal_linear"),
        ("--workload=diagonal_linear --batch_size=64", "`--batch_size` means nothing to diagonal_linear"),
        ("--workload=diagonal_linear --microbatch_size=8", "`--microbatch_size` means nothing to diagonal_linear"),
        ("--algorithm=sgd --microbatch_size=8", "`--microbatch_size` means nothing to sgd"),
    )
    def test_benchmark_refuses_what_it_does_not_read(self, arguments, message):
        self.assertRegex(_refused(self, flags.benchmark, *arguments.split()), message)

    @parameterized.parameters(
        "--sweep=input --workload=wrn_16_4 --batch_size=64",
        "--sweep=input --algorithm=sgd",
        "--sweep=noise --workload=mlp --batch_size=8",
        "--sweep=batch_size --workload=mlp --algorithm=dp_sgd --microbatch_size=64",
        "--sweep=batch_size --algorithm=sgd --microbatch_size=128",
        "--workload=diagonal_linear --num_rounds=2",
        "--workload=diagonal_linear --algorithm=noisy_sgd",
        "--algorithm=sgd,dp_sgd --microbatch_size=8",
        "--workload=wrn_16_4 --batch_size=64 --num_rounds=15 --run_dir=runs/benchmark",
    )
    def test_benchmark_takes_what_it_reads(self, arguments):
        self.assertIsInstance(flags.benchmark(["benchmark", *arguments.split()]), cases.Benchmark)

    def test_needs_no_tensorflow(self):
        code = "import sys; from noisy_sgd.experiments import flags; sys.exit('tensorflow' in sys.modules)"
        self.assertEqual(subprocess.run([sys.executable, "-c", code], check=False, env=dict(os.environ)).returncode, 0)


class EndTest(absltest.TestCase):
    def test_a_failed_run_waits_for_no_thread(self):
        program = """
            import sys, threading
            from noisy_sgd.experiments import flags
            def main(_):
                threading.Thread(target=threading.Event().wait).start()
                print("said")
                sys.exit(1)
            flags.run(lambda argv: None, main)
        """
        command = [sys.executable, "-c", textwrap.dedent(program)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        self.assertEqual((ended.returncode, ended.stdout), (1, "said\n"), ended.stderr)


if __name__ == "__main__":
    absltest.main()
