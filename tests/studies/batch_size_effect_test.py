import dataclasses

from absl.testing import absltest, parameterized

from noisy_sgd.studies import batch_size_effect as study
from noisy_sgd.studies.laboratory import tuning

SMALL = study.Setting(
    dataset="digits",
    num_train_examples=64,
    num_steps=4,
    batch_sizes=(4, 8, 16),
    learning_rates=(0.1, 0.2),
    l2_norm_clips=(1.0,),
    num_tuning_seeds=1,
    num_seeds=2,
)


def tuned(setting, accuracy):
    """Lines of the tuning runs with accuracy(case)."""
    return [{**case, "ema_accuracy": accuracy(case)} for case in tuning.cases(setting, setting.groups)]


class CasesTest(parameterized.TestCase):
    def test_every_arm_is_tuned_at_every_size_and_bound(self):
        setting = dataclasses.replace(SMALL, l2_norm_clips=(1.0, 4.0), num_tuning_seeds=3)
        cases = tuning.cases(setting, setting.groups)
        self.assertLen(cases, (1 + 1 + 2 + 2) * 3 * 2 * 3)
        self.assertLen({tuple(case.items()) for case in cases}, len(cases))
        self.assertEmpty({case["seed"] for case in cases} & set(range(setting.num_seeds)))

    def test_rules_choose_for_the_arm_or_for_the_arm_and_size(self):
        # 0.2 is better at the two small sizes by 0.1 each, 0.1 at the largest by 0.3.
        def accuracy(case):
            return (0.3 if case["batch_size"] == 16 else 0.0) * (case["learning_rate"] == 0.1) + (
                0.1 if case["batch_size"] < 16 else 0.0
            ) * (case["learning_rate"] == 0.2)

        chosen = study.learning_rates(SMALL, tuned(SMALL, accuracy))
        by_rule = {
            rule: {choice["batch_size"]: choice["learning_rate"] for choice in chosen if choice["rule"] == rule}
            for rule in study.RULES
        }
        self.assertEqual(by_rule["per_arm"], {4: 0.1, 8: 0.1, 16: 0.1})
        self.assertEqual(by_rule["per_size"], {4: 0.2, 8: 0.2, 16: 0.1})
        self.assertEqual(by_rule["equal"], {4: 0.3, 8: 0.3, 16: 0.3})

    def test_a_run_that_two_rules_need_is_made_once(self):
        setting = dataclasses.replace(SMALL, equal_learning_rate=0.2)
        cases = study.final_cases(setting, tuned(setting, lambda case: case["learning_rate"]))
        self.assertLen(cases, 4 * 3 * setting.num_seeds)
        self.assertEqual({case["learning_rate"] for case in cases}, {0.2})
        self.assertEqual({case["seed"] for case in cases}, {0, 1})

    @parameterized.parameters(
        ({"batch_sizes": (4, 8)}, "`batch_sizes` must list at least three"),
        ({"batch_sizes": (4, 8, 128)}, "`batch_sizes` must be at most the 64 examples"),
        ({"learning_rates": ()}, "`learning_rates` must list distinct"),
        ({"num_seeds": 1}, "`num_seeds`"),
        ({"network": "net"}, "`network` must be one of"),
        ({"wrong_labels": 1.5}, "`wrong_labels`"),
    )
    def test_bad_values_are_refused(self, values, message):
        with self.assertRaisesRegex(ValueError, message):
            dataclasses.replace(SMALL, **values)


class MeasureTest(absltest.TestCase):
    def test_a_run_learns_and_is_repeated_exactly(self):
        setting = dataclasses.replace(SMALL, num_steps=60)
        case = study.final_cases(setting, tuned(setting, lambda case: 0.0))[0]
        first = study.measure(setting, case)
        self.assertGreater(first["accuracy"], 0.4)
        self.assertGreater(first["train_accuracy"], 0.6)
        study.measure(setting, {**case, "seed": 1})
        self.assertEqual(study.measure(setting, case), first)

    def test_tuning_and_final_runs_are_judged_on_other_images(self):
        case = {"arm": "plain", "l2_norm_clip": None, "batch_size": 4, "learning_rate": 0.1, "seed": 0}
        chosen = study.measure(SMALL, {**case, "stage": tuning.TUNING})
        judged = study.measure(SMALL, {**case, "stage": tuning.FINAL})
        self.assertEqual(chosen["train_loss"], judged["train_loss"])
        self.assertNotEqual(chosen["accuracy"], judged["accuracy"])


if __name__ == "__main__":
    absltest.main()
