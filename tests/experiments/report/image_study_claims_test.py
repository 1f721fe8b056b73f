"""Tests of the claims on the landscape, on noise, on step sizes and on tails: each is decided by a row of its study."""

import pathlib

from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.experiments.report import (
    claims,
    gradient_tails_claims,
    landscape_claims,
    noise_benefit_claims,
    private_step_sizes_claims,
)
from noisy_sgd.studies import gradient_tails, landscape, noise_benefit, private_step_sizes, verdicts

_SEEDS = [1.0, 1.2, 1.1, 0.9]
_TAILS = [{"points": [{index: dict.fromkeys(gradient_tails.KINDS, 2.0) for index in ("mcculloch", "hill")}]}]
_BENEFIT = [
    {
        "tuning": False,
        "batch_size": size,
        "budget": budget,
        "seed": 0,
        "judged_accuracy": 0.9,
        "train_loss": 0.1,
    }
    for size in (16, 1_000)
    for budget in noise_benefit.BUDGETS
]
_STEPS = [
    {"optimizer": name, "seed": 0, "noise_multiplier": noise, "learning_rate": rate, "accuracy": rate}
    for name in private_step_sizes.OPTIMIZERS
    for noise in (1.0, 2.0)
    for rate in (0.1, 0.2, 0.4)
]


class ImageStudyClaimsTest(parameterized.TestCase):
    @parameterized.parameters(
        (landscape_claims, landscape, []),
        (noise_benefit_claims, noise_benefit, _BENEFIT),
        (private_step_sizes_claims, private_step_sizes, _STEPS),
        (gradient_tails_claims, gradient_tails, _TAILS),
    )
    def test_every_row_of_the_study_decides_one_claim(self, module, study, lines):
        names = [row.name for row in study.rows(lines)]
        self.assertLen(module.CLAIMS, len(names))
        (experiment,) = {claim.experiment for claim in module.CLAIMS}
        results = pathlib.Path(self.create_tempdir().full_path)
        for confirmed in names:
            rows = [
                verdicts.Row(name, {"part": _SEEDS if name == confirmed else [-value for value in _SEEDS]})
                for name in names
            ]
            place = results / confirmed
            records.create(place / experiment / "images", {}, privacy="none").finish({"rows": verdicts.judge(rows)})
            judged = claims.judge(module.CLAIMS, place)
            self.assertEqual([row.verdict for row in judged].count(claims.REACHED), 1, confirmed)
            self.assertEqual([row.verdict for row in judged].count(claims.NOT_REACHED), len(names) - 1)


if __name__ == "__main__":
    absltest.main()
