from absl.testing import absltest

from noisy_sgd.studies.laboratory import tuning


class MeansTest(absltest.TestCase):
    def test_means_over_tuning_seeds_by_group_and_rate(self):
        lines = [
            {"stage": stage, "arm": arm, "learning_rate": rate, "accuracy": accuracy}
            for stage, arm, rate, accuracy in (
                (tuning.TUNING, "a", 0.1, 0.2),
                (tuning.TUNING, "a", 0.1, 0.4),
                (tuning.TUNING, "a", 0.2, 0.5),
                (tuning.TUNING, "b", 0.1, 0.9),
                (tuning.FINAL, "a", 0.1, 1.0),
            )
        ]
        found = tuning.means(lines, lambda line: line["arm"])
        self.assertEqual(list(found), ["a", "b"])
        self.assertAlmostEqual(found["a"][0.1], 0.3)
        self.assertEqual((found["a"][0.2], found["b"]), (0.5, {0.1: 0.9}))


if __name__ == "__main__":
    absltest.main()
