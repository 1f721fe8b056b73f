import contextlib
import io
import os
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest, parameterized

from noisy_sgd import config
from noisy_sgd.experiments import benchmark_cases, flags


def _refused(test, parse, *arguments):
    """Runs a binary that must refuse its arguments; returns the sentence."""
    stderr = io.StringIO()
    with contextlib.redirect_stderr(stderr), test.assertRaises(SystemExit) as caught:
        flags.run(parse, lambda _: test.fail("it ran"), ["binary", *arguments])
    test.assertEqual(caught.exception.code, 2)
    sentence = stderr.getvalue()
    test.assertEqual(sentence.count("\n"), 1, sentence)
    return sentence


class TrainTest(parameterized.TestCase):
    def test_defaults(self):
        made = flags.train(["train"])
        self.assertEqual(made.algorithm, config.Algorithm())
        self.assertEqual(made.run.run_dir, "runs/digits-nf_resnet_tiny-sgd-batch_64-seed_0")

    def test_every_flag_arrives(self):
        made = flags.train(
            "train --dataset=mnist --data_dir=there --num_train_examples=500 --label_noise=0.1 --model=mlp "
            "--hidden=8,4 --algorithm=dp_sgd --ema_decay=0.9 "
            "--batch_size=32 --microbatch_size=8 --num_steps=10 --learning_rate=0.25 --momentum=0.5 "
            "--noise_multiplier=2 --l2_norm_clip=3 --delta=1e-6 --noise_seed=4 --run_dir=here --seed=6 "
            "--strategy=mirrored --logical_devices=2 --eval_every=5".split()
        )
        algorithm = config.Algorithm(
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
        )
        run = config.Run(run_dir="here", seed=6, strategy="mirrored", logical_devices=2, eval_every=5)
        data = config.Data(dataset="mnist", data_dir="there", num_train_examples=500, label_noise=0.1)
        self.assertEqual(
            made, config.Config(data=data, model=config.Model(model="mlp", hidden=(8, 4)), algorithm=algorithm, run=run)
        )

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
    )
    def test_bad_input_is_one_sentence_and_status_2(self, arguments, message):
        self.assertRegex(_refused(self, flags.train, *arguments), message)

    def test_a_flagfile_is_read_and_what_follows_it_wins(self):
        with tempfile.TemporaryDirectory() as directory:
            path = pathlib.Path(directory) / "some.flags"
            path.write_text("# a comment\n--batch_size=32\n--num_steps=7\n")
            made = flags.train(["train", f"--flagfile={path}", "--num_steps=8"])
        self.assertEqual((made.algorithm.batch_size, made.algorithm.num_steps), (32, 8))

    def test_help_explains_the_flags_and_ends_well(self):
        stdout = io.StringIO()
        with contextlib.redirect_stdout(stdout), self.assertRaises(SystemExit) as caught:
            flags.train(["train", "--help"])
        self.assertEqual(caught.exception.code, 0)
        for name in ("batch_size", "noise_multiplier", "l2_norm_clip", "effective_noise"):
            self.assertIn(f"--{name}", stdout.getvalue())

    def test_two_parsings_are_independent(self):
        self.assertEqual(flags.train(["train", "--seed=3"]).run.seed, 3)
        self.assertEqual(flags.train(["train"]).run.seed, 0)

    def test_a_good_command_line_reaches_main(self):
        received = []
        with self.assertRaises(SystemExit) as caught:
            flags.run(flags.train, received.append, ["train", "--batch_size=32"])
        self.assertIsNone(caught.exception.code)
        self.assertEqual(received[0].algorithm.batch_size, 32)


class RefusalsTest(absltest.TestCase):
    def _exit(self, error):
        stderr = io.StringIO()
        with contextlib.redirect_stderr(stderr), self.assertRaises(SystemExit) as caught, flags.refusals():
            raise error
        return caught.exception.code, stderr.getvalue()

    def test_a_value_error_of_the_library_is_one_sentence(self):
        status, sentence = self._exit(ValueError("`model` has\n  a BatchNormalization layer"))
        self.assertEqual(status, 2)
        self.assertRegex(sentence, "^[^\n]*: `model` has a BatchNormalization layer\n$")

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

    @parameterized.parameters(
        (["--batch_size=8,x", "--algorithm=sgd"], "`--batch_size` must list whole numbers"),
        (["--algorithm=noisy_sgd"], "`--effective_noise` is needed"),
        (["--noise_multiplier=1", "--algorithm=noisy_sgd"], "Unknown command line flag 'noise_multiplier'"),
    )
    def test_sweep_refuses(self, arguments, message):
        self.assertRegex(_refused(self, flags.batch_size_sweep, *arguments), message)

    def test_benchmark(self):
        made = flags.benchmark("benchmark --workload=mlp --algorithm=sgd,dp_sgd --batch_size=8 --num_rounds=2".split())
        self.assertEqual(
            made, benchmark_cases.Benchmark(workload="mlp", algorithms=("sgd", "dp_sgd"), batch_size=8, num_rounds=2)
        )
        self.assertRegex(_refused(self, flags.benchmark, "--workload=bert"), "`--workload` must be one of")

    def test_needs_no_tensorflow(self):
        code = "import sys; from noisy_sgd.experiments import flags; sys.exit('tensorflow' in sys.modules)"
        self.assertEqual(subprocess.run([sys.executable, "-c", code], check=False, env=dict(os.environ)).returncode, 0)


if __name__ == "__main__":
    absltest.main()
