import dataclasses
import unittest.mock

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import privacy, records
from noisy_sgd.studies import private_optimizers as study
from noisy_sgd.studies.laboratory import tuning

SMALL = study.Setting(
    dataset="digits",
    num_train_examples=100,
    epsilon=3.0,
    num_epochs=2,
    batch_sizes=(10, 50),
    relative_bounds=(1.0, 0.1),
    learning_rates=(0.2, 0.4),
    num_seeds=5,
)
RELIABILITIES = ("reliability", "averaged_reliability")


def line(group, seed=0, accuracy=0.5, **values):
    common = {"stage": tuning.FINAL, "seed": seed, "learning_rate": 0.2, "calibration_error": 0.2}
    return {**common, **group, "accuracy": accuracy, **values}


class CasesTest(parameterized.TestCase):
    def test_equally_many_epochs_and_equal_epsilon(self):
        self.assertEqual([SMALL.steps(size) for size in (10, 50)], [20, 4])
        sigma = study.noise_multiplier(SMALL, 50)
        self.assertBetween(privacy.epsilon(sigma, 50, 100, 4, 1e-5, sampling="poisson"), 2.99, 3.0)

    def test_each_group_gets_its_best_learning_rate(self):
        searched = [
            {**case, "accuracy": case["learning_rate"] * (1 if case["batch_size"] == 10 else -1)}
            for case in tuning.cases(SMALL, SMALL.groups)
        ]
        self.assertLen(searched, 2 * (7 + 2) * 2)
        final = study.final_cases(SMALL, searched)
        self.assertLen(final, 2 * (7 + 2) * 5)
        self.assertEqual({(case["batch_size"], case["learning_rate"]) for case in final}, {(10, 0.4), (50, 0.2)})

    @parameterized.parameters(
        ({"batch_sizes": (50, 10)}, "`batch_sizes` must be a small and a large one"),
        ({"batch_sizes": (10, 500)}, "`batch_size`"),
        ({"epsilon": 0.0}, "`epsilon`"),
        ({"relative_bounds": ()}, "`relative_bounds`"),
    )
    def test_bad_values_are_refused(self, values, message):
        with self.assertRaisesRegex(ValueError, message):
            dataclasses.replace(SMALL, **values)


class SummaryTest(absltest.TestCase):
    def test_verdicts_of_planted_lines(self):
        generator = np.random.default_rng(0)
        means = {study.LARS: 0.62, study.EXTRAPOLATED: 0.6, study.ADAM: 0.5, study.SPARSE: 0.599}
        lines = []
        for group in SMALL.groups:
            accuracy = 0.8 if group["batch_size"] == 10 else means.get(group["optimizer"], 0.6)
            if group["optimizer"] == study.DICE_SGD and group["relative_bound"] < 1:
                accuracy = 0.7
            if group["optimizer"] == study.SPARSE and group["batch_size"] == 10:
                accuracy = 0.799
            averaged, error = {study.DP_SGD: (-0.01, 0.05), study.SGLD: (0.01, 0.04)}.get(group["optimizer"], (0, 0.05))
            for seed in range(SMALL.num_seeds):
                noise = 1e-4 * generator.normal(size=2)
                measured = {"averaged_accuracy": accuracy + averaged + noise[1], "averaged_calibration_error": error}
                lines.append(line(group, seed, accuracy + noise[0], **measured))
        found = {row["row"]: row["verdict"] for row in study.summary(SMALL, lines)["rows"]}
        expected = {
            "gap": "confirmed",
            study.LARS: "confirmed",
            study.EXTRAPOLATED: "undecided",
            study.ADAM: "refuted",
            study.SGLD: "confirmed",
            "averaged": "refuted",
            study.SPARSE: "confirmed",
            study.DICE_SGD: "confirmed",
            "late_predictions": "confirmed",
            "langevin_calibration": "confirmed",
        }
        self.assertEqual(found, expected)


