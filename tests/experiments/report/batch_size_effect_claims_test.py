import csv
import itertools
import pathlib
import re
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import records
from noisy_sgd.experiments.report import batch_size_effect_claims as claimed
from noisy_sgd.figures import batch_size_effect as figures

SIZES = (16, 32, 64, 128)


def record(slopes, num_seeds=6, noise=0.02):
    """A record of arms with these slopes in points per doubling; runs of equal learning rate have 3 points more."""
    generator = np.random.default_rng(0)
    lines, rates = [], []
    for name, slope in slopes.items():
        bound = 4.0 if "clip" in name else None
        for (doublings, size), (rule, rate) in itertools.product(
            enumerate(SIZES), (("per_arm", 0.1), ("per_size", 0.1), ("equal", 0.3))
        ):
            group = {"arm": name, "l2_norm_clip": bound, "batch_size": size, "learning_rate": rate}
            rates.append({"rule": rule, **group})
            if rule == "per_size":
                continue
            added = 3.0 if rule == "equal" else 0.0
            for seed in range(num_seeds):
                percent = 80 + (slope + added) * doublings + noise * generator.normal()
                both = {"accuracy": percent / 100, "ema_accuracy": percent / 100}
                lines.append({"stage": "final", **group, "seed": seed, **both})
    setting = {
        "dataset": "mnist",
        "num_train_examples": 1000,
        "wrong_labels": 0.0,
        "network": "mlp",
        "loss": "cross_entropy",
        "num_steps": 100,
        "num_seeds": num_seeds,
    }
    return records.Record(
        directory=pathlib.Path("mnist"),
        config=setting,
        versions={},
        privacy={},
        status=records.FINISHED,
        results={"learning_rates": rates},
        metrics=lines,
    )


class ClaimsTest(parameterized.TestCase):
    @parameterized.parameters((-2.0, True), (0.0, False), (2.0, False))
    def test_an_arm_falls_or_does_not(self, slope, reached):
        outcome = claimed.falls("clip")(record({"plain": -2.0, "noise": -2.0, "clip": slope, "noise_clip": -1.0}))
        self.assertEqual(outcome.reached, reached)
        found = re.match(r"C = 4: ([+-]\d\.\d\d) \[.*\] points per doubling, p = .*; 6 seeds of mnist$", outcome.here)
        self.assertAlmostEqual(float(found[1]), slope, delta=0.05)

    @parameterized.parameters((-2.0, True), (-1.95, True), (-1.8, False), (-2.2, False))
    def test_the_same_is_two_sided(self, slope, reached):
        made = record({"plain": -2.0, "noise": slope, "clip": -1.0, "noise_clip": -1.0})
        outcome = claimed.same("noise", "plain")(made)
        self.assertEqual(outcome.reached, reached)
        self.assertTrue(claimed.same("noise_clip", "clip")(made).reached)
        self.assertFalse(claimed.same("noise_clip", "noise")(made).reached)

    def test_wide_intervals_are_not_the_same(self):
        made = record({"plain": -2.0, "noise": -2.0, "clip": 0.0, "noise_clip": 0.0}, noise=1.0)
        self.assertFalse(claimed.same("noise", "plain")(made).reached)

    def test_four_seeds_decide_nothing(self):
        few = record({"plain": -2.0, "noise": -2.0, "clip": -1.0, "noise_clip": -1.0}, num_seeds=4)
        self.assertIsNone(claimed.falls("plain")(few))
        self.assertIsNone(claimed.same("noise", "plain")(few))

    def test_every_setting_has_its_flagfile(self):
        folder = pathlib.Path(__file__).parents[3] / "configs" / claimed.EXPERIMENT
        named = {claim.text.partition(":")[0] for claim in claimed.CLAIMS}
        self.assertLen(named, len(list(folder.glob("*.flags"))))
        for name in claimed._SETTINGS:
            self.assertTrue((folder / f"{name}.flags").exists(), name)


class FiguresTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
        self.record = record({"plain": -2.0, "noise": -2.0, "clip": 0.5, "noise_clip": -1.0})

    def test_slopes_are_those_of_the_chosen_learning_rate(self):
        for rule, added in (("per_arm", 0.0), ("equal", 3.0)):
            found = figures.accuracies(self.record, rule, "ema_accuracy")
            self.assertCountEqual(found, [("plain", None), ("noise", None), ("clip", 4.0), ("noise_clip", 4.0)])
            slopes = figures.slopes(found["clip", 4.0])
            self.assertLen(slopes, 6)
            np.testing.assert_allclose(np.mean(list(slopes.values())), 0.5 + added, atol=0.05)

    def test_every_number_of_a_figure_is_in_its_table(self):
        for draw, count in ((figures.draw_accuracy, 2 * 4 * 4), (figures.draw_slopes, 3 * 2 * 4)):
            paths = draw(self.record, self.directory)
            self.assertEqual([path.suffix for path in paths], [".png", ".pdf", ".csv"])
            with open(paths[2]) as file:
                self.assertLen(list(csv.DictReader(file)), count)


if __name__ == "__main__":
    absltest.main()
