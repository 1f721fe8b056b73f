"""Tests of the progress lines, by a clock that is told the time."""

import io

from absl.testing import absltest

from noisy_sgd.runs import progress


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
        done = [(30, 28), (60, 16), (90, 4), (100, 0)]
        expected = [f"{count}/100 steps, 2.5 steps/s, {left} s left" for count, left in done]
        self.assertEqual(self.stream.getvalue().splitlines(), expected)

    def test_what_goes_beyond_the_total_does_not_count(self):
        with self._progress(100) as watch:
            self.now += 4.0
            watch.advance(150)
            watch.advance(50)
        self.assertEqual(self.stream.getvalue(), "100/100 steps, 25 steps/s, 0 s left\n")

    def test_what_an_earlier_process_has_done_is_no_part_of_the_rate(self):
        watch = progress.Progress(total=100, unit="runs", stream=self.stream, first=60, lines=5, clock=lambda: self.now)
        for done in (70, 80, 100):
            self.now += 1.0
            watch.reach(done, "half done" if done == 80 else None)
        lines = ["80/100 runs, 10 runs/s, 2 s left, half done", "100/100 runs, 13.3 runs/s, 0 s left, half done"]
        self.assertEqual(self.stream.getvalue().splitlines(), lines)

    def test_the_last_line_waits_for_the_last_news(self):
        with self._progress(100) as watch:
            self.now += 1.0
            watch.reach(100, more=True)
            self.assertEmpty(self.stream.getvalue())
            watch.reach(100, "accuracy 1")
            watch.reach(100)
        self.assertEqual(self.stream.getvalue(), "100/100 steps, 100 steps/s, 0 s left, accuracy 1\n")

    def test_a_terminal_has_a_bar(self):
        self.stream.isatty = lambda: True
        with self._progress(100) as watch:
            watch.advance(100)
        self.assertIn("100/100", self.stream.getvalue())


if __name__ == "__main__":
    absltest.main()
