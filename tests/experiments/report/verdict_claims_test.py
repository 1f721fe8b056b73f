import pathlib

from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.experiments.report import claims, clipping_or_noise_claims, pruning_claims, verdict_claims
from noisy_sgd.studies import verdicts

VALUES = {"confirmed": [1.0, 1.2, 1.1, 0.9], "undecided": [1.0, -1.2, 0.3, -0.2], "refuted": [-1.0, -1.2, -1.1, -0.9]}


class VerdictClaimsTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.results = pathlib.Path(self.create_tempdir().full_path)

    def record(self, experiment, rows):
        run = records.create(self.results / experiment / "mnist", {}, privacy="none")
        run.finish({"rows": verdicts.judge(rows)})

    def judge(self, *rows):
        claimed = [verdict_claims.of_row(name, "said", "some", "mnist", name) for name in rows]
        return claims.judge(claimed, self.results)

    @parameterized.parameters(*VALUES)
    def test_only_what_is_confirmed_is_reached(self, verdict):
        self.record("some", [verdicts.Row("row", {"part": VALUES[verdict]})])
        (row,) = self.judge("row")
        self.assertEqual(row.verdict, claims.REACHED if verdict == "confirmed" else claims.NOT_REACHED)
        mean = sum(VALUES[verdict]) / 4
        self.assertStartsWith(row.here, f"{verdict}: part: {mean:+.2f} [")
        self.assertIn("(4 seeds, p = ", row.here)

    def test_what_cannot_be_judged_is_not_run(self):
        self.record("some", [verdicts.Row("one seed", {"part": [1.0]}), verdicts.Row("lost", {"part": [1.0, None]})])
        other, single, lost = self.judge("other", "one seed", "lost")
        self.assertEqual((other.verdict, single.verdict), (claims.NOT_RUN, claims.NOT_RUN))
        self.assertEqual(lost.verdict, claims.NOT_REACHED)
        self.assertIn("part: a run diverged", lost.here)

    def test_the_claims_of_the_studies_wait_for_their_runs(self):
        for experiment, claimed in (("clipping_or_noise", clipping_or_noise_claims), ("pruning", pruning_claims)):
            self.assertEqual({claim.experiment for claim in claimed.CLAIMS}, {experiment})
            self.assertEqual(
                {row.verdict for row in claims.judge(claimed.CLAIMS, self.results)}, {claims.NOT_RUN}, experiment
            )


if __name__ == "__main__":
    absltest.main()
