"""The table of a budget against calibration and accounting, the curves, and their figures."""

import csv
import math
import pathlib

from absl.testing import absltest, parameterized

from noisy_sgd import privacy, records, sampling
from noisy_sgd.figures import privacy_budget as figures
from noisy_sgd.studies import privacy_budget

BUDGET = privacy_budget.Budget(epsilon=1.0, delta=1e-4, num_examples=1437, num_steps=100, accountant="rdp")
SIZES = (64, 128)


class PrivacyBudgetTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.table = list(privacy_budget.table(BUDGET, SIZES))
        cls.noise = list(privacy_budget.noise(BUDGET, SIZES))
        cls.steps = list(privacy_budget.steps(BUDGET, 6.0, 128))
        cls.wall = list(privacy_budget.wall(BUDGET, 6.0 / 128))

    def test_the_table_is_calibrated(self):
        for line in self.table:
            size, noise = line["batch_size"], line["noise_multiplier"]
            expected = privacy.noise_multiplier_for(1.0, size, 1437, 100, 1e-4, sampling="poisson", accountant="rdp")
            self.assertAlmostEqual(noise / expected, 1, delta=1.1e-4)
            self.assertBetween(line["epsilon"], 1 - 1e-3, 1)
            self.assertEqual(line["effective_noise"], noise / size)
            self.assertAlmostEqual(line["signal_to_noise"] * line["effective_noise"], 1)
            self.assertAlmostEqual(line["epochs"], 100 * size / 1437)
            self.assertEqual(line["above_wall"], noise >= 2)

    def test_the_suggestion_is_the_smallest_batch_above_the_wall(self):
        self.assertEqual([line["above_wall"] for line in self.table], [False, True])
        self.assertEqual(privacy_budget.suggested(self.table)["batch_size"], 128)
        self.assertEqual(privacy_budget.suggested(self.table[:1])["batch_size"], 64)

    @parameterized.parameters(
        (1, (1,)), (2, (1,)), (5, (1, 2)), (1437, (32, 64, 128, 256, 512)), (60_000, (1024, 2048, 4096, 8192, 16384))
    )
    def test_batch_sizes(self, num_examples, expected):
        self.assertEqual(privacy_budget.batch_sizes(num_examples), expected)

    @parameterized.parameters((1, 0.1), (1437, 1e-4), (60_000, 1e-5), (1_281_167, 1e-7))
    def test_the_default_delta_is_below_one_over_the_examples(self, num_examples, delta):
        self.assertAlmostEqual(privacy_budget.default_delta(num_examples), delta, delta=1e-9 * delta)
        self.assertLess(privacy_budget.default_delta(num_examples), 1 / num_examples)

    def test_more_steps_and_larger_batches_need_more_noise(self):
        found = {(line["num_steps"], line["batch_size"]): line["noise_multiplier"] for line in self.noise}
        self.assertCountEqual(found, [(steps, size) for steps in (25, 100, 400) for size in SIZES])
        for (num_steps, size), noise in found.items():
            self.assertGreaterEqual(found[400, size], noise)
            self.assertGreaterEqual(found[num_steps, 128], noise)

    def test_epsilon_over_the_steps_of_every_choice(self):
        lines = self.steps
        for comparison, choices in (("accountant", 2), ("neighbors", 2), ("sampling", len(sampling.SCHEMES))):
            self.assertLen({line["curve"] for line in lines if line["comparison"] == comparison}, choices)
        chosen = {line["curve"]: line["epsilon"] for line in lines if line["num_steps"] == 100}
        for curve, options in {
            "pld": {"accountant": "pld"},
            "replace_one": {"neighbors": "replace_one"},
            "shuffled": {"sampling": "shuffled"},
        }.items():
            arguments = {"sampling": "poisson", "accountant": "rdp", **options}
            self.assertEqual(chosen[curve], privacy.epsilon(6.0, 128, 1437, 100, 1e-4, **arguments), curve)

    def test_epsilon_explodes_below_the_wall_at_the_same_effective_noise(self):
        lines = self.wall
        self.assertNotEmpty(lines)
        self.assertLen({round(line["noise_multiplier"] / line["batch_size"], 12) for line in lines}, 1)
        self.assertLen({round(line["epsilon_tan"], 9) for line in lines}, 1)
        at = {round(line["noise_multiplier"], 1): line["epsilon"] for line in lines}
        self.assertGreater(at[0.5], 3 * at[2.0])
        self.assertLess(at[2.0], 1.2 * at[16.0])

    def test_an_epsilon_out_of_reach_is_refused_with_the_nearest_one(self):
        impossible = privacy_budget.Budget(epsilon=1e-5, delta=1e-9, num_examples=1437, num_steps=100)
        with self.assertRaisesRegex(ValueError, r"`epsilon` must be at least [\d.e-]+, which 100 steps cost") as caught:
            impossible.require_within_reach(SIZES)
        nearest = float(str(caught.exception).split("at least ")[1].split(",")[0])
        privacy_budget.Budget(epsilon=nearest, delta=1e-9, num_examples=1437, num_steps=100).require_within_reach((32,))

    def test_figures(self):
        directory = pathlib.Path(self.create_tempdir().full_path)
        run = records.create(directory / "run", {**vars(BUDGET), "batch_sizes": SIZES}, privacy={"text": "none"})
        measured = {"table": self.table, "noise": self.noise, "steps": self.steps, "wall": self.wall}
        for name, lines in measured.items():
            for line in lines:
                run.append({"measurement": name, **line})
        run.finish(privacy_budget.suggested(self.table))
        record = records.read(directory / "run")
        for draw in (figures.draw_table, figures.draw_noise, figures.draw_steps, figures.draw_wall):
            png, _, table = draw(record, directory)
            self.assertStartsWith(png.read_bytes(), b"\x89PNG")
            with open(table, newline="") as file:
                rows = list(csv.DictReader(file))
            self.assertTrue(all(math.isfinite(float(row.get("epsilon", 0))) for row in rows))
            self.assertGreater(len(rows), 1)


if __name__ == "__main__":
    absltest.main()
