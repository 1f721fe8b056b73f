from absl.testing import absltest

from noisy_sgd.studies.laboratory import settings, tuning


def runs(*rows):
    """The lines of runs."""
    return [dict(zip(("stage", "arm", "learning_rate", "accuracy"), row, strict=True)) for row in rows]


class MeansTest(absltest.TestCase):
    def test_means_over_tuning_seeds_by_group_and_rate(self):
        lines = runs(
            (tuning.TUNING, "a", 0.1, 0.2),
            (tuning.TUNING, "a", 0.1, 0.4),
            (tuning.TUNING, "a", 0.2, 0.5),
            (tuning.TUNING, "b", 0.1, 0.9),
            (tuning.FINAL, "a", 0.1, 1.0),
        )
        found = tuning.means(lines, lambda line: line["arm"])
        self.assertEqual(list(found), ["a", "b"])
        self.assertAlmostEqual(found["a"][0.1], 0.3)
        self.assertEqual((found["a"][0.2], found["b"]), (0.5, {0.1: 0.9}))


class FinalTest(absltest.TestCase):
    def test_the_final_runs_have_the_best_rate_and_seeds_of_their_own(self):
        setting = settings.Tuned(learning_rates=(0.1, 0.2), num_seeds=2)
        lines = runs(
            (tuning.TUNING, "a", 0.1, 0.3),
            (tuning.TUNING, "a", 0.2, 0.2),
            (tuning.FINAL, "a", 0.2, 1.0),
            (tuning.TUNING, "b", 0.1, 0.2),
            (tuning.TUNING, "b", 0.2, 0.3),
        )
        found = tuning.final_cases(setting, [{"arm": "a"}, {"arm": "b"}], lines, lambda line: line["arm"], first_seed=7)
        self.assertEqual(
            [(case["stage"], case["arm"], case["learning_rate"], case["seed"]) for case in found],
            [(tuning.FINAL, arm, rate, seed) for arm, rate in (("a", 0.1), ("b", 0.2)) for seed in (7, 8)],
        )

    def test_the_values_of_a_group_in_the_order_of_its_seeds(self):
        lines = [
            {"stage": stage, "arm": arm, "seed": seed, "accuracy": accuracy}
            for stage, arm, seed, accuracy in (
                (tuning.FINAL, "a", 2, 0.2),
                (tuning.FINAL, "a", 1, 0.1),
                (tuning.FINAL, "b", 1, 0.5),
                (tuning.TUNING, "a", 0, 0.9),
            )
        ]
        self.assertEqual(tuning.by_seed(lines, lambda line: line["arm"], "a").tolist(), [0.1, 0.2])


if __name__ == "__main__":
    absltest.main()
