"""Tests of the claims on Figures 3 to 7: on made-up records, each of which is then spoilt."""

import copy
import pathlib

from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.experiments.report import claims, diagonal_linear_claims, noise_threshold_claims
from noisy_sgd.studies import diagonal_linear


def _final(algorithm, noise, distance):
    diverged = -1 if distance is not None else 40
    return {"algorithm": algorithm, "noise_scale": noise, "squared_distance": distance, "diverged_at": diverged}


def _map(step, noise, diverged, distance, data_seed):
    return {
        "relative_step": step,
        "noise_scale": noise,
        "num_runs": 4,
        "diverged": diverged,
        "squared_distance": distance,
        "data_seed": data_seed,
    }


def _small(noise, gap):
    return {"noise_scale": noise, "untilted_formula": gap}


_NOISES = (0.0, 0.25, 0.5)
_GOOD = {
    "diagonal_linear/figure_3": {
        "finals": [
            _final("gd", 0.0, 0.5),
            _final("sgd", 0.0, 0.04),
            _final("noisy_sgd", 0.5, None),
            _final("noisy_sgd", 0.5, 0.006),
        ]
    },
    "diagonal_linear/figure_4": {
        "finals": [_final("sgd", 0.0, 0.1)],
        "limits": [_small(noise, 0.01 + noise / 10 + run / 1000) for noise in _NOISES for run in range(6)],
    },
    "diagonal_linear/figure_5": {"finals": [_final("noisy_sgd", 0.35, 0.04), _final("noisy_sgd", 0.4, 0.02)]},
    "diagonal_linear/figure_6": {
        "finals": [_final("gd", 0.0, 3e-3), *(_final("sgd", noise, 4e-5) for noise in _NOISES)]
    },
    "diagonal_linear/figure_7": {
        "finals": [_final("sgd", 0.0, 4e-5)],
        "limits": [_small(noise, 1e-5) for noise in _NOISES],
    },
    "noise_threshold/map": {
        "lines": [
            *(_map(diagonal_linear.PAPER_STEP, noise, lost, 0.1, 0) for lost, noise in enumerate(_NOISES)),
            *(
                _map(step, noise, 0, 0.2 if noise and seed else 0.1 - noise / 10, seed)
                for step in (0.4, 0.5)
                for noise in _NOISES
                for seed in range(3)
            ),
        ]
    },
}
_PLACES = ("figure_3", "figure_4", "figure_5", "figure_6", "figure_7", "map", "map")


def _judge(case, found):
    results = pathlib.Path(case.create_tempdir())
    for place, values in found.items():
        run = records.create(results / place, {"seed": 0}, privacy="none")
        for line in values.get("lines", ()):
            run.append(line)
        run.finish(values)
    return claims.judge((*diagonal_linear_claims.CLAIMS, *noise_threshold_claims.CLAIMS), results)


class ClaimsTest(parameterized.TestCase):
    def test_good_records_reach_every_claim(self):
        rows = _judge(self, _GOOD)
        self.assertEqual([row.verdict for row in rows], [claims.REACHED] * len(_PLACES))
        self.assertIn("1 of 3 runs diverged", rows[0].here)
        self.assertIn("0 % at sigma = 0, 25 % at sigma = 0.25, 50 % at sigma = 0.5 (4 runs each)", rows[5].here)
        self.assertIn("1 of 3 at 0.4, 1 of 3 at 0.5", rows[6].here)

    @parameterized.parameters(
        (0, "diagonal_linear/figure_3", "finals", 1, {"squared_distance": 0.14}),
        (0, "diagonal_linear/figure_3", "finals", 3, {"squared_distance": None}),
        (5, "noise_threshold/map", "lines", 0, {"diverged": 2}),
        (5, "noise_threshold/map", "lines", 1, {"diverged": 0}),
        (6, "noise_threshold/map", "lines", 10, {"squared_distance": 0.01}),
        (2, "diagonal_linear/figure_5", "finals", 1, {"squared_distance": 0.05}),
        (3, "diagonal_linear/figure_6", "finals", 3, {"squared_distance": 2e-4}),
        (4, "diagonal_linear/figure_7", "limits", 0, {"untilted_formula": 1e-6}),
    )
    def test_one_bad_number_fails_its_claim_alone(self, claim, place, name, index, changes):
        found = copy.deepcopy(_GOOD)
        found[place][name][index].update(changes)
        expected = [claims.REACHED] * len(_PLACES)
        expected[claim] = claims.NOT_REACHED
        self.assertEqual([row.verdict for row in _judge(self, found)], expected)

    @parameterized.parameters(lambda gap: 0.1 - gap, lambda gap: 0.01 + gap % 0.003)
    def test_a_fall_or_no_trend_is_no_rise(self, change):
        found = copy.deepcopy(_GOOD)
        for line in found["diagonal_linear/figure_4"]["limits"]:
            line["untilted_formula"] = change(line["untilted_formula"])
        self.assertEqual(_judge(self, found)[1].verdict, claims.NOT_REACHED)

    def test_what_was_not_run_is_said(self):
        found = {"diagonal_linear/figure_5": _GOOD["diagonal_linear/figure_5"]}
        expected = [claims.REACHED if place == "figure_5" else claims.NOT_RUN for place in _PLACES]
        self.assertEqual([row.verdict for row in _judge(self, found)], expected)


if __name__ == "__main__":
    absltest.main()
