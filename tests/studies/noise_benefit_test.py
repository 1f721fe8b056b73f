from absl.testing import absltest

from noisy_sgd.studies import noise_benefit, verdicts

COMMON = {"dataset": "digits", "network": "mlp", "num_train_examples": 64, "num_steps": 40}


class NoiseBenefitTest(absltest.TestCase):
    def test_budgets_have_equal_steps_or_equal_epochs(self):
        cases = noise_benefit.tuning_cases((100, 101), **COMMON)
        self.assertLen(cases, 2 * 2 * 7 * 2)
        steps = {(case["batch_size"], case["budget"]): case["num_steps"] for case in cases}
        self.assertEqual(steps, {(16, "steps"): 40, (16, "epochs"): 40, (64, "steps"): 40, (64, "epochs"): 10})
        self.assertEqual(noise_benefit.batch_sizes(1_000), (16, 64, 256, 1_000))

    def test_the_best_rate_of_the_tuning_seeds_is_taken_to_other_seeds(self):
        lines = []
        for case in noise_benefit.tuning_cases((100, 101), **COMMON):
            best = 0.05 if case["budget"] == "steps" else 0.4
            # The examples for judging would choose another one.
            accuracy = 0.9 - abs(case["learning_rate"] - best) + 0.01 * (case["seed"] - 100)
            lines.append({**case, "chosen_accuracy": accuracy, "judged_accuracy": 1 - accuracy, "train_loss": 0.1})
        final = noise_benefit.final_cases(lines, num_seeds=3)
        self.assertLen(final, 4 * 3)
        for case in final:
            self.assertEqual(case["learning_rate"], 0.05 if case["budget"] == "steps" else 0.4)
            self.assertFalse(case["tuning"])
            self.assertNotIn("chosen_accuracy", case)
        self.assertEqual({case["seed"] for case in final}, {0, 1, 2})
        self.assertEqual({case["num_steps"] for case in final if case["budget"] == "epochs"}, {40, 10})

    def test_rows_are_smallest_minus_largest_of_the_final_runs(self):
        def line(size, budget, seed, accuracy, loss, tuning=False):
            return {
                "batch_size": size,
                "budget": budget,
                "seed": seed,
                "judged_accuracy": accuracy,
                "train_loss": loss,
                "tuning": tuning,
            }

        lines = [line(16, "steps", 100, 0.0, 9.0, tuning=True)]
        for seed in range(5):
            lines += [line(16, "steps", seed, 0.9 + 0.001 * seed, 0.2), line(16, "epochs", seed, 0.9, 0.2)]
            lines += [line(64, budget, seed, 0.5, None) for budget in noise_benefit.BUDGETS]
            lines += [line(100, "steps", seed, 0.88, 0.1), line(100, "epochs", seed, 0.91, 0.1)]
        steps, epochs = noise_benefit.rows(lines)
        for seed in range(5):
            self.assertAlmostEqual(steps.parts["test accuracy (points)"][seed], 2 + 0.1 * seed)
            self.assertAlmostEqual(steps.parts["training loss"][seed], 0.1)
            self.assertAlmostEqual(epochs.parts["test accuracy (points)"][seed], -1)
        found = [row["verdict"] for row in verdicts.judge([steps, epochs])]
        self.assertEqual(found, [verdicts.CONFIRMED, verdicts.REFUTED])
        # A run that diverged has no loss: nothing is decided.
        lines[1]["train_loss"] = None
        self.assertEqual(verdicts.judge(noise_benefit.rows(lines))[0]["verdict"], verdicts.UNDECIDED)

    def test_the_whole_training_set_is_gradient_descent(self):
        case = {**COMMON, "batch_size": 64, "learning_rate": 0.1, "seed": 3, "num_steps": 60}
        found = noise_benefit.measure(case)
        self.assertEqual(found, noise_benefit.measure(case))
        self.assertGreater(found["train_accuracy"], 0.9)
        self.assertGreater(found["judged_accuracy"], 0.4)


if __name__ == "__main__":
    absltest.main()
