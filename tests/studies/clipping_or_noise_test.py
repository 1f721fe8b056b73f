"""The cases, the choice of learning rates, and the rows; the runs are tested by laboratory/arm_runs_test.py."""

import numpy as np
from absl.testing import absltest

from noisy_sgd.studies import clipping_or_noise, verdicts
from noisy_sgd.studies.laboratory import arm_runs, arms, settings, tuning

SETTING = clipping_or_noise.Setting(
    dataset="digits",
    num_train_examples=60,
    width=8,
    other_widths=(4, 16),
    batch_size=20,
    learning_rates=(0.1, 0.2, 0.4),
    num_tuning_seeds=2,
    num_seeds=5,
)
BEST = {arms.PLAIN: 0.2, arms.NOISE: 0.1, arms.CLIP: 0.4, arms.NOISE_CLIP: 0.2}


def measured(case):
    """A study in which the arms have known accuracies."""
    random = np.random.default_rng(case["seed"])
    if case["stage"] == clipping_or_noise.NORMS:
        return {"median_norm": case["width"] + (case["seed"] - 1_000.5)}
    if case["stage"] == tuning.TUNING:
        clipped = case["arm"] in (arms.CLIP, arms.NOISE_CLIP)
        relative = case["rate"] * (case["relative_clip"] if clipped else 1.0)
        return {"accuracy": 0.8 - abs(relative - BEST[case["arm"]])}
    accuracy = dict(zip(settings.ARMS, 0.9 - 0.01 * np.arange(4), strict=True))
    accuracy[arms.NOISE_CLIP] -= 0.001 * case["width"]
    found = {
        arm: {
            "accuracy": value + 0.001 * random.normal(),
            "looks": [{"accuracy": (1 + number) / 8 * value} for number in range(8)],
        }
        for arm, value in accuracy.items()
    }
    switches = [
        {
            "first": first,
            "then": then,
            "switch": switch,
            # Whoever trains longer decides.
            "position": (switch if then == arms.PLAIN else 1 - switch) - 0.1 + 0.01 * random.normal(),
            "accuracy": found[then]["accuracy"] + 0.0001 * random.normal(),
        }
        for first, then in ((arms.NOISE_CLIP, arms.PLAIN), (arms.PLAIN, arms.NOISE_CLIP))
        for switch in arm_runs.SWITCHES
    ]
    return {"arms": found, "switches": switches}


def all_lines():
    lines = []
    for stage in clipping_or_noise.stages(SETTING):
        lines += [{**case, **measured(case)} for case in stage(lines)]
    return lines


class ClippingOrNoiseTest(absltest.TestCase):
    def test_rates_are_chosen_per_arm_on_a_grid_that_follows_the_bound(self):
        lines = all_lines()
        searched = [line for line in lines if line["stage"] == tuning.TUNING]
        self.assertEqual({line["seed"] for line in searched}, {1_000, 1_001})
        # At the main width SGD, and three arms at two bounds; at each other width four arms.
        self.assertLen(searched, (7 + 4 + 4) * 3 * 2)
        final = [line for line in lines if line["stage"] == tuning.FINAL]
        self.assertLen(final, (2 * 2 + 1 + 1) * 5)
        self.assertEqual({line["seed"] for line in final}, set(range(5)))
        for line in final:
            # The mean of the medians of two seeds is the width.
            self.assertEqual(line["l2_norm_clip"], line["width"] * line["relative_clip"])
            self.assertAlmostEqual(line["noise_std"], 0.006 * line["l2_norm_clip"])
            for arm, rate in line["rates"].items():
                clipped = arm in (arms.CLIP, arms.NOISE_CLIP)
                tuned = BEST[arm] / (line["relative_clip"] if clipped else 1.0)
                self.assertAlmostEqual(rate, tuned if line["rule"] == "tuned" else BEST[arms.PLAIN])

    def test_the_main_width_is_finished_before_the_others_begin(self):
        widths = [line["width"] for line in all_lines() if line["stage"] != clipping_or_noise.NORMS]
        self.assertEqual(widths, sorted(widths, key=lambda width: width != 8))

    def test_rows(self):
        rows = {row["row"]: row for row in clipping_or_noise.summary(SETTING, all_lines())["rows"]}
        self.assertEqual(
            {name: row["verdict"] for name, row in rows.items()},
            {
                "noise beats clipping": verdicts.CONFIRMED,
                "noise beats clipping at equal rates": verdicts.CONFIRMED,
                # The position after the switch to DP-SGD at one half is 0.4.
                "late phase": verdicts.REFUTED,
                "late phase at all switches": verdicts.REFUTED,
                "recovery": verdicts.CONFIRMED,
                "slow start": verdicts.CONFIRMED,
                "dimension": verdicts.CONFIRMED,
            },
        )
        self.assertAlmostEqual(rows["noise beats clipping"]["parts"][0]["mean"], 1.0, delta=0.2)
        self.assertAlmostEqual(rows["dimension"]["parts"][0]["mean"], 0.8, delta=1e-9)
        self.assertAlmostEqual(rows["slow start"]["parts"][0]["mean"], 100 * 0.25 * (0.03 + 0.008), places=6)
        to_plain, to_both = rows["late phase"]["parts"]
        self.assertAlmostEqual(to_plain["mean"], 0.1, delta=0.02)
        self.assertAlmostEqual(to_both["mean"], -0.1, delta=0.02)


if __name__ == "__main__":
    absltest.main()
