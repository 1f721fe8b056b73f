"""Tests of the map of noise against step size: made-up lines for the verdicts, a small run for the figures."""

import json
import pathlib

import numpy as np
from absl.testing import absltest

from noisy_sgd import records
from noisy_sgd.experiments import noise_threshold
from noisy_sgd.figures import noise_threshold as figures


def _line(noise, distance, diverged=0, data_seed=0):
    case = {"data_seed": data_seed, "relative_step": 0.5, "noise_scale": noise, "num_runs": 4, "diverged": diverged}
    return case | {"squared_distance": distance}


class BestTest(absltest.TestCase):
    def test_divergence_is_a_loss(self):
        lines = [_line(0.0, 1.0), _line(0.5, 0.2, diverged=2), _line(1.0, 0.01, diverged=3)]
        (found,) = noise_threshold.best(lines)
        self.assertEqual((found["best_noise_scale"], found["squared_distance"], found["diverged"]), (0.5, 0.2, 0.5))
        self.assertEqual((found["sgd_squared_distance"], found["sgd_diverged"]), (1.0, 0.0))

    def test_is_a_median_over_data_sets(self):
        lines = [
            _line(noise, value, data_seed=seed)
            for noise, values in ((0.0, (1, 2, 9)), (0.5, (0.1, 3, 4)))
            for seed, value in enumerate(values)
        ]
        (found,) = noise_threshold.best(lines)
        self.assertEqual((found["best_noise_scale"], found["squared_distance"]), (0.0, 2.0))


class MeasureTest(absltest.TestCase):
    def test_small_map_and_its_figures(self):
        directory = pathlib.Path(self.create_tempdir())
        lines = noise_threshold.measure(
            (0,), relative_steps=(0.3, 5.0), noise_scales=(0.0, 0.5), num_runs=2, num_steps=3_000
        )
        self.assertEqual([line["diverged"] for line in lines], [0, 0, 2, 2])
        stable = lines[1]
        self.assertGreater(stable["tilt_norm"], 0.1)
        self.assertLess(stable["geometric_alpha"], lines[0]["geometric_alpha"])
        # The limit is no further from beta* than both parts together (triangle inequality, for each run; two runs
        # here).
        parts = np.sqrt(stable["gap"]) + np.sqrt(stable["minimizer_distance"])
        self.assertLess(np.sqrt(stable["squared_distance"]), 1.2 * parts)
        run = records.create(directory / "map", {"experiment": "map"}, privacy="No guarantee: synthetic data.")
        for line in lines:
            run.append(line)
        run.finish({"best": noise_threshold.best(lines)})
        record = records.read(directory / "map")
        json.dumps(record.results)
        for path in (*figures.draw_map(record, directory), *figures.draw_terms(record, directory)):
            self.assertGreater(path.stat().st_size, 100)


if __name__ == "__main__":
    absltest.main()
