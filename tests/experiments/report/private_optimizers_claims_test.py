import csv
import dataclasses
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest

from noisy_sgd import records
from noisy_sgd.experiments.report import private_optimizers_claims as claimed
from noisy_sgd.figures import private_optimizers as figures
from noisy_sgd.studies import private_optimizers as study
from noisy_sgd.studies.laboratory import tuning

SETTING = study.Setting(dataset="digits", num_train_examples=100, batch_sizes=(10, 50), num_seeds=3, num_epochs=2)


def record():
    diagram = {"counts": [3, 1, 0], "confidences": [0.2, 0.5, None], "accuracies": [0.3, 1.0, None]}
    values = {"averaged_calibration_error": 0.05, "averaged_accuracy": 0.5}
    values |= {"reliability": diagram, "averaged_reliability": diagram}
    lines = [
        {"stage": tuning.FINAL, **group, "seed": seed, "learning_rate": 0.1, **values}
        | {"accuracy": 0.5 + 0.01 * seed, "calibration_error": 0.2 + 0.01 * seed}
        for group in SETTING.groups
        for seed in range(SETTING.num_seeds)
    ]
    return records.Record(
        directory=pathlib.Path("mnist"),
        config=dataclasses.asdict(SETTING),
        versions={},
        privacy={},
        status=records.FINISHED,
        results=study.summary(SETTING, lines),
        metrics=lines,
    )


class ClaimsTest(absltest.TestCase):
    def test_every_row_of_the_study_is_a_claim(self):
        made = record()
        outcomes = [claim.measure([made]) for claim in claimed.CLAIMS]
        self.assertNotIn(None, outcomes)
        self.assertLen(outcomes, len(made.results["rows"]))
        self.assertEqual([outcome.reached for outcome in outcomes].count(True), 2)

    def test_every_number_of_a_figure_is_in_its_table(self):
        directory = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
        # Both batch sizes, and three predictors: three seeds and their mean, and two bins that are not empty.
        counts = {
            figures.draw_accuracies: len(SETTING.groups),
            figures.draw_calibration: 2 * 3 * (3 + 1),
            figures.draw_reliability: 2 * 3 * 2,
        }
        tables = {}
        for draw, count in counts.items():
            paths = draw(record(), directory)
            with open(paths[2]) as file:
                tables[draw] = list(csv.DictReader(file))
            self.assertLen(tables[draw], count)
        mean = next(row for row in tables[figures.draw_calibration] if row["seed"] == "mean")
        self.assertAlmostEqual(float(mean["calibration_error_percent"]), 21.0)
        # The seeds are pooled.
        fullest = tables[figures.draw_reliability][0]
        found = [float(fullest[name]) for name in ("predictions", "confidence_percent", "right_percent")]
        np.testing.assert_allclose(found, [9, 20, 30])


if __name__ == "__main__":
    absltest.main()
