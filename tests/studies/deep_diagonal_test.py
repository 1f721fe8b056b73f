"""Tests of the comparison of depths: depth 2 is the ordinary one, divergence, made-up lines for the counts, figures."""

import json
import pathlib
import types

import numpy as np
from absl.testing import absltest

from noisy_sgd import records
from noisy_sgd.data import regression
from noisy_sgd.experiments.report import deep_diagonal_claims
from noisy_sgd.figures import deep_diagonal as figures
from noisy_sgd.studies import deep_diagonal, diagonal_linear

_SMALL = dict(num_examples=12, dimension=30, num_nonzeros=3)


def _line(algorithm, distance, noise=0.0, diverged=0, data_seed=0, judged=None):
    return {
        "data_seed": data_seed,
        "depth": 3,
        "fraction": 0.5,
        "algorithm": algorithm,
        "noise_scale": noise,
        "num_runs": 4,
        "diverged": diverged,
        "unfinished": 0,
        "squared_distance": distance,
        "judged_distance": distance if judged is None else judged,
    }


class MeasureTest(absltest.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.lines = deep_diagonal.measure(
            (0, 1),
            depths=(2, 3, 4),
            fractions=(0.5, 8.0),
            noise_scales=(0.0, 0.5),
            num_runs=3,
            num_steps=4_000,
            **_SMALL,
        )

    def _one(self, **wanted):
        (line,) = (line for line in self.lines if wanted.items() <= line.items())
        return line

    def test_one_line_a_case(self):
        # Gradient descent once, SGD and Noisy-SGD: 3 algorithms.
        self.assertLen(self.lines, 2 * 3 * 2 * 3)

    def test_depth_two_is_the_ordinary_network(self):
        problem = regression.sparse(1, **_SMALL)
        sgd = self._one(data_seed=1, depth=2, fraction=0.5, algorithm="sgd")
        noisy = self._one(data_seed=1, depth=2, fraction=0.5, algorithm="noisy_sgd")
        step = sgd["relative_step"]
        _, trajectory = diagonal_linear.train(
            problem, relative_steps=(step, 16 * step), num_runs=3, num_steps=4_000, seed=1, grid=[4_000]
        )
        for line, runs in ((sgd, slice(0, 3)), (noisy, slice(3, 6))):
            found = np.median(trajectory.squared_distance[-1, runs])
            self.assertAlmostEqual(line["squared_distance"] / found, 1.0, places=6)

    def test_same_scale_of_beta_at_every_depth(self):
        for depth in (2, 3, 4):
            line = self._one(data_seed=0, depth=depth, fraction=0.5, algorithm="gd")
            self.assertAlmostEqual(line["alpha"] ** depth, 0.01)

    def test_beyond_the_edge_runs_diverge(self):
        for line in self.lines:
            if line["fraction"] == 8.0 and line["algorithm"] != "gd":
                self.assertEqual(line["diverged"], 3)
                self.assertTrue(np.isnan(line["squared_distance"]))
                self.assertEqual(line["judged_distance"], np.inf)
            if line["fraction"] == 0.5:
                self.assertEqual(line["diverged"], 0)

    def test_noise_shrinks_alpha_and_tilts_less_at_depth(self):
        for seed in (0, 1):
            losses = []
            for depth in (2, 3, 4):
                gd, sgd, noisy = (
                    self._one(data_seed=seed, depth=depth, fraction=0.5, algorithm=name)
                    for name in ("gd", "sgd", "noisy_sgd")
                )
                self.assertGreater(gd["alpha_ratio"], 0.97)
                self.assertLess(noisy["alpha_ratio"], sgd["alpha_ratio"])
                self.assertGreater(noisy["tilt_norm"], 3 * sgd["tilt_norm"])
                losses.append(-np.log(noisy["alpha_ratio"]))
                self.assertAlmostEqual(losses[-1] / -np.log(noisy["alpha_ratio_formula"]), 1.0, delta=0.5)
            self.assertGreater(losses[0], 2 * losses[1])
            self.assertGreater(losses[1], 1.5 * losses[2])

    def test_figures(self):
        directory = pathlib.Path(self.create_tempdir())
        run = records.create(directory / "run", {"experiment": "deep"}, privacy="No guarantee: synthetic data.")
        for line in self.lines:
            run.append(line)
        results = {"order": deep_diagonal.order(self.lines)}
        json.dumps(results)
        run.finish(results)
        record = records.read(directory / "run")
        for path in (*figures.draw_distances(record, directory), *figures.draw_alpha(record, directory)):
            self.assertGreater(path.stat().st_size, 100)
        header, first = (directory / "deep_diagonal.csv").read_text().splitlines()[:2]
        self.assertEqual(dict(zip(header.split(","), first.split(","), strict=True))["diverged"], "0")


class OrderTest(absltest.TestCase):
    def test_counts_wins_and_divergence(self):
        lines = []
        for seed, (sgd, noisy, diverged, judged) in enumerate(
            [(0.5, 0.2, 0, None), (0.5, 0.1, 3, np.inf), (0.5, 0.7, 1, None), (0.5, np.nan, 4, np.inf)]
        ):
            lines.append(_line("gd", 1.0, data_seed=seed))
            lines.append(_line("sgd", sgd, data_seed=seed))
            lines.append(_line("noisy_sgd", noisy, 0.5, diverged, seed, judged))
        (found,) = deep_diagonal.order(lines)
        self.assertEqual((found["noisy_better"], found["noisy_better_of"]), (2, 3))
        self.assertEqual((found["sgd_better"], found["sgd_better_of"], found["sgd_better_p"]), (4, 4, 0.125))
        self.assertEqual(found["noisy_better_divergence_lost"], 1)
        self.assertEqual((found["noisy_sgd_diverged"], found["noisy_sgd_runs"]), (8, 16))
        self.assertAlmostEqual(found["noisy_sgd_median"], 0.2)


class ClaimsTest(absltest.TestCase):
    def test_rows(self):
        order = [
            {
                "depth": depth,
                "fraction": 0.9,
                "data_sets": 12,
                "noisy_better_divergence_lost": wins,
                "sgd_diverged": 1,
                "noisy_sgd_diverged": 2,
                "sgd_runs": 36,
            }
            for depth, wins in ((2, 12), (3, 0), (4, 1))
        ]
        self.assertEqual(_verdicts(order), [True] * 3)
        for row, wins in ((0, 9), (1, 12), (2, 6)):
            spoilt = [
                line | {"noisy_better_divergence_lost": wins} if row == at else line for at, line in enumerate(order)
            ]
            self.assertEqual(_verdicts(spoilt), [at != row for at in range(3)])
        run = types.SimpleNamespace(results={"order": order[:2]}, directory=types.SimpleNamespace(name="depths"))
        self.assertIsNone(deep_diagonal_claims.CLAIMS[0].measure([run]))


def _verdicts(order):
    run = types.SimpleNamespace(results={"order": order}, directory=types.SimpleNamespace(name="depths"))
    return [claim.measure([run]).reached for claim in deep_diagonal_claims.CLAIMS]


if __name__ == "__main__":
    absltest.main()
