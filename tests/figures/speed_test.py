"""Tests of the benchmark's figure: one row a line, and the ratios that were recorded."""

import csv
import pathlib

from absl.testing import absltest

from noisy_sgd import records
from noisy_sgd.figures import speed


class SpeedTest(absltest.TestCase):
    def test_draws_what_was_recorded(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        for workload, ratios in {"wrn_16_4": (1.0, 1.02, 1.25), "mlp": (1.0, 1.6, 1.7)}.items():
            run = records.create(folder / workload, {"workload": workload, "batch_size": 64}, privacy={})
            for algorithm, ratio in zip(("sgd", "noisy_sgd", "dp_sgd"), ratios, strict=True):
                run.append({"workload": workload, "algorithm": algorithm, "ratio_to_sgd": ratio})
            run.finish({})
        png, pdf, table = speed.draw(records.find(folder), folder / "figures")
        self.assertGreater(png.stat().st_size, 10_000)
        self.assertGreater(pdf.stat().st_size, 1_000)
        rows = list(csv.DictReader(table.read_text().splitlines()))
        self.assertEqual([row["ratio_to_sgd"] for row in rows], ["1.0", "1.6", "1.7", "1.0", "1.02", "1.25"])


if __name__ == "__main__":
    absltest.main()
