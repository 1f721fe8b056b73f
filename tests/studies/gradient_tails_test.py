import numpy as np
from absl.testing import absltest, parameterized
from scipy import stats

from noisy_sgd.studies import gradient_tails, verdicts

SIZE = 4_000


def stable(alpha, columns, random):
    """Symmetric stable samples (Chambers, Mallows and Stuck 1976)."""
    angle = random.uniform(-np.pi / 2, np.pi / 2, (SIZE, columns))
    exponential = random.exponential(size=(SIZE, columns))
    return (
        np.sin(alpha * angle)
        / np.cos(angle) ** (1 / alpha)
        * (np.cos(angle - alpha * angle) / exponential) ** ((1 - alpha) / alpha)
    )


class IndexTest(parameterized.TestCase):
    @parameterized.parameters(1.0, 1.3, 1.6, 1.8)
    def test_mcculloch_finds_the_index_of_a_stable_law(self, alpha):
        found = gradient_tails.mcculloch(stable(alpha, 50, np.random.default_rng(1)))
        # 50 columns of 4,000: one column's index has a standard deviation of about 0.05.
        self.assertAlmostEqual(found.mean(), alpha, delta=0.04)

    def test_mcculloch_of_a_gaussian_is_almost_2(self):
        found = gradient_tails.mcculloch(np.random.default_rng(2).normal(size=(SIZE, 200)))
        self.assertBetween(found.mean(), 2 - gradient_tails.CONTROL_MARGIN, 2.0)
        self.assertAlmostEqual(gradient_tails._SPREADS[0], stats.norm.ppf(0.95) / stats.norm.ppf(0.75), places=3)

    @parameterized.parameters(1.5, 2.0, 4.0)
    def test_hill_finds_the_index_of_a_pareto_law(self, alpha):
        random = np.random.default_rng(3)
        samples = (1 + random.pareto(alpha, (SIZE, 100))) * random.choice((-1, 1), (SIZE, 100))
        found = gradient_tails.hill(samples)
        # 200 of the largest values: one column's index has a relative standard deviation of 1 / sqrt(200).
        self.assertAlmostEqual(found.mean() / alpha, 1.0, delta=0.03)

    def test_hill_is_larger_for_a_gaussian_than_for_heavier_tails(self):
        random = np.random.default_rng(4)
        gaussian, student = random.normal(size=(SIZE, 20)), random.standard_t(3, size=(SIZE, 20))
        self.assertGreater(gradient_tails.hill(gaussian).min(), gradient_tails.hill(student).max())


class UpdateNoiseTest(absltest.TestCase):
    def test_variances_are_those_of_the_updates(self):
        random = np.random.default_rng(5)
        gradients = random.normal(size=(30, 3)) * (1.0, 5.0, 0.2) + (0.3, 0.0, 2.0)
        found = gradient_tails.update_noise(gradients, np.eye(3), (5, 5), 0)
        of_batch = gradients.var(axis=0) / gradient_tails.NOISE_BATCH_SIZE
        # The sum of ((1 - b) b^j)^2 is (1 - b) / (1 + b).
        of_average = of_batch * (0.1 / 1.9)
        of_adam = of_average / (gradients.mean(axis=0) ** 2 + of_batch)
        for kind, expected in (("sgd", of_batch), ("average", of_average), ("adam", of_adam), ("control", np.ones(3))):
            # A variance of 4,000 samples has a relative standard deviation of 0.022.
            np.testing.assert_allclose(found[kind].var(axis=0), expected, rtol=0.1, err_msg=kind)
            np.testing.assert_allclose(found[kind].mean(axis=0), 0, atol=5 * np.sqrt(expected.max() / SIZE))

    def test_the_average_of_heavy_tails_is_lighter(self):
        random = np.random.default_rng(6)
        gradients = np.zeros((1_000, 4), np.float32)
        gradients[:20] = random.normal(size=(20, 4)) * 30
        gradients += random.normal(size=gradients.shape)
        found = gradient_tails.update_noise(gradients, random.normal(size=(4, 20)), (6, 6), 0)
        for index in (gradient_tails.mcculloch, gradient_tails.hill):
            self.assertGreater(index(found["average"]).mean(), index(found["sgd"]).mean() + 0.1)


class RowsTest(absltest.TestCase):
    def line(self, seed, adam, control):
        index = {"sgd": 1.8, "average": 1.7 + 0.001 * seed, "adam": adam + 0.001 * seed, "control": control}
        return {"seed": seed, "points": [{"mcculloch": index, "hill": index}] * 2}

    def test_rows_need_lighter_tails_and_a_gaussian_control(self):
        for adam, control, expected in ((1.9, 1.98, "confirmed"), (1.7, 1.98, "refuted"), (1.9, 1.9, "refuted")):
            lines = [self.line(seed, adam, control + 1e-4 * seed) for seed in range(5)]
            judged = {row["row"]: row["verdict"] for row in verdicts.judge(gradient_tails.rows(lines))}
            self.assertEqual(judged["adam_has_lighter_tails"], expected)
            self.assertEqual(judged["average_has_lighter_tails"], verdicts.REFUTED)

    def test_a_run_is_measured_at_its_checkpoints(self):
        case = {"dataset": "digits", "network": "mlp", "num_train_examples": 100, "num_steps": 50, "seed": 3}
        points = gradient_tails.measure(case)["points"]
        self.assertEqual([point["step"] for point in points], [0, 1, 5, 20, 50])
        for point in points:
            self.assertAlmostEqual(point["mcculloch"]["control"], 2, delta=gradient_tails.CONTROL_MARGIN)
            for kind in gradient_tails.KINDS:
                self.assertBetween(point["mcculloch"][kind], 0.5, 2.0)
                self.assertGreater(point["hill"][kind], 0)


if __name__ == "__main__":
    absltest.main()
