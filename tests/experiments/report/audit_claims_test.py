"""Tests of the claims on audits, on records written by hand, each of which is then spoilt."""

import copy
import pathlib

from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.experiments.report import audit_claims, claims


def _case(audit, algorithm, epsilon, lowest, highest, below, count):
    return {
        "audit": audit,
        "algorithm": algorithm,
        "epsilon": epsilon,
        "count": count,
        "below": below,
        "lowest": lowest,
        "highest": highest,
        "largest_bound": epsilon + 0.5,
    }


_GOOD = [
    _case("one run", "dp_sgd", 1.0, 0.0, 0.2, 20, 20),
    _case("many runs", "dp_sgd", 1.0, 0.5, 0.5, 1, 1),
    _case("one run", "noisy_sgd", 1.0, 1.3, 1.5, 0, 20),
    _case("many runs", "noisy_sgd", 1.0, 1.4, 1.4, 0, 1),
    _case("one run", "dp_sgd", 8.0, 0.0, 0.2, 20, 20),
    _case("one run", "noisy_sgd", 8.0, 0.1, 0.2, 20, 20),
    _case("many runs", "noisy_sgd", 8.0, 8.4, 8.4, 0, 1),
]


_CORRELATED = [_case("one run", "dp_sgd", 1.0, 0.0, 0.2, 20, 20)]


def _judge(case, cases, name="digits", correlated=_CORRELATED):
    results = pathlib.Path(case.create_tempdir())
    for folder, found in ((name, cases), ("correlated", correlated)):
        if found:
            records.create(results / "audit" / folder, {"seed": 0}, privacy="none").finish({"cases": found})
    return claims.judge(audit_claims.CLAIMS, results)


class ClaimsTest(parameterized.TestCase):
    def test_good_records_reach_every_claim(self):
        rows = _judge(self, _GOOD)
        self.assertEqual([row.verdict for row in rows], [claims.REACHED] * 4)
        self.assertIn("one run, epsilon 1: 20 of 20 below, bounds 0.00 to 0.20 of at most 1.50", rows[0].here)
        self.assertIn("epsilon 8: 20 of 20 below", rows[2].here)

    @parameterized.parameters(
        (0, 0, {"below": 19}),
        (0, 1, {"below": 0}),
        (0, 4, {"largest_bound": 7.9}),
        (2, 2, {"lowest": 0.9}),
        (3, 3, {"lowest": 1.0}),
        (3, 6, {"lowest": 7.0}),
    )
    def test_one_bad_number_fails_its_claim_alone(self, claim, index, changes):
        found = copy.deepcopy(_GOOD)
        found[index].update(changes)
        expected = [claims.REACHED] * 4
        expected[claim] = claims.NOT_REACHED
        self.assertEqual([row.verdict for row in _judge(self, found)], expected)

    def test_correlated_noise_is_judged_by_its_own_record(self):
        rows = _judge(self, _GOOD, correlated=[{**_CORRELATED[0], "below": 19, "highest": 1.1}])
        self.assertEqual([row.verdict for row in rows], ["reached", "not reached", "reached", "reached"])

    def test_too_few_runs_decide_nothing(self):
        found = copy.deepcopy(_GOOD)
        found[0].update(count=19, below=19)
        self.assertEqual(_judge(self, found)[0].verdict, claims.NOT_RUN)
        self.assertEqual({row.verdict for row in _judge(self, _GOOD, "smoke", None)}, {claims.NOT_RUN})


if __name__ == "__main__":
    absltest.main()
