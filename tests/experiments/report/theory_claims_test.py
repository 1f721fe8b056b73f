"""Tests of the theory's claims: on made-up lines that fail each of them, and on a shortened measurement."""

import copy
import pathlib

from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.experiments.report import claims, theory_claims
from noisy_sgd.studies import theory

_GOOD = [
    {"measurement": "surrogate_covariance", "noise_scale": 0.0, "error_discrete": 0.01, "effective_samples": 9},
    {
        "measurement": "surrogate_covariance",
        "noise_scale": 0.3,
        "error_discrete": 0.01,
        "error_paper_eq15": 0.4,
        "effective_samples": 9,
    },
    {
        "measurement": "sampled_covariance",
        "error_recursion": 0.01,
        "model_gap": 0.3,
        "num_examples": 60,
        "effective_samples": 9,
    },
    {"measurement": "theorem_1", "largest_z": 1.0, "time": [1, 2], "num_pairs": 9},
    {"measurement": "interpolation", "gd": 0.0, "sgd": 1e-9, "num_runs_sgd": 2, "num_steps": 9},
    {"measurement": "gradient_descent_limit", "relative_error": 5e-5, "relative_step": 0.003},
    {"measurement": "weight_product", "relative_error": 1e-13, "num_runs": 5, "num_steps": 9},
    *(
        {
            "measurement": "limits",
            "relative_step": 0.05,
            "noise_scale": noise,
            "log_ratio": 1.01,
            "tilted": 1e-8,
            "untilted": 1e-2,
            "tilted_formula": 1e-4,
            "untilted_formula": 1e-2,
            "proposition_3_left": 0.1,
            "tilt_norm": 1.0,
        }
        for noise in (0.0, 0.5)
    ),
    *(
        {
            "measurement": "compare",
            "gd": 0.5,
            "sgd": [0.1, 0.2],
            "noisy_sgd": [0.01, None if lost else 0.02],
            "unstable_noisy_sgd": lost,
        }
        for lost in [True] * 8 + [False] * 4
    ),
    *({"measurement": "alpha_ratios", "relative_step": 0.77, "noise_scale": n, "log_ratio": 1.01} for n in (0.0, 0.5)),
    *({"measurement": "unstable", "unstable_sgd": False, "unstable_noisy_sgd": lost} for lost in (True, False)),
    *(
        {"measurement": f"compare_at_{step}", "gd": 0.5, "sgd": [0.2, 0.2], "noisy_sgd": [0.1, 0.1]}
        for step in (0.6, 0.5)
        for _ in range(8)
    ),
]
_CLAIMS = len(theory_claims.CLAIMS)


def _judge(case, lines):
    directory = pathlib.Path(case.create_tempdir())
    run = records.create(directory / "theory" / "run", {"seed": 0}, privacy="No guarantee: synthetic data.")
    for line in lines:
        run.append(line)
    run.finish({})
    return [row.verdict for row in claims.judge(theory_claims.CLAIMS, directory)]


class ClaimsTest(parameterized.TestCase):
    def test_good_lines_reach_every_claim(self):
        self.assertEqual(_judge(self, _GOOD), [claims.REACHED] * _CLAIMS)

    @parameterized.parameters(
        (0, 0, "error_discrete", 0.05),
        (1, 1, "error_discrete", 0.05),
        (1, 1, "error_paper_eq15", 0.05),
        (2, 2, "error_recursion", 0.05),
        (3, 3, "largest_z", 5.0),
        (4, 4, "sgd", 1e-3),
        (5, 5, "relative_error", 1e-3),
        (6, 6, "relative_error", 1e-6),
        (7, 7, "log_ratio", 0.9),
        (8, 8, "log_ratio", 1.1),
        (9, 21, "log_ratio", 1.1),
        (10, 22, "log_ratio", 0.9),
        (11, 8, "untilted", 1e-7),
        (12, 8, "proposition_3_left", 2.0),
        (14, 25, "noisy_sgd", [0.3, None]),
        (15, 33, "noisy_sgd", [0.3, 0.3]),
        (16, 9, "sgd", [None, None]),
    )
    def test_one_bad_number_fails_its_claim_alone(self, claim, line, name, value):
        lines = copy.deepcopy(_GOOD)
        lines[line][name] = value
        expected = [claims.REACHED] * _CLAIMS
        expected[claim] = claims.NOT_REACHED
        self.assertEqual(_judge(self, lines), expected)

    @parameterized.parameters((13, "noisy_sgd", [0.3, None]), (17, "unstable_noisy_sgd", False))
    def test_several_bad_data_sets_fail_a_claim_on_data_sets(self, claim, name, value):
        lines = copy.deepcopy(_GOOD)
        for line in lines[9:13]:
            line[name] = value
        expected = [claims.REACHED] * _CLAIMS
        expected[claim] = claims.NOT_REACHED
        self.assertEqual(_judge(self, lines), expected)

    def test_without_lines_nothing_was_run(self):
        self.assertEqual(_judge(self, []), [claims.NOT_RUN] * _CLAIMS)

    def test_measurements_carry_what_the_claims_read(self):
        measurements = theory.measurements(num_data_sets=2, num_steps=3_000, num_runs=3)
        descent = [("gradient_descent_limit", lambda: [_GOOD[5]])]
        # Two data sets of each comparison are enough.
        todo = [
            one for one in measurements if one[0] != descent[0][0] and not one[0].startswith("compare_at")
        ] + descent
        todo += [one for one in measurements if one[0].startswith("compare_at")][30:34]
        verdicts = _judge(self, [{"measurement": name} | line for name, lines in todo for line in lines()])
        self.assertNotIn(claims.NOT_RUN, verdicts)
        self.assertEqual(verdicts[:9] + verdicts[11:13], [claims.REACHED] * 11)


if __name__ == "__main__":
    absltest.main()
