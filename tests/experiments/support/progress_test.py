"""Tests of the progress lines, by a clock that is told the time."""

import io

from absl.testing import absltest

from noisy_sgd.experiments.support import progress


class ProgressTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.now = 100.0
        self.stream = io.StringIO()

    def _progress(self, total):
        return progress.Progress(total=total, unit="steps", stream=self.stream, clock=lambda: self.now)

    def test_writes_a_line_every_ten_seconds_and_one_at_the_end(self):
        with self._progress(100) as watch:
            for _ in range(10):
                self.now += 4.0
                watch.advance(10)
        expected = ["30/100 steps, 12 s, 28 s left", "60/100 steps, 24 s, 16 s left", "90/100 steps, 36 s, 4 s left"]
        self.assertEqual(self.stream.getvalue().splitlines(), [*expected, "100/100 steps, 40 s, 0 s left"])

    def test_what_goes_beyond_the_total_does_not_count(self):
        with self._progress(100) as watch:
            watch.advance(150)
            watch.advance(50)
        self.assertEqual(self.stream.getvalue(), "100/100 steps, 0 s, 0 s left\n")

    def test_a_terminal_has_a_bar(self):
        self.stream.isatty = lambda: True
        with self._progress(100) as watch:
            watch.advance(100)
        self.assertIn("100/100", self.stream.getvalue())


if __name__ == "__main__":
    absltest.main()
