"""The ordinary binary on `imagenet2012` as TensorFlow Datasets prepared it: training, resumption, lost images."""

import contextlib
import io
import os
import pathlib
import signal
import tempfile
from unittest import mock

import numpy as np
import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd import files, records
from noisy_sgd.experiments import flags, train
from noisy_sgd.runs import callbacks, checkpoints
from tests import ilsvrc

TRAIN, CORRUPT = 48, (3, 20)
SMALL = [
    "--dataset=imagenet2012", "--image_size=16", "--batch_size=8", "--num_steps=8", "--eval_every=4",
    "--learning_rate=0.05", "--ema_decay=0.5",
]  # fmt: skip
MLP = ["--model=mlp", "--hidden=8"]
ALGORITHMS = {
    "sgd": [*MLP, "--augmentation=tan"],
    "noisy_sgd": ["--effective_noise=0.001", "--model=nf_resnet_tiny", "--convention=tan"],
    "dp_sgd": [
        "--noise_multiplier=0.5",
        "--l2_norm_clip=1",
        "--augmentation=deepmind",
        "--augmentation_multiplicity=2",
    ],  # fmt: skip
}
DP = [
    *MLP,
    "--algorithm=dp_sgd",
    "--noise_multiplier=0.5",
    "--l2_norm_clip=1",
    "--sampling=poisson",
    "--microbatch_size=4",
]

_folder = tempfile.TemporaryDirectory()


