import math

from absl.testing import absltest, parameterized

from noisy_sgd.studies import private_step_sizes, verdicts

RATES = [2.0**power for power in range(-5, 0)]


class PrivateStepSizesTest(parameterized.TestCase):
    @parameterized.parameters(-4.3, -3.0, -1.6)
    def test_the_top_of_a_parabola_is_found(self, top):
        accuracies = [0.9 - 0.02 * (math.log2(rate) - top) ** 2 for rate in RATES]
        self.assertAlmostEqual(math.log2(private_step_sizes.best_rate(RATES, accuracies)), top)

    def test_a_top_at_the_end_and_a_plateau(self):
        self.assertEqual(private_step_sizes.best_rate(RATES, [0.5, 0.4, 0.3, 0.2, 0.1]), RATES[0])
        self.assertEqual(private_step_sizes.best_rate(RATES, [0.1, 0.2, 0.3, 0.4, 0.5]), RATES[-1])
        self.assertEqual(private_step_sizes.best_rate(RATES, [0.5, 0.5, 0.5, 0.5, 0.5]), RATES[0])

    def lines(self, slopes):
        made = []
        for case in private_step_sizes.cases(
            num_seeds=5, noise_doublings=3, dataset="digits", network="mlp", num_train_examples=640, num_steps=10
        ):
            powers = private_step_sizes.POWERS[case["optimizer"]]
            slope = slopes[case["optimizer"]] + 0.01 * (case["seed"] - 2)
            # Around the middle of the grid, whatever the slope.
            top = (powers[0] + powers[-1]) / 2 + slope * (math.log2(case["noise_multiplier"]) - 1.5)
            distance = math.log2(case["learning_rate"]) - top
            made.append({**case, "accuracy": 0.9 - 0.02 * distance**2})
        return made

    def test_slopes_and_verdicts(self):
        lines = self.lines({"dp_sgd": -1.0, "dp_sign_sgd": 0.1, "dp_adam": -0.6})
        found = private_step_sizes.slopes(lines)
        for name, slope in (("dp_sgd", -1.0), ("dp_sign_sgd", 0.1), ("dp_adam", -0.6)):
            self.assertLen(found[name], 5)
            for seed, value in enumerate(found[name]):
                self.assertAlmostEqual(value, slope + 0.01 * (seed - 2), places=6)
        results = private_step_sizes.summarize(lines)
        judged = {row["row"]: row["verdict"] for row in results["rows"]}
        self.assertEqual(judged["dp_sgd"], verdicts.CONFIRMED)
        self.assertEqual(judged["dp_sign_sgd"], verdicts.CONFIRMED)
        self.assertEqual(judged["dp_adam"], verdicts.REFUTED)
        self.assertLen(results["best_rates"], 3 * 5 * 4)
        epsilons = [line["epsilon"] for line in results["epsilons"]]
        self.assertEqual(epsilons, sorted(epsilons, reverse=True))
        steep = private_step_sizes.summarize(self.lines({"dp_sgd": -0.2, "dp_sign_sgd": 0.0, "dp_adam": 0.0}))
        self.assertEqual(steep["rows"][0]["verdict"], verdicts.REFUTED)

    def test_every_optimizer_learns(self):
        common = {"dataset": "digits", "network": "mlp", "num_train_examples": 300, "num_steps": 60, "seed": 3}
        for name, rate in (("dp_sgd", 0.5), ("dp_sign_sgd", 2.0**-8), ("dp_adam", 2.0**-7)):
            found = private_step_sizes.measure(
                {**common, "optimizer": name, "noise_multiplier": 1.0, "learning_rate": rate}
            )
            self.assertGreater(found["accuracy"], 0.6, name)


if __name__ == "__main__":
    absltest.main()