class MeasureTest(parameterized.TestCase):
    def test_steps_of_clipped_gradients_are_as_long_at_every_bound(self):
        learning_rates = {}
        for bound in SMALL.relative_bounds:
            group = {"optimizer": study.DP_SGD, "relative_bound": bound, "batch_size": 50}
            study.measure(SMALL, {"stage": tuning.FINAL, **group, "learning_rate": 0.4, "seed": 0})
            trainer, absolute = study._trainer(SMALL, *group.values(), 0)
            self.assertAlmostEqual(trainer.model.optimizer.l2_norm_clip, absolute)
            self.assertAlmostEqual(absolute, bound * study._median_norm(SMALL))
            learning_rates[bound] = float(trainer.model.optimizer.learning_rate) * absolute
        self.assertAlmostEqual(learning_rates[1.0], 0.4, places=5)
        self.assertAlmostEqual(learning_rates[0.1], 0.4, places=5)

    def test_every_seed_draws_its_own_masks(self):
        masks = []
        for seed in (0, 1):
            case = {"stage": tuning.FINAL, "optimizer": study.SPARSE, "relative_bound": 1.0, "batch_size": 50}
            with unittest.mock.patch.object(study, "_trainer", wraps=study._trainer) as used:
                study.measure(SMALL, {**case, "learning_rate": 0.4, "seed": seed})
            trainer, _ = study._trainer(*used.call_args.args)
            masks.append(trainer.model.optimizer.coordinates(trainer.model.trainable_weights)[0].numpy())
        # At the last step 90 % are left out: independent masks differ at 18 % of the coordinates, of about 8,000.
        self.assertAlmostEqual(float(np.mean(masks[0] != masks[1])), 0.18, delta=0.02)

    def test_the_rate_of_langevin_dynamics_falls(self):
        group = {"optimizer": study.SGLD, "relative_bound": 1.0, "batch_size": 10}
        found = study.measure(SMALL, {"stage": tuning.FINAL, **group, "learning_rate": 0.4, "seed": 0})
        trainer, bound = study._trainer(SMALL, *group.values(), 0)
        # The last of 20 steps: t / b = 19. The mean is that of the grid.
        rate = 0.4 / bound * 20**-0.55 / np.mean(np.arange(1, 21) ** -0.55)
        self.assertAlmostEqual(float(trainer.model.optimizer.learning_rate), rate, places=6)
        # T = lr N (sigma C / B)^2 / 2.
        variance = (study.noise_multiplier(SMALL, 10) * bound / 10) ** 2
        self.assertAlmostEqual(found["temperature"], rate * 100 * variance / 2, places=9)

    def test_predictions_of_the_second_half_are_averaged(self):
        group = {"optimizer": study.SGLD, "relative_bound": 1.0, "batch_size": 10}
        trainer, _ = study._trainer(SMALL, *group.values(), 0)
        seen, steps = [], []

        def predicted(images):
            steps.append(trainer.step)
            seen.append(np.eye(10)[np.full(len(images), trainer.step % 10)])
            return seen[-1]

        with unittest.mock.patch.object(trainer, "probabilities", predicted):
            found = study.measure(SMALL, {"stage": tuning.FINAL, **group, "learning_rate": 0.4, "seed": 0})
        self.assertEqual(steps, list(range(10, 21)))
        confidences = [max(value or 0 for value in records.plain(found[name]["confidences"])) for name in RELIABILITIES]
        # Two of the eleven steps, 10 and 20, predict the class 0, and each of the others one of the other classes.
        np.testing.assert_allclose(confidences, [1.0, 2 / 11])

    @parameterized.parameters(*study.OPTIMIZERS)
    def test_every_optimizer_trains(self, name):
        group = {"optimizer": name, "relative_bound": 1.0, "batch_size": 50}
        case = {"stage": tuning.FINAL, **group, "learning_rate": 0.4, "seed": 0}
        found = study.measure(SMALL, case)
        self.assertBetween(found["accuracy"], 0.0, 1.0)
        self.assertGreater(found["calibration_error"], 0.0)
        self.assertEqual(records.plain(study.measure(SMALL, case)), records.plain(found))


if __name__ == "__main__":
    absltest.main()
