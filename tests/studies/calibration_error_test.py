"""Calibration error against a loop over bins, closed forms and a calibrated predictor."""

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd.studies import calibration_error

RNG = np.random.default_rng(0)
LOGITS = 2 * RNG.normal(size=(400, 4))
PROBABILITIES = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
LABELS = RNG.integers(0, 4, 400)


class CalibrationErrorTest(parameterized.TestCase):
    def test_two_predictions_by_hand(self):
        diagram = calibration_error.reliability([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]], np.array([0, 1, 1]), bins=10)
        self.assertEqual(diagram.counts.tolist(), [0, 0, 0, 0, 0, 1, 0, 0, 2, 0])
        self.assertEqual(diagram.accuracies[[5, 8]].tolist(), [1.0, 0.5])
        np.testing.assert_allclose(diagram.confidences[[5, 8]], [0.6, 0.9])
        self.assertTrue(np.isnan(diagram.accuracies[0]))
        self.assertAlmostEqual(diagram.expected_calibration_error, (1 * 0.4 + 2 * 0.4) / 3)

    @parameterized.parameters(1, 7, 15)
    def test_it_is_the_loop_over_bins(self, bins):
        confidence, right = PROBABILITIES.max(axis=1), PROBABILITIES.argmax(axis=1) == LABELS
        expected = 0.0
        for m in range(bins):
            inside = (confidence > m / bins) & (confidence <= (m + 1) / bins)
            if inside.any():
                expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
        found = calibration_error.expected_calibration_error(PROBABILITIES.astype(np.float32), LABELS, bins)
        self.assertAlmostEqual(found, expected, places=6)

    def test_an_edge_belongs_to_the_bin_below(self):
        diagram = calibration_error.reliability([[0.5, 0.5], [1.0, 0.0]], [0, 0], bins=2)
        self.assertEqual(diagram.counts.tolist(), [1, 1])

    def test_labels_drawn_from_the_predictions_are_calibrated(self):
        # 40,000 draws in 15 bins: the error of a calibrated predictor is about sqrt(15 / 40,000) / 2 = 0.01.
        rows = np.repeat(PROBABILITIES, 100, axis=0)
        drawn = (RNG.random((len(rows), 1)) > np.cumsum(rows, axis=1)[:, :3]).sum(axis=1)
        self.assertLess(calibration_error.expected_calibration_error(rows, drawn), 0.02)
        sharpened = rows**3 / (rows**3).sum(axis=1, keepdims=True)
        self.assertGreater(calibration_error.expected_calibration_error(sharpened, drawn), 0.1)

    def test_iterates_are_averaged(self):
        iterates = [PROBABILITIES, PROBABILITIES[::-1], np.full_like(PROBABILITIES, 0.25)]
        averaged = calibration_error.mean_probabilities(iter(iterates))
        np.testing.assert_allclose(averaged, np.mean(iterates, axis=0), rtol=1e-12)

    @parameterized.parameters(
        ({"probabilities": LOGITS}, r"`probabilities` must be \[n, classes\].*softmax.*Received: .*\(400, 4\)"),
        ({"probabilities": PROBABILITIES[0]}, "`probabilities` must be"),
        ({"probabilities": np.full((400, 4), np.nan)}, "`probabilities` must be"),
        ({"labels": LABELS[1:]}, r"`labels` must be 400 integers in .*Received: labels='int64 of shape \(399,\)'$"),
        ({"labels": LABELS + 1}, "`labels` must be 400 integers in"),
        ({"labels": LABELS * 1.0}, "`labels` must be 400 integers in"),
        ({"bins": 0}, "`bins` must be a whole number of at least 1"),
    )
    def test_bad_arguments_are_refused(self, arguments, message):
        with self.assertRaisesRegex(ValueError, message):
            calibration_error.expected_calibration_error(
                **{"probabilities": PROBABILITIES, "labels": LABELS, **arguments}
            )

    def test_bad_iterates_are_refused(self):
        with self.assertRaisesRegex(ValueError, "`iterates` must hold at least one"):
            calibration_error.mean_probabilities([])
        with self.assertRaisesRegex(ValueError, r"`iterates` must hold arrays of one shape.*\(399, 4\)"):
            calibration_error.mean_probabilities([PROBABILITIES, PROBABILITIES[1:]])


if __name__ == "__main__":
    absltest.main()
