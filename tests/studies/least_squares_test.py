"""Tests of the least-squares measurements, and of their figures."""

import pathlib

import numpy as np
from absl.testing import absltest

from noisy_sgd import records
from noisy_sgd.figures import least_squares as figures
from noisy_sgd.studies import least_squares


class RowsTest(absltest.TestCase):
    def test_surrogate_covariance_accepts_the_corrected_and_rejects_the_printed(self):
        # 1.8e4 samples in 4 dimensions: an error of about 2 %.
        found = least_squares.surrogate_covariance(noise_scale=0.3, num_runs=3_000, num_snapshots=6)
        self.assertEqual(found["effective_samples"], 18_000)
        self.assertLess(found["error_discrete"], 0.04)
        self.assertGreater(found["error_paper_eq15"], 0.3)

    def test_sampled_covariance_accepts_the_recursion(self):
        found = least_squares.sampled_covariance(noise_scale=0.0, num_runs=3_000, num_snapshots=6)
        self.assertLess(found["error_recursion"], 0.05)
        self.assertGreater(found["model_gap"], 0.1)

    def test_theorem_1(self):
        found = least_squares.theorem_1(num_runs=300, num_steps=100)
        self.assertLess(found["largest_z"], 4.0)
        self.assertGreater(found["left"][-1], 0.1 * found["right"][-1])

    def test_interpolation(self):
        found = least_squares.interpolation(num_steps=10_000, num_runs=5)
        self.assertLess(max(found["gd"], found["sgd"]), 1e-6)


class FiguresTest(absltest.TestCase):
    def test_draws_every_figure(self):
        directory = pathlib.Path(self.create_tempdir())
        measured = {
            "covariance": least_squares.surrogate_covariance(noise_scale=0.3, num_runs=200, num_snapshots=2),
            "theorem_1": least_squares.theorem_1(num_runs=50, num_steps=20),
        }
        for name, results in measured.items():
            run = records.create(directory / name, {"experiment": name}, privacy="No guarantee: synthetic data.")
            run.finish(results)
            draw = figures.draw_covariance if name == "covariance" else figures.draw_theorem_1
            for path in draw(records.read(directory / name), directory, name + "_figure"):
                self.assertGreater(path.stat().st_size, 100)
        values = np.genfromtxt(directory / "theorem_1_figure.csv", delimiter=",", names=True)
        self.assertTrue((np.diff(values["right"]) > 0).all())


if __name__ == "__main__":
    absltest.main()
