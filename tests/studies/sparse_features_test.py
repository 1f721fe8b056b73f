"""Tests of large steps before small ones: plain SGD at length 0, divergence as a loss, the trend and the claims."""

import types
from unittest import mock

import numpy as np
from absl.testing import absltest
from scipy import stats

from noisy_sgd.data import regression
from noisy_sgd.experiments.report import sparse_features_claims
from noisy_sgd.studies import diagonal_linear, sparse_features


class MeasureTest(absltest.TestCase):
    def test_without_large_steps_it_is_plain_sgd(self):
        line = sparse_features.measure({"data_seed": 7, "num_runs": 2, "num_steps": 240})
        self.assertEqual(line["lengths"], [0, 4, 40, 120])
        # The four lengths train side by side, and draw what eight runs draw.
        _, plain = diagonal_linear.train(
            regression.sparse(7), noise_scales=(0.0,), relative_steps=(0.05,), num_runs=8, num_steps=240, seed=15
        )
        expected = np.median(plain.squared_distance[-1, :2])
        self.assertAlmostEqual(line["squared_distance"][0], expected, places=12)
        self.assertAlmostEqual(line["last_loss"][0], np.median(plain.loss[-1, :2]), places=12)
        # Large steps come nearer within the same number of small ones, by a smaller alpha.
        self.assertLess(line["squared_distance"][-1], line["squared_distance"][0])
        self.assertLess(line["alpha"][-1], line["alpha"][0])

    def test_divergence_is_a_loss(self):
        with mock.patch.object(sparse_features, "LARGE", 5.0):
            line = sparse_features.measure({"data_seed": 7, "num_runs": 2, "num_steps": 6_000})
        self.assertEqual(line["diverged"], [0, 2, 2, 2])
        self.assertEqual(line["squared_distance"][1:], [np.inf] * 3)
        self.assertTrue(np.isfinite(line["squared_distance"][0]))


class SummaryTest(absltest.TestCase):
    def test_trends(self):
        lines = [_line([4.0, 3.0, 2.0 + seed % 2, 2.5]) for seed in range(6)]
        lines[5]["squared_distance"] = [4.0, None, None, None]
        found = sparse_features.summary(lines)
        table = -np.array([line["squared_distance"] for line in lines[:5]] + [[4.0, np.inf, np.inf, np.inf]])
        overall, above_0 = (stats.page_trend_test(values).pvalue for values in (table, table[:, 1:]))
        self.assertLess(overall, above_0)
        self.assertAlmostEqual(found["p"], 2 * overall)
        self.assertAlmostEqual(found["p_above_0"], above_0)
        self.assertEqual(found["squared_distance"], [4.0, 3.0, 2.5, 2.5])
        self.assertEqual(found["nearer_than_without"], [5, 5, 5])

    def test_rows(self):
        falling = sparse_features.summary([_line([4.0, 3.0, 2.0, 1.0])] * 12)
        flat = sparse_features.summary([_line([4.0, 1.0 + seed % 2, 2.0 - seed % 2, 1.5]) for seed in range(12)])
        for summary, expected in ((falling, [True, True]), (flat, [True, False])):
            run = types.SimpleNamespace(
                results={"summary": summary}, directory=types.SimpleNamespace(name="large_steps")
            )
            self.assertEqual([claim.measure([run]).reached for claim in sparse_features_claims.CLAIMS], expected)


def _line(distances):
    values = {key: [1.0] * 4 for key in ("alpha", "first_loss", "last_loss")}
    return values | {"squared_distance": distances, "lengths": [0, 1, 2, 3], "diverged": [0] * 4, "num_runs": 5}


if __name__ == "__main__":
    absltest.main()
