"""Tests of the study of correlated noise: shared draws, chosen scales, what is counted, and the rows of the report."""

import dataclasses
import types
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.data import regression
from noisy_sgd.experiments.report import correlated_noise_claims
from noisy_sgd.studies import correlated_noise as study
from noisy_sgd.toy import settings, simulation

ARMS = study.arms()
INDEX = {(arm.kind, arm.value, arm.scale): index for index, arm in enumerate(ARMS)}
JUDGED = study.RELATIVE_STEPS.index(study.STEP)
RUNS = 2


def index_of(kind, value=0.0):
    return next(index for index, arm in enumerate(ARMS) if (arm.kind, arm.value) == (kind, value))


def final(seed, **changes):
    """A line of the final stage: everything is 1, but for the values by arm at the judged step size."""
    count = len(ARMS)
    line = {
        "stage": "final",
        "data_seed": seed,
        "alpha": study.ALPHA,
        "num_runs": RUNS,
        "best_sigmas": [0.5] * len(study.RELATIVE_STEPS),
        "tuned_scales": [1.0] * len(study.RELATIVE_STEPS),
    }
    for name in ("squared_distance", "diverged", "geometric_alpha", "over_formula", "tilt_norm", "loss"):
        values = np.full((len(study.RELATIVE_STEPS), count), 0.0 if name == "diverged" else 1.0)
        for (kind, value), number in changes.get(name, {}).items():
            values[JUDGED, index_of(kind, value)] = number
        for index, number in changes.get(f"{name}_of_sigmas", {}).items():
            values[JUDGED, index] = number
        line[name] = values.ravel().tolist()
    return records.plain(line)


class ArmsTest(absltest.TestCase):
    def test_the_variances_of_a_step(self):
        by_name = {(arm.kind, arm.value): arm for arm in ARMS}
        for value in study.LAMBDAS:
            nominal, same, equal = (by_name[kind, value] for kind in ("nominal", "same_variance", "equal"))
            variance = nominal.scale**2 * (1 + value**2)
            self.assertAlmostEqual(variance, 0.25 * (1 + value**2) / (1 - value**2))
            self.assertAlmostEqual(same.scale**2, variance)
            self.assertAlmostEqual(equal.scale * np.hypot(1, value), 0.5)
            self.assertEqual(nominal.coefficients, (1.0, -value))
            self.assertEqual(same.coefficients, (1.0, 0.0))
        self.assertAlmostEqual(by_name["nominal", 0.9].scale ** 2 * 1.81 / 0.25, 9.526, places=3)


class MeasureTest(absltest.TestCase):
    def test_all_arms_share_the_draws_of_a_run(self):
        problem = regression.sparse(7)
        alone = settings.RunSettings(
            model="diagonal_linear", features=problem.features, targets=problem.targets, num_runs=RUNS,
            step_size=0.4 / problem.largest_eigenvalue, noise_scale=0.5,
        )  # fmt: skip
        several = dataclasses.replace(alone, num_runs=3 * RUNS, step_size=alone.step_size[0], noise_scale=0.5,
                                      initial=0.1)  # fmt: skip
        expected = simulation.simulate(alone, 900, 7).weights
        found = simulation.simulate(several, 900, 7, source=study._Shared(several, RUNS, 7)).weights
        for copy in range(3):
            np.testing.assert_array_equal(found[copy * RUNS : (copy + 1) * RUNS], expected)

    def test_a_small_measurement(self):
        with mock.patch.object(study, "RELATIVE_STEPS", (0.2, 0.385)):
            (tuning,) = [case for case in study.tuning_cases(1, RUNS, 300) if case["alpha"] == 0.1]
            line = records.plain({**tuning, **study.measure(tuning)})
            self.assertLen(line["squared_distance"], 2 * (len(study.SIGMAS) + len(study.SCALES)))
            # Without noise "tuned" is SGD.
            scales = {"best_sigmas": [0.5, 0.5], "tuned_scales": [1.5, 0.0]}
            case = {"stage": "final", "data_seed": 5, "alpha": 0.1, "num_runs": RUNS, "num_steps": 300, **scales}
            line = records.plain({**case, **study.measure(case)})
            table = study.table([line])
        self.assertLen(table, 2 * len(ARMS))
        by_arm = {(one["relative_step"], one["arm"], one["value"], one["scale"]): one for one in table}
        plain, noisy = (by_arm[0.385, "independent", 0.0, sigma] for sigma in (0.0, 0.5))
        equal = next(one for one in table if (one["relative_step"], one["arm"], one["value"]) == (0.385, "equal", 0.9))
        tuned = [one for one in table if one["arm"] == "tuned"]
        self.assertEqual([one["scale"] for one in tuned], [1.5, 0.0])
        self.assertAlmostEqual(tuned[1]["squared_distance"], plain["squared_distance"], places=12)
        self.assertEqual(plain["tilt_norm"], 0.0)
        self.assertLess(equal["tilt_norm"], 0.3 * noisy["tilt_norm"])
        self.assertLess(noisy["geometric_alpha"], plain["geometric_alpha"])
        self.assertAlmostEqual(equal["geometric_alpha"] / noisy["geometric_alpha"], 1, delta=0.05)
        self.assertAlmostEqual(equal["over_formula"], 1, delta=0.1)


