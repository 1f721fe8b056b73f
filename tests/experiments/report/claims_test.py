import pathlib
import tempfile

from absl.testing import absltest

from noisy_sgd import records
from noisy_sgd.experiments.report import claims


def _claim(measure, experiment="sweep", text="a < b | c"):
    return claims.Claim(text=text, paper="1", experiment=experiment, measure=measure)


def _accuracy_is_high(runs):
    found = runs[0].metrics[-1]["val_accuracy"]
    return claims.Outcome(here=f"{found}", reached=found > 0.5)


class ReportTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.results = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))

    def _record(self, accuracy, finished=True):
        run = records.create(self.results / "sweep" / "run", {}, privacy="none")
        run.append({"step": 1, "val_accuracy": accuracy})
        if finished:
            run.finish({})

    def _verdict(self, claim):
        (row,) = claims.judge([claim], self.results)
        return row.verdict, row.here

    def test_records_that_bear_it_out(self):
        self._record(0.9)
        self.assertEqual(self._verdict(_claim(_accuracy_is_high)), ("reached", "0.9"))

    def test_records_that_contradict_it(self):
        self._record(0.1)
        self.assertEqual(self._verdict(_claim(_accuracy_is_high)), ("not reached", "0.1"))

    def test_no_records_or_unfinished_ones(self):
        self.assertEqual(self._verdict(_claim(_accuracy_is_high)), ("not run", ""))
        self._record(0.9, finished=False)
        self.assertEqual(self._verdict(_claim(_accuracy_is_high)), ("not run", ""))

    def test_runs_of_any_folder(self):
        self._record(0.9)
        (row,) = claims.judge_runs([_claim(_accuracy_is_high, "elsewhere")], records.find(self.results / "sweep"))
        self.assertEqual((row.verdict, row.here), ("reached", "0.9"))

    def test_records_of_something_else(self):
        self._record(0.9)
        self.assertEqual(self._verdict(_claim(_accuracy_is_high, experiment="other")), ("not run", ""))
        self.assertEqual(self._verdict(_claim(lambda runs: None)), ("not run", ""))


if __name__ == "__main__":
    absltest.main()
