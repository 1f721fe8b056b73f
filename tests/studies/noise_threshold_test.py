"""Tests of the map of noise against step size: SGD's column, directions, made-up lines for counts, figures."""

import json
import pathlib

import numpy as np
from absl.testing import absltest

from noisy_sgd import records
from noisy_sgd.data import regression
from noisy_sgd.figures import noise_threshold as figures
from noisy_sgd.studies import diagonal_linear, noise_threshold


def _line(noise, distance, diverged=0, data_seed=0, step=0.5, **terms):
    judged = np.inf if 2 * diverged > 4 else distance
    return {
        "data_seed": data_seed,
        "relative_step": step,
        "noise_scale": noise,
        "num_runs": 4,
        "diverged": diverged,
        "squared_distance": distance,
        "judged_distance": judged,
        "alpha_alone": distance,
        "tilt_alone": distance,
        "run_distance": distance,
        "sgd_distance": 1.0,
    } | terms


class GainsTest(absltest.TestCase):
    def test_counts(self):
        lines = [_line(0.0, 1.0, data_seed=seed) for seed in range(4)]
        lines += [
            _line(0.5, 0.1, data_seed=0, alpha_alone=0.01, tilt_alone=10.0),
            _line(0.5, 0.01, diverged=3, data_seed=1, alpha_alone=0.1, tilt_alone=100.0),
            _line(0.5, 2.0, diverged=1, data_seed=2, alpha_alone=0.1, tilt_alone=100.0),
            _line(0.5, np.nan, diverged=4, data_seed=3),
        ]
        (found,) = noise_threshold.gains(lines)
        self.assertEqual((found["wins"], found["data_sets"], found["p"]), (1, 4, 0.625))
        self.assertEqual((found["wins_of_survivors"], found["with_survivors"]), (2, 3))
        self.assertEqual(found["diverged_share"], 0.5)
        self.assertEqual(found["change"], np.inf)
        self.assertAlmostEqual(found["alpha_alone"], -1.0)
        self.assertAlmostEqual(found["tilt_alone"], 2.0)


class BestTest(absltest.TestCase):
    def test_divergence_is_a_loss(self):
        lines = [_line(0.0, 1.0), _line(0.5, 0.2, diverged=2), _line(1.0, 0.01, diverged=3)]
        (found,) = noise_threshold.best(lines)
        self.assertEqual((found["best_noise_scale"], found["squared_distance"]), (0.5, 0.2))
        self.assertEqual((found["diverged_share"], found["sgd_squared_distance"]), (0.5, 1.0))
        self.assertAlmostEqual(found["change"], np.log10(0.2))

    def test_is_chosen_by_pairs_and_judged_on_data_not_used(self):
        lines = []
        for seed, (sgd, half, one) in enumerate([(1, 0.1, 2), (10, 2, 20), (0.1, 0.02, 0.001), (1, 0.5, 3)]):
            lines += [_line(noise, value, data_seed=seed) for noise, value in ((0.0, sgd), (0.5, half), (1.0, one))]
        (found,) = noise_threshold.best(lines)
        self.assertEqual((found["best_noise_scale"], found["held_out_wins"], found["data_sets"]), (0.5, 4, 4))
        self.assertAlmostEqual(found["held_out_change"], np.log10(0.2))

    def test_chance_does_not_gain(self):
        """Pure noise, 12 noise scales on 12 data sets, 60 times: the best is flattered, the held-out is not."""
        generator, changes, held_out = np.random.default_rng(0), [], []
        for _ in range(60):
            values = np.exp(generator.standard_normal((12, 12)))
            lines = [_line(float(noise), value, data_seed=s) for (noise, s), value in np.ndenumerate(values)]
            (found,) = noise_threshold.best(lines)
            changes.append(found["change"])
            held_out.append(found["held_out_change"])
        self.assertLess(np.mean(changes), -0.2)
        self.assertAlmostEqual(np.mean(held_out), 0.0, delta=0.1)


class MeasureTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.steps, cls.noises = (0.2, diagonal_linear.PAPER_STEP, 5.0), (0.0, 0.5)
        cls.seeds = (0, 3, 4, 5)
        cls.lines = noise_threshold.measure(
            cls.seeds, relative_steps=cls.steps, noise_scales=cls.noises, num_runs=2, num_steps=6_000
        )

    def _pick(self, step, noise):
        return [line for line in self.lines if (line["relative_step"], line["noise_scale"]) == (step, noise)]

    def test_one_line_a_cell(self):
        self.assertLen(self.lines, 4 * 3 * 2)
        self.assertEqual([line["diverged"] for line in self._pick(5.0, 0.0) + self._pick(5.0, 0.5)], [2] * 8)
        for line in self._pick(5.0, 0.5):
            self.assertEqual(line["judged_distance"], np.inf)
            self.assertTrue(np.isnan([line[name] for name in noise_threshold.TERMS]).all())

    def test_column_without_noise_is_sgd(self):
        problem = regression.sparse(3)
        _, trajectory = diagonal_linear.train(
            problem,
            noise_scales=self.noises,
            relative_steps=self.steps,
            num_runs=2,
            num_steps=6_000,
            seed=3,
            grid=[6_000],
        )
        line = next(line for line in self._pick(0.2, 0.0) if line["data_seed"] == 3)
        self.assertAlmostEqual(line["squared_distance"], np.median(trajectory.squared_distance[-1, :2]), places=12)
        self.assertEqual((line["tilt_norm"], line["displacement"]), (0.0, 0.0))
        # With its own alpha and tilt the exchange gives the run itself.
        for name in ("alpha_alone", "tilt_alone", "run_distance"):
            self.assertAlmostEqual(line[name] / line["sgd_distance"], 1.0, delta=0.01)

    def test_known_directions(self):
        """Noise does not help at small steps, and does at the paper's where runs survive; alpha and tilt pull apart."""
        small, large = (
            next(line for line in noise_threshold.gains(self.lines) if line["relative_step"] == step)
            for step in self.steps[:2]
        )
        self.assertGreater(small["change"], 0.0)
        self.assertLess(large["run_distance"], -0.2)
        self.assertGreaterEqual(large["wins_of_survivors"], large["with_survivors"] - 1)
        for gain in (small, large):
            self.assertLess(gain["alpha_alone"], 0.0)
            self.assertGreater(gain["tilt_alone"], 0.0)
        self.assertLess(large["alpha_alone"], small["alpha_alone"] - 0.3)
        for plain, noisy in zip(self._pick(0.2, 0.0), self._pick(0.2, 0.5), strict=True):
            self.assertLess(noisy["geometric_alpha"], plain["geometric_alpha"])
            self.assertGreater(noisy["tilt_norm"], 0.5)
            self.assertLess(noisy["relative_edge"], plain["relative_edge"])

    def test_figures(self):
        directory = pathlib.Path(self.create_tempdir())
        run = records.create(directory / "map", {"experiment": "map"}, privacy="No guarantee: synthetic data.")
        for line in self.lines:
            run.append(line)
        run.finish({"best": noise_threshold.best(self.lines), "gains": noise_threshold.gains(self.lines)})
        record = records.read(directory / "map")
        json.dumps(record.results)
        for draw in (figures.draw_map, figures.draw_best, figures.draw_terms):
            for path in draw(record, directory):
                self.assertGreater(path.stat().st_size, 100)
        header, *rows = (directory / "noise_threshold.csv").read_text().splitlines()
        self.assertEqual(dict(zip(header.split(","), rows[-1].split(","), strict=True))["diverged"], "8")

    def test_needs_sgd(self):
        with self.assertRaisesRegex(ValueError, "must start with 0"):
            noise_threshold.measure((0,), noise_scales=(0.5,))


if __name__ == "__main__":
    absltest.main()
