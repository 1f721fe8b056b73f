import csv
import math
import pathlib
import subprocess
import sys
import tempfile

import matplotlib
from absl.testing import absltest
from matplotlib import figure

from noisy_sgd import records
from noisy_sgd.figures import canvas, images

SIZES = (8, 16, 32)


def _run(algorithm="noisy_sgd", size=8, seed=0, accuracy=0.9):
    config = {
        "data": {"dataset": "digits"},
        "model": {"model": "nf_resnet_small"},
        "algorithm": {"algorithm": algorithm, "batch_size": size, "num_steps": 20},
        "run": {"seed": seed},
    }
    metrics = [
        {"step": step, "val_accuracy": accuracy * step / 20, "squared_gradient_norm": 2.0, "squared_noise_norm": 3.0}
        for step in (10, 20)
    ]
    return records.Record(
        directory=pathlib.Path("nowhere"),
        config=config,
        versions={},
        privacy="",
        status="",
        results={},
        metrics=metrics,
    )


def _runs():
    accuracy = {8: 0.9, 16: 0.88, 32: 0.86}
    names = ("dp_sgd", "noisy_sgd", "sgd")
    return [_run(name, size, seed, accuracy[size] + 0.01 * seed) for name in names for size in SIZES for seed in (0, 1)]


class ImagesTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory())) / "figures"

    def _check(self, paths):
        png, pdf, table = paths
        self.assertEqual(png.read_bytes()[:8], b"\x89PNG\r\n\x1a\n")
        self.assertEqual(pdf.read_bytes()[:5], b"%PDF-")
        with open(table, newline="") as file:
            return list(csv.DictReader(file))

    def test_final_values_in_the_papers_order(self):
        found = images.final_values([*_runs(), _run("sgd", 8, 2, accuracy=math.inf)])
        self.assertEqual(list(found), ["sgd", "noisy_sgd", "dp_sgd"])
        self.assertAlmostEqual(found["sgd"][1][16], 0.89)

    def test_a_diverged_run_is_nan_not_absent(self):
        run = _run("sgd")
        run.metrics[-1]["val_accuracy"] = None
        self.assertTrue(math.isnan(images.final_values([run])["sgd"][0][8]))

    def test_sweep(self):
        rows = self._check(images.draw_batch_size_sweep(_runs(), self.directory))
        self.assertLen(rows, 9)
        self.assertEqual([row["algorithm"] for row in rows[::3]], ["sgd", "noisy_sgd", "dp_sgd"])
        self.assertAlmostEqual(float(rows[0]["test_accuracy_percent"]), 90.5)
        self.assertAlmostEqual(float(rows[0]["std"]), math.sqrt(0.5))
        self.assertLess(float(rows[0]["interval_low"]), 90.5)

    def test_curves(self):
        rows = self._check(images.draw_curves(_runs(), self.directory))
        self.assertLen(rows, 3 * 3 * 2)
        self.assertAlmostEqual(float(rows[0]["mean"]), 45.25)

    def test_norms(self):
        rows = self._check(images.draw_norms(_runs(), self.directory))
        self.assertEqual({row["quantity"] for row in rows}, {"squared_gradient_norm", "squared_noise_norm"})
        self.assertEqual({row["algorithm"] for row in rows}, {"noisy_sgd"})
        with self.assertRaisesRegex(ValueError, "noisy_sgd"):
            images.draw_norms([_run("sgd")], self.directory)

    def test_a_single_run_can_be_drawn(self):
        self._check(images.draw_batch_size_sweep([_run()], self.directory))
        self.assertLen(self._check(images.draw_curves([_run()], self.directory, "curve")), 2)

    def test_redrawing_gives_the_same_bytes(self):
        first = [path.read_bytes() for path in images.draw_curves(_runs(), self.directory)]
        self.assertEqual(first, [path.read_bytes() for path in images.draw_curves(_runs(), self.directory)])

    def test_a_styled_function_leaves_style_and_caption_as_they_were(self):
        before, drawn = matplotlib.rcParams["font.size"], {}

        @canvas.styled
        def draw(name):
            """What it shows.

            And more.
            """
            drawn["size"] = matplotlib.rcParams["font.size"]
            return canvas.save(figure.Figure(), [], self.directory, name)[0]

        self.assertEqual(canvas.caption(draw("styled")), "What it shows.")
        self.assertEqual(drawn["size"], canvas.STYLE["font.size"])
        self.assertNotEqual(before, canvas.STYLE["font.size"])
        self.assertEqual(matplotlib.rcParams["font.size"], before)
        self.assertEqual(canvas.caption(canvas.save(figure.Figure(), [], self.directory, "plain")[0]), "")

    def test_needs_no_tensorflow(self):
        code = "import sys; from noisy_sgd.figures import images; sys.exit('tensorflow' in sys.modules)"
        self.assertEqual(subprocess.run([sys.executable, "-c", code], check=False).returncode, 0)


if __name__ == "__main__":
    absltest.main()