def setUpModule():
    for name, lost in (("whole", {}), ("damaged", {"corrupt": CORRUPT}), ("smaller", {"absent": CORRUPT})):
        archives = os.path.join(_folder.name, f"{name}_archives")
        ilsvrc.write(archives, per_synset=TRAIN // 3, validation=5, by_class=True, **lost)
        ilsvrc.prepare(data(name), archives, num_shards=2)


def tearDownModule():
    _folder.cleanup()


def data(name):
    return os.path.join(_folder.name, name)


class ImageNetTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))

    def _run(self, *arguments, name="whole", status=0):
        stdout, stderr = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            with self.assertRaises(SystemExit) as caught:
                flags.run(flags.train, train.main, ["train", *SMALL, f"--data_dir={data(name)}", *arguments])
        self.assertEqual(caught.exception.code or 0, status, stderr.getvalue())
        return stdout.getvalue(), stderr.getvalue()

    @parameterized.parameters(*ALGORITHMS)
    def test_trains_and_evaluates(self, algorithm):
        options = [f"--algorithm={algorithm}", *ALGORITHMS[algorithm], "--held_out=6"]
        self._run(*options, f"--run_dir={self.root}/run")
        record = records.read(self.root / "run")
        self.assertEqual(record.results["step"], 8)
        losses = [line["val_loss"] for line in record.metrics if "val_loss" in line]
        self.assertLess(losses[-1], losses[0])
        if algorithm == "dp_sgd":
            self.assertEqual(record.privacy["num_examples"], TRAIN - 6)

    def test_a_private_run_goes_on_bit_for_bit_after_it_was_stopped(self):
        step = callbacks.Progress.on_train_batch_end

        def preempted(self, batch, logs=None):
            step(self, batch, logs)
            if batch == 3:
                os.kill(os.getpid(), signal.SIGTERM)

        arguments = [*DP, "--augmentation=tan", "--noise_seed=3", "--checkpoint_every=2"]
        with mock.patch.object(callbacks.Progress, "on_train_batch_end", preempted):
            self._run(*arguments, f"--run_dir={self.root}/stopped", status=75)
        stdout, _ = self._run(*arguments, f"--run_dir={self.root}/stopped")
        self.assertIn("The run continues from step 4, bit for bit.", stdout)
        self._run(*arguments, f"--run_dir={self.root}/unbroken")
        stopped, unbroken = (
            checkpoints.load_newest(self.root / name / "checkpoints", print).arrays for name in ("stopped", "unbroken")
        )
        for name, array in unbroken.items():
            np.testing.assert_array_equal(stopped[name], array, name)

    def test_a_corrupt_image_ends_the_run_and_the_same_run_goes_on_without_it(self):
        arguments = [*MLP, "--algorithm=sgd", "--checkpoint_every=1", f"--run_dir={self.root}/run"]
        _, stderr = self._run(*arguments, name="damaged", status=1)
        self.assertRegex(
            stderr.splitlines()[-1],
            "^[^\n]*: The run failed: `--data_dir` holds an image that is not a complete JPEG: record [0-9]+ of .*; "
            "prepare the data set again, or set `--corrupt_images` to skip. When that is fixed, .* goes on.$",
        )
        self._run(*arguments, "--corrupt_images=skip", name="damaged")
        self.assertEqual(records.read(self.root / "run").results["corrupt_images"], len(CORRUPT))

    def test_in_a_private_run_only_the_private_folder_knows_of_a_corrupt_image(self):
        stdout, stderr = self._run(
            *DP, "--sampling=shuffled", "--corrupt_images=skip", f"--run_dir={self.root}/run", name="damaged"
        )
        names = (self.root / "run" / "private" / "corrupt_images.txt").read_text().split()
        self.assertEqual(set(names), {"n01440764_3.JPEG", "n01443537_4.JPEG"})
        record = records.read(self.root / "run")
        self.assertEqual(record.privacy["num_examples"], TRAIN)
        self.assertNotIn("corrupt_images", record.results)
        self.assertNotIn("JPEG", stdout + stderr + (self.root / "run" / "run.json").read_text())

    def test_a_corrupt_image_contributes_nothing(self):
        # One step on all examples: without noise, the images that are left give the same sum, and N is its divisor.
        common = [
            *MLP,
            "--algorithm=dp_sgd",
            "--noise_multiplier=0",
            "--l2_norm_clip=1",
            "--num_steps=1",
            "--eval_every=1",
        ]
        left = TRAIN - len(CORRUPT)
        options = {
            "damaged": [f"--batch_size={TRAIN}", "--learning_rate=2", "--corrupt_images=skip"],
            "smaller": [f"--batch_size={left}", f"--learning_rate={2 * left / TRAIN}"],
            "whole": [f"--batch_size={TRAIN}", "--learning_rate=2"],
        }
        weights = {}
        for name, own in options.items():
            self._run(*common, *own, f"--run_dir={self.root}/{name}", name=name)
            arrays = checkpoints.load_newest(self.root / name / "checkpoints", print).arrays
            weights[name] = np.concatenate(
                [np.ravel(array) for key, array in arrays.items() if key.startswith("model")]
            )
        np.testing.assert_allclose(weights["damaged"], weights["smaller"], atol=1e-6)
        self.assertGreater(np.abs(weights["damaged"] - weights["whole"]).max(), 1e-4)

    @parameterized.parameters(
        (None, "`--data_dir` must name the folder that holds imagenet2012; put ILSVRC2012_img_train.tar"),
        (
            "nowhere",
            "`--data_dir` must hold imagenet2012, prepared, and does not; put .*data_dir='.*nowhere'",
        ),
        ("gs://bucket", "`--data_dir` must be a folder of this machine"),
    )
    def test_a_wrong_folder_is_one_sentence(self, data_dir, sentence):
        stderr = io.StringIO()
        typed = [] if data_dir is None else [f"--data_dir={data_dir}"]
        with contextlib.redirect_stderr(stderr), self.assertRaises(SystemExit) as caught:
            flags.run(flags.train, train.main, ["train", *SMALL, *typed, f"--run_dir={self.root}/run"])
        self.assertEqual(caught.exception.code, 2)
        self.assertRegex(stderr.getvalue(), f"^[^\n]*: {sentence}[^\n]*\n$")
        self.assertFalse((self.root / "run").exists())

    def test_a_bucket_without_permission_is_one_sentence(self):
        denied = tf.errors.PermissionDeniedError(None, None, "no access to the bucket\n\t when reading gs://bucket/run")
        gfile = mock.Mock(**{f"{name}.side_effect": denied for name in ("exists", "listdir", "makedirs", "GFile")})
        typed = [*MLP, "--num_steps=1", "--checkpoint_dir=gs://bucket/run", f"--run_dir={self.root}/run"]
        stderr = io.StringIO()
        with mock.patch.object(files, "_gfile", return_value=gfile), contextlib.redirect_stderr(stderr):
            with self.assertRaises(SystemExit) as caught:
                flags.run(flags.train, train.main, ["train", *typed])
        self.assertEqual(caught.exception.code, 2)
        self.assertRegex(
            stderr.getvalue(), "^[^\n]*: .*gs://bucket/run cannot be written: no access to the bucket[^\n]*\n$"
        )


if __name__ == "__main__":
    absltest.main()
