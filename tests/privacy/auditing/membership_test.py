"""Tests of the attacks on membership, against scikit-learn's ROC curve and normal laws."""

import doctest

import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats
from sklearn import metrics

from noisy_sgd.privacy.auditing import membership


class RocTest(parameterized.TestCase):
    @parameterized.parameters(0, 1)
    def test_area_and_rates_are_scikit_learns(self, digits):
        rng = np.random.default_rng(0)
        members = rng.random(500) < 0.4
        scores = np.round(rng.normal(size=500) + members, digits)
        self.assertAlmostEqual(membership.auc(scores, members), metrics.roc_auc_score(members, scores))
        false, true, _ = metrics.roc_curve(members, scores, drop_intermediate=False)
        for rate in (0.0, 0.001, 0.01, 0.1, 0.5, 1.0):
            self.assertAlmostEqual(
                membership.true_positive_rate(scores, members, rate), max(true[false <= rate + 1e-12])
            )

    def test_refuses_members_alone(self):
        with self.assertRaisesRegex(ValueError, "`members` must hold members and non-members"):
            membership.auc(np.zeros(3), np.ones(3, bool))

    def test_docstrings(self):
        self.assertEqual(doctest.testmod(membership).failed, 0)


class AttacksTest(absltest.TestCase):
    def test_the_ratio_of_two_normal_laws(self):
        rng = np.random.default_rng(1)
        runs, size, spread, shift = 400, 300, 0.5, 0.3
        means = rng.normal(size=size) * 5
        others = rng.random((runs, size)) < 0.5
        other_losses = means - shift * others + spread * rng.normal(size=(runs, size))
        members = rng.random(size) < 0.5
        losses = means - shift * members + spread * rng.normal(size=size)
        expected = stats.norm.logpdf(losses, means - shift, spread) - stats.norm.logpdf(losses, means, spread)
        found = membership.likelihood_ratio(losses, other_losses, others)
        # The fitted means of about 200 runs each have errors of 0.5 / sqrt(200).
        np.testing.assert_allclose(found, expected, atol=1.0)
        self.assertGreater(np.corrcoef(found, expected)[0, 1], 0.95)
        # The means of examples differ far more than membership shifts them: a threshold on the loss sees little.
        self.assertGreater(membership.auc(found, members), 0.6)
        self.assertLess(membership.auc(membership.loss_threshold(losses), members), 0.58)

    def test_an_example_without_evidence_scores_zero(self):
        others = np.array([[True, False, True], [True, False, False], [True, False, True], [True, False, False]])
        found = membership.likelihood_ratio(np.ones(3), np.arange(12.0).reshape(4, 3), others)
        np.testing.assert_array_equal(found[:2], 0)
        self.assertNotEqual(found[2], 0)


if __name__ == "__main__":
    absltest.main()
