"""The benchmark of decoding: it decodes what training reads, and says how fast."""

import contextlib
import io
import json
import os
import tempfile

from absl.testing import absltest

from noisy_sgd.experiments import decode, flags
from tests import ilsvrc


class DecodeTest(absltest.TestCase):
    def _run(self, *arguments, status=0):
        stdout, stderr = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            with self.assertRaises(SystemExit) as caught:
                flags.run(decode.parse, decode.main, ["decode", *arguments])
        self.assertEqual(caught.exception.code or 0, status, stderr.getvalue())
        return stdout.getvalue() if status == 0 else stderr.getvalue()

    def test_prints_one_line(self):
        folder = self.enter_context(tempfile.TemporaryDirectory())
        archives = os.path.join(folder, "archives")
        ilsvrc.write(archives, per_synset=3, validation=2)
        ilsvrc.prepare(folder, archives)
        typed = [f"--data_dir={folder}", "--image_size=16", "--num_images=40", "--num_rounds=2"]
        line = json.loads(self._run(*typed))
        # Nine images, in whole batches.
        self.assertEqual((line["images"], line["rounds"]), (32, 2))
        self.assertGreater(min(line["ratio_to_bare"], line["ratio_to_memory"], line["input_images_per_core_second"]), 0)

    def test_a_ratio_is_images_of_the_input_for_one_of_the_other(self):
        times = {"input": [2.0, 4.0, 5.0], "bare": [1.0, 4.0, 5.0], "memory": [1.0, 3.0, 2.0]}
        found = decode.summary(8, times)
        self.assertEqual((found["ratio_to_bare"], found["ratio_to_memory"]), (1.0, 0.5))
        self.assertEqual([found[f"{name}_images_per_core_second"] for name in times], [2.0, 2.0, 4.0])

    def test_refuses(self):
        self.assertRegex(self._run("--dataset=mnist", status=2), "`--dataset` must be imagenet2012 .*dataset=mnist")
        self.assertRegex(self._run("--num_images=0", status=2), "`--num_images` must be at least 1")
        self.assertRegex(self._run(status=2), "`--data_dir` must name the folder that holds imagenet2012")


if __name__ == "__main__":
    absltest.main()
