"""Tests of the recorded run behind the theory's rows: interrupted it starts again, finished it is not made again."""

import pathlib

from absl.testing import absltest

from noisy_sgd import config, records
from noisy_sgd.experiments.report import theory_measurements
from noisy_sgd.studies import diagonal_linear


class RunTest(absltest.TestCase):
    def test_an_interrupted_measurement_is_not_finished_and_made_again(self):
        settings = theory_measurements.Settings(share=0.01)
        directory = pathlib.Path(self.create_tempdir()) / "theory" / "run"
        with (
            absltest.mock.patch.object(diagonal_linear, "compare", side_effect=KeyboardInterrupt, __name__="compare"),
            self.assertRaises(KeyboardInterrupt),
        ):
            theory_measurements.run(settings, directory)
        self.assertEmpty(records.find(directory.parent))
        record = theory_measurements.run(settings, directory)
        # Of the alpha ratios there is a line for each run that did not diverge.
        counted = [line for line in record.metrics if line["measurement"] != "alpha_ratios"]
        self.assertLen(counted, 8 + 4 + 2 + 2 + 2 * 2)
        with absltest.mock.patch.object(records, "create", side_effect=AssertionError("it was measured again")):
            theory_measurements.run(settings, directory)
        drawn = theory_measurements.draw(record, directory / "figures")
        names = {path.stem for path in drawn}
        self.assertEqual(names, {"least_squares_covariance", "theorem_1", "diagonal_linear_order"})

    def test_a_share_is_a_part(self):
        for share in (0.0, 1.5, float("nan")):
            with self.assertRaisesRegex(config.ConfigError, "`--theory_share` must lie above 0 and be at most 1"):
                theory_measurements.Settings(share=share)


if __name__ == "__main__":
    absltest.main()
