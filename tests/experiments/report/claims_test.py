import pathlib
import re
import tempfile

from absl.testing import absltest

from noisy_sgd import records
from noisy_sgd.experiments.report import claims, pages

# One black pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010800000000 3a7e9b55 0000000a49444154789c6360000000020001e221bc33"
    "0000000049454e44ae426082".replace(" ", "")
)


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

    def test_records_of_something_else(self):
        self._record(0.9)
        self.assertEqual(self._verdict(_claim(_accuracy_is_high, experiment="other")), ("not run", ""))
        self.assertEqual(self._verdict(_claim(lambda runs: None)), ("not run", ""))

    def test_written_twice_over(self):
        self._record(0.1)
        figure = self.results / "figures" / "some_figure.png"
        figure.parent.mkdir()
        figure.write_bytes(PNG)
        rows = claims.judge([_claim(_accuracy_is_high), _claim(_accuracy_is_high, experiment="other")], self.results)
        markdown, page = pages.write(rows, self.results, figures=[figure], setting="2 < 3 seeds")
        text = markdown.read_text()
        self.assertIn("0 reached, 1 not reached, 1 not run.", text)
        self.assertIn("| a < b \\| c | 1 | 0.1 | not reached |", text)
        self.assertIn("| a < b \\| c | 1 | - | not run |", text)
        self.assertIn("![some figure](figures/some_figure.png)", text)
        text = page.read_text()
        self.assertIn("2 &lt; 3 seeds", text)
        self.assertIn('<td>a &lt; b | c</td><td>1</td><td>0.1</td><td class="not-reached">not reached</td>', text)
        self.assertIn("data:image/png;base64,", text)
        self.assertEmpty(re.findall('(?:src|href)="(?!data:)', text), "report.html must stand alone")


if __name__ == "__main__":
    absltest.main()
