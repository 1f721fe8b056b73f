import math

from absl.testing import absltest

from noisy_sgd.studies import landscape, verdicts

COMMON = {"dataset": "digits", "network": "mlp", "num_train_examples": 60, "num_steps": 40}


def point(covariance, tenth, hessian, at_target=True):
    return {"at_target": at_target, "covariance_top": covariance, "covariance_tenth": tenth, "hessian_top": hessian}


def line(group, seed, *points):
    size, rate, noise = group
    return {"batch_size": size, "learning_rate": rate, "noise_std": noise, "seed": seed, "points": points}


class RowsTest(absltest.TestCase):
    def test_rows_are_log_ratios_at_the_target(self):
        lines = []
        for seed in range(5):
            growth = math.exp(0.01 * seed)
            early = point(1e6, 1.0, 1e-6, at_target=False)
            lines += [line(group, seed, early, point(2.0, 1.0, 3.0)) for group in landscape.GROUPS]
            lines[-6:-4] = [
                line(landscape.FAST, seed, early, point(2.0, 1.0, 3.0)),
                line(landscape.SLOW, seed, early, point(8.0 * growth, 2.0, 6.0 * growth), early),
            ]
        rows = {row.name: row for row in landscape.rows(lines)}
        for seed in range(5):
            self.assertAlmostEqual(rows["break_even"].parts["covariance_top"][seed], math.log(4) + 0.01 * seed)
            self.assertAlmostEqual(rows["break_even"].parts["conditioning"][seed], math.log(2) + 0.01 * seed)
            self.assertAlmostEqual(
                rows["hessian_by_learning_rate"].parts["hessian_top"][seed], math.log(2) + 0.01 * seed
            )
            self.assertEqual(rows["hessian_by_noise"].parts["hessian_top"][seed], 0.0)
        judged = {row["row"]: row["verdict"] for row in landscape.summarize(lines)["rows"]}
        self.assertEqual(judged["break_even"], verdicts.CONFIRMED)
        self.assertEqual(judged["covariance_by_batch_size"], verdicts.UNDECIDED)
        # With one seed less there are too few.
        short = [one for one in lines if one["seed"] or _group(one) != landscape.SLOW]
        self.assertEqual(landscape.rows(short)[0].parts["covariance_top"], [None])

    def test_a_run_is_measured_when_it_reaches_the_target(self):
        case = {**COMMON, "batch_size": 16, "learning_rate": 0.1, "noise_std": 0.0, "seed": 3}
        points = landscape.measure(case)["points"]
        self.assertEqual([one["step"] for one in points if not one["at_target"]], [0, 2, 10, 40])
        (reached,) = [one for one in points if one["at_target"]]
        self.assertGreaterEqual(reached["train_accuracy"], landscape.TARGET_ACCURACY)
        self.assertEqual([one["step"] for one in points], sorted(one["step"] for one in points))
        earlier = [one for one in points if one["step"] < reached["step"]]
        self.assertLess(max(one["train_accuracy"] for one in earlier), landscape.TARGET_ACCURACY)
        for one in points:
            self.assertGreater(one["covariance_trace"], one["covariance_top"])
            self.assertGreater(one["covariance_top"], one["covariance_tenth"])
        # The step's noise is that of the case, and the next case does not depend on it.
        noisy = landscape.measure({**case, "noise_std": 0.05})["points"]
        self.assertNotEqual(noisy[-1]["train_loss"], points[-1]["train_loss"])
        self.assertEqual(landscape.measure(case)["points"], points)

    def test_a_run_that_diverges_is_recorded(self):
        case = {**COMMON, "batch_size": 16, "learning_rate": 1e30, "noise_std": 0.0, "seed": 3}
        points = landscape.measure(case)["points"]
        self.assertEqual([one["step"] for one in points], [0, 2, 10, 40])
        self.assertFalse(any(one["at_target"] for one in points))
        self.assertGreater(points[0]["hessian_top"], 0)
        self.assertTrue(math.isnan(points[-1]["hessian_top"]))
        self.assertEqual(set(points[-1]), set(points[0]))


def _group(one):
    return one["batch_size"], one["learning_rate"], one["noise_std"]


if __name__ == "__main__":
    absltest.main()