class ScalesTest(absltest.TestCase):
    def test_the_least_median_is_taken_and_a_lost_one_is_infinite(self):
        count = len(study.SIGMAS) + len(study.SCALES)
        lines = []
        for seed in range(3):
            for alpha in study.ALPHAS:
                distances = np.ones((len(study.RELATIVE_STEPS), count))
                distances[:, 3], distances[1, 5] = 0.5, 0.1
                distances[:, len(study.SIGMAS) + 2] = 0.9
                values = distances.ravel().tolist()
                if seed < 2:
                    # Two of three data sets are lost at the first step size.
                    values[3] = None
                measured = {name: [1.0] * len(values) for name in study._MEASURED}
                line = {"stage": "tuning", "data_seed": seed, "alpha": alpha}
                lines.append({**line, **measured, "squared_distance": values})
        found = study.best_scales(lines)["0.1"]
        self.assertEqual(found["best_sigmas"][:3], [0.0, study.SIGMAS[5], study.SIGMAS[3]])
        self.assertEqual(set(found["tuned_scales"]), {study.SCALES[2]})
        (case,) = study.final_cases(1, 3, 10, {"0.1": found, "0.01": found})[:1]
        self.assertEqual((case["data_seed"], case["best_sigmas"]), (study.FIRST_DATA_SEED, found["best_sigmas"]))


class TiltTest(absltest.TestCase):
    def test_the_tilt_at_an_alpha_is_between_the_neighbors(self):
        alphas, tilts = np.array([0.1, 0.01, 0.001]), np.array([1.0, 2.0, 8.0])
        self.assertAlmostEqual(study._tilt_at(0.01, alphas, tilts), 2.0)
        self.assertAlmostEqual(study._tilt_at(0.01 / np.sqrt(10), alphas, tilts), 4.0)
        for outside in (0.2, 0.0001, np.nan, 0.0):
            self.assertTrue(np.isnan(study._tilt_at(outside, alphas, tilts)))
        self.assertAlmostEqual(study._tilt_at(0.1, np.array([0.1, np.nan]), np.array([3.0, np.nan])), 3.0)


def good(seed):
    return final(
        seed,
        squared_distance={("nominal", 0.9): 0.1, ("tuned", 0.9): 0.2},
        tilt_norm={("equal", 0.9): 0.2, ("nominal", 0.9): 0.5},
        geometric_alpha={("nominal", 0.9): 0.01, ("equal", 0.9): 1.05},
        # Independent noise: alpha falls and the tilt rises with sigma.
        geometric_alpha_of_sigmas={index: 0.1**index for index in (1, 2, 3)},
        tilt_norm_of_sigmas={index: 10.0**index for index in (1, 2, 3)},
    )


class ClaimsTest(parameterized.TestCase):
    def outcomes(self, lines):
        with mock.patch.object(study, "best_scales", lambda lines: {}):
            results = records.plain(study.summary(lines))
        run = types.SimpleNamespace(results=results, directory=types.SimpleNamespace(name="diagonal_linear"))
        return [claim.measure([run]) for claim in correlated_noise_claims.CLAIMS]

    def test_good_lines_reach_every_claim(self):
        found = self.outcomes([good(seed) for seed in range(20)])
        self.assertEqual([one.reached for one in found], [True] * 7, found)
        self.assertIn("20 of 20 (p = 9.5e-07)", found[0].here)
        self.assertIn("by a factor of 0.005 in the median; the grid of sigma reaches that alpha on 20", found[5].here)

    @parameterized.parameters(
        (0, {"squared_distance": {("nominal", 0.9): 0.5, ("independent", 0.0): 0.4}}),
        (1, {"squared_distance": {("nominal", 0.9): 0.5, ("same_variance", 0.9): 0.4}}),
        (
            2,
            {
                "squared_distance_of_sigmas": {study.SIGMAS.index(0.5): 0.15},
                "squared_distance": {("nominal", 0.9): 0.2},
            },
        ),
        (
            3,
            {"squared_distance_of_sigmas": {study.SIGMAS.index(0.5): 0.15}, "squared_distance": {("tuned", 0.9): 0.2}},
        ),
        # Equal pairs are lost, also where both are infinitely far.
        (0, {}),
        (
            2,
            {
                "squared_distance": {("nominal", 0.9): np.inf},
                "squared_distance_of_sigmas": {study.SIGMAS.index(0.5): np.inf},
            },
        ),
        (4, {"tilt_norm": {("equal", 0.9): 1.1}}),
        (4, {"geometric_alpha": {("equal", 0.9): 1.2}}),
        (5, {"geometric_alpha": {("nominal", 0.9): 1e-9}}),
        (6, {"over_formula": {("nominal", 0.9): 0.8}}),
    )
    def test_five_bad_data_sets_or_a_bad_ratio_fail_the_claim(self, place, changes):
        count = 5 if place < 6 and changes != {"geometric_alpha": {("equal", 0.9): 1.2}} else 20
        bad = [final(seed, **{**changes}) for seed in range(count)]
        found = self.outcomes(bad + [good(seed) for seed in range(count, 20)])
        self.assertFalse(found[place].reached, found[place])
        # Four are few enough.
        if count == 5:
            self.assertTrue(self.outcomes(bad[:4] + [good(seed) for seed in range(4, 20)])[place].reached)


if __name__ == "__main__":
    absltest.main()
