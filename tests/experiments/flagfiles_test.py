"""Every flagfile of the training binary builds its network and its pipeline, and takes one step, all of it shrunken."""

import contextlib
import io
import os
import pathlib
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.experiments import flags, train
from noisy_sgd.models.nf_resnet import VARIANTS, Variant
from tests import ilsvrc

ROOT = pathlib.Path(__file__).parents[2]
PATHS = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("configs/*/*.flags"))
NARROW = Variant(input_shape=(224, 224, 3), stem="7x7", stem_width=8, depths=(1,), widths=(16,), strides=(2,))

_folder = tempfile.TemporaryDirectory()


def setUpModule():
    archives = os.path.join(_folder.name, "archives")
    ilsvrc.write(archives, per_synset=8, validation=3)
    ilsvrc.prepare(_folder.name, archives)
    generator = np.random.default_rng(0)
    parts = {"train": 40, "test": 4}
    arrays = {f"x_{part}": generator.integers(0, 256, (size, 28, 28), np.uint8) for part, size in parts.items()}
    labels = {f"y_{part}": generator.integers(0, 10, size, np.uint8) for part, size in parts.items()}
    np.savez(os.path.join(_folder.name, "mnist.npz"), **arrays, **labels)


def tearDownModule():
    _folder.cleanup()


class FlagfileTest(parameterized.TestCase):
    @parameterized.parameters(*(path for path in PATHS if path.split("/")[1] in ("train", "imagenet")))
    def test_takes_a_step(self, path):
        self.enter_context(mock.patch.dict(VARIANTS, {"nf_resnet50": NARROW}))
        made = flags.train(["train", f"--flagfile={ROOT}/{path}"])
        run_dir = self.create_tempdir().full_path + "/run"
        shrunken = [
            "--batch_size=4", "--microbatch_size=2", "--num_steps=1", "--eval_every=1", "--strategy=default",
            f"--data_dir={_folder.name}", f"--run_dir={run_dir}",
        ]  # fmt: skip
        if made.data.dataset == "imagenet2012":
            shrunken.append("--image_size=32")
        if made.data.held_out:
            shrunken.append("--held_out=3")
        if made.training.max_epsilon:
            shrunken.append("--max_epsilon=1e9")
        stderr = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(stderr):
            with self.assertRaises(SystemExit) as caught:
                flags.run(flags.train, train.main, ["train", f"--flagfile={ROOT}/{path}", *shrunken])
        self.assertIn(caught.exception.code, (None, 0), stderr.getvalue())
        record = records.read(run_dir)
        self.assertEqual(record.results["step"], 1)
        self.assertTrue(np.isfinite(record.results["val_loss"]))


if __name__ == "__main__":
    absltest.main()
