import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from noisy_sgd import statistics
from noisy_sgd.studies import verdicts

RANDOM = np.random.default_rng(0)
HIGH, ZERO = RANDOM.normal(1.0, 0.5, 10), RANDOM.normal(0.0, 1.0, 10)
ZERO -= ZERO.mean()


def judge(parts, kind=verdicts.ALL):
    (row,) = verdicts.judge([verdicts.Row("row", parts, kind)])
    return row


class VerdictsTest(parameterized.TestCase):
    @parameterized.parameters(
        (verdicts.ALL, (HIGH, HIGH), verdicts.CONFIRMED),
        (verdicts.ALL, (HIGH, ZERO), verdicts.UNDECIDED),
        (verdicts.ALL, (HIGH, -HIGH), verdicts.REFUTED),
        (verdicts.ANY, (HIGH, ZERO), verdicts.CONFIRMED),
        (verdicts.ANY, (HIGH, -HIGH), verdicts.CONFIRMED),
        (verdicts.ANY, (ZERO, -HIGH), verdicts.UNDECIDED),
        (verdicts.ANY, (-HIGH, -HIGH), verdicts.REFUTED),
        (verdicts.ALL, (HIGH[:1],), verdicts.UNDECIDED),
        (verdicts.ALL, ([*HIGH[:-1], None],), verdicts.UNDECIDED),
        (verdicts.ALL, ([0.5, 0.5],), verdicts.CONFIRMED),
        (verdicts.ALL, ([0.0, 0.0],), verdicts.UNDECIDED),
    )
    def test_verdicts(self, kind, parts, expected):
        row = judge({str(number): values for number, values in enumerate(parts)}, kind)
        self.assertEqual(row["verdict"], expected)

    def test_numbers_are_student_s(self):
        row = judge({"one": HIGH, "two": HIGH - 0.2})
        two = row["parts"][1]
        expected = statistics.estimate(HIGH - 0.2)
        self.assertEqual((two["part"], two["seeds"]), ("two", 10))
        self.assertEqual((two["mean"], two["low"], two["high"]), (expected.mean, expected.low, expected.high))
        self.assertAlmostEqual(row["p_value"], stats.ttest_1samp(HIGH - 0.2, 0).pvalue, places=12)

    def test_any_pays_for_its_parts_and_a_study_for_its_rows(self):
        alone = judge({"one": HIGH})["p_value"]
        self.assertAlmostEqual(judge({"one": HIGH, "two": ZERO, "three": ZERO}, verdicts.ANY)["p_value"], 3 * alone)
        rows = verdicts.judge([verdicts.Row("a", {"one": HIGH}), verdicts.Row("b", {"one": ZERO})])
        self.assertAlmostEqual(rows[0]["p_value"], 2 * alone)

    def test_holm_can_undo_a_single_interval(self):
        weak = ZERO + stats.t.ppf(0.98, 9) * ZERO.std(ddof=1) / np.sqrt(10)
        self.assertEqual(judge({"one": weak})["verdict"], verdicts.CONFIRMED)
        rows = verdicts.judge([verdicts.Row(name, {"one": weak}) for name in "ab"])
        self.assertEqual(rows[0]["verdict"], verdicts.UNDECIDED)

    @parameterized.parameters((0.1, verdicts.CONFIRMED), (0.9, verdicts.UNDECIDED), (-2.0, verdicts.REFUTED))
    def test_equal_within_a_margin(self, shift, expected):
        parts = verdicts.equal(0.1 * ZERO + shift, 0.95)
        self.assertLen(parts, 2)
        self.assertEqual(judge(parts)["verdict"], expected)


if __name__ == "__main__":
    absltest.main()
