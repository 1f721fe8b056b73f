import csv
import dataclasses
import pathlib
import tempfile

from absl.testing import absltest, parameterized

from noisy_sgd import privacy, records
from noisy_sgd.experiments.report import correlated_training_claims as claimed
from noisy_sgd.figures import correlated_training as figures
from noisy_sgd.studies import correlated_training as study
from noisy_sgd.studies.laboratory import tuning

SMALL = study.Setting(
    dataset="digits",
    num_train_examples=100,
    num_epochs=4,
    batch_size=10,
    draws=4,
    learning_rates=(0.2, 0.4),
    num_seeds=3,
)
ACCURACIES = {study.POISSON: 0.7, study.SHUFFLED: 0.5, study.TWO_DRAWS: 0.6, study.MANY_DRAWS: 0.65}


def lines(setting=SMALL, **accuracies):
    found = {**ACCURACIES, **accuracies}
    return [
        {"stage": tuning.FINAL, **group, "learning_rate": 0.2, "seed": seed,
         "accuracy": found[group["arm"]] + 0.01 * seed * (1 + 0.1 * (group["arm"] == study.SHUFFLED))}
        for group in setting.groups
        for seed in range(setting.num_seeds)
    ]  # fmt: skip


class SettingTest(parameterized.TestCase):
    @parameterized.product(arm=study.ARMS, epsilon=(1.0, 8.0))
    def test_every_arm_has_the_noise_of_its_epsilon(self, arm, epsilon):
        sampling = {study.POISSON: "poisson", study.SHUFFLED: "shuffled"}.get(arm, "cyclic")
        sigma, noise = study.noise_multiplier(SMALL, arm, epsilon), study.noise(SMALL, arm)
        spent = privacy.epsilon(sigma, 10, 100, 40, 1e-5, sampling=sampling, noise=noise)
        self.assertBetween(spent, epsilon * (1 - 1e-3), epsilon)
        draws = {study.TWO_DRAWS: 2, study.MANY_DRAWS: 4}.get(arm)
        self.assertEqual(None if noise is None else len(noise.coefficients), draws)

    def test_each_group_gets_its_best_learning_rate(self):
        searched = [
            {**case, "accuracy": case["learning_rate"] * (1 if case["arm"] == study.POISSON else -1)}
            for case in tuning.cases(SMALL, SMALL.groups)
        ]
        final = study.final_cases(SMALL, searched)
        self.assertLen(final, 2 * 4 * 3)
        self.assertEqual({case["learning_rate"] for case in final if case["arm"] == study.POISSON}, {0.4})
        self.assertEqual({case["learning_rate"] for case in final if case["arm"] != study.POISSON}, {0.2})

    @parameterized.parameters(
        ({"epsilons": ()}, "`epsilons`"),
        ({"epsilons": (1.0, 0.0)}, "`epsilons`"),
        ({"batch_size": 500}, "`batch_size`"),
        ({"draws": 1}, "`draws`"),
        ({"l2_norm_clip": 0.0}, "`l2_norm_clip`"),
    )
    def test_bad_values_are_refused(self, values, message):
        with self.assertRaisesRegex(ValueError, message):
            dataclasses.replace(SMALL, **values)


class ReportTest(absltest.TestCase):
    def record(self, found):
        return records.Record(
            directory=pathlib.Path("mnist"),
            config=dataclasses.asdict(SMALL),
            versions={},
            privacy={},
            status=records.FINISHED,
            results=study.summary(SMALL, found),
            metrics=found,
        )

    def test_every_row_of_the_study_is_a_claim(self):
        made = self.record(lines())
        outcomes = [claim.measure([made]) for claim in claimed.CLAIMS]
        self.assertLen(outcomes, len(made.results["rows"]))
        # Without amplification the largest epsilon is lost to Poisson sampling here.
        self.assertEqual([outcome.reached for outcome in outcomes], [True, True, True, False, True])
        outcomes = [claim.measure([self.record(lines(many_draws=0.8))]) for claim in claimed.CLAIMS]
        self.assertEqual([outcome.reached for outcome in outcomes], [True, True, True, True, False])

    def test_every_number_of_the_figure_is_in_its_table(self):
        directory = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
        paths = figures.draw(self.record(lines()), directory)
        with open(paths[2]) as file:
            rows = list(csv.DictReader(file))
        self.assertLen(rows, 8)
        self.assertAlmostEqual(float(rows[0]["accuracy"]), 71.0)
        self.assertEqual(rows[1]["coefficients"], "1")


if __name__ == "__main__":
    absltest.main()
