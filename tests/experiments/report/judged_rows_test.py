"""Tests of the claims that studies judge themselves: on made-up results, and each against its study's rows."""

import pathlib

from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.experiments.report import (
    claims,
    gradient_tails_claims,
    judged_rows,
    landscape_claims,
    noise_benefit_claims,
    private_step_sizes_claims,
)
from noisy_sgd.studies import verdicts


def _results(*rows):
    return {"rows": verdicts.judge(rows)}


class JudgedRowsTest(parameterized.TestCase):
    def judge(self, claimed, results):
        folder = pathlib.Path(self.create_tempdir().full_path)
        records.create(folder / "study" / "images", {"dataset": "digits"}, privacy="none").finish(results)
        return claims.judge([claimed], folder)[0]

    @parameterized.parameters(
        ([1.0, 1.1, 0.9], claims.REACHED, "confirmed: effect 1 [0.752, 1.25], 3 seeds"),
        ([-1.0, -1.1, -0.9], claims.NOT_REACHED, "refuted: effect -1 [-1.25, -0.752], 3 seeds"),
        ([1.0, -1.1, 0.9], claims.NOT_REACHED, "undecided: "),
        ([None], claims.NOT_REACHED, "undecided: effect not measured on enough seeds"),
    )
    def test_a_row_is_judged_by_its_verdict(self, values, verdict, here):
        claimed = judged_rows.claim("text", "source", "study", "images", "one")
        row = self.judge(claimed, _results(verdicts.Row("one", {"effect": values})))
        self.assertEqual(row.verdict, verdict)
        self.assertStartsWith(row.here, here)
        self.assertEndsWith(row.here, "after Holm; digits)")

    def test_a_record_without_the_row_decides_nothing(self):
        claimed = judged_rows.claim("text", "source", "study", "images", "two")
        row = self.judge(claimed, _results(verdicts.Row("one", {"effect": [1.0, 2.0]})))
        self.assertEqual(row.verdict, claims.NOT_RUN)

    @parameterized.parameters(
        (landscape_claims, 4), (noise_benefit_claims, 2), (private_step_sizes_claims, 3), (gradient_tails_claims, 2)
    )
    def test_every_study_has_its_claims(self, module, count):
        self.assertLen(module.CLAIMS, count)
        self.assertLen({claim.experiment for claim in module.CLAIMS}, 1)


if __name__ == "__main__":
    absltest.main()
