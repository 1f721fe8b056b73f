import contextlib
import dataclasses
import io
import multiprocessing
import os
import pathlib
import signal
import tempfile

from absl.testing import absltest

from noisy_sgd import records
from noisy_sgd.experiments.support import endings, recorded_cases


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(recorded_cases.Settings):
    count: int = 4


def squared(case):
    return {"square": case["number"] ** 2, "process": os.getpid()}


def killed(case):
    if case["number"] == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return squared(case)


def count_lines(lines):
    return {"count": len(lines)}


class RecordedCasesTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.run_dir = str(pathlib.Path(self.enter_context(tempfile.TemporaryDirectory())) / "run")
        self.measured = []

    def square(self, case):
        self.measured.append(case["number"])
        return {"square": case["number"] ** 2}

    def run_cases(self, measure, processes=1, **options):
        def first(lines):
            return [{"number": number} for number in range(4)]

        def second(lines):
            return [{"number": 10 * max(line["square"] for line in lines)}]

        settings = Settings(run_dir=self.run_dir, num_processes=processes, **options)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return recorded_cases.run(settings, (first, second), measure, count_lines, unit="cases")

    def test_a_stage_sees_the_lines_of_the_earlier_ones(self):
        record = self.run_cases(self.square)
        self.assertEqual([line["square"] for line in record.metrics], [0, 1, 4, 9, 8100])
        self.assertEqual((record.status, record.results), (records.FINISHED, {"count": 5}))
        self.run_cases(self.square)
        self.assertLen(self.measured, 5)

    def test_an_interrupted_measurement_goes_on_where_it_stopped(self):
        def interrupted(case):
            if case["number"] == 2:
                signal.raise_signal(signal.SIGTERM)
            return self.square(case)

        with self.assertRaises(SystemExit) as ended:
            self.run_cases(interrupted)
        self.assertEqual(ended.exception.code, endings.STOPPED)
        metrics = pathlib.Path(self.run_dir, "metrics.jsonl")
        self.assertLen(metrics.read_text().splitlines(), 3)
        with open(metrics, "a") as file:
            file.write('{"number": 3, "squ')
        resumed = self.run_cases(self.square)
        self.assertEqual(self.measured, [0, 1, 2, 3, 90])
        self.assertEqual([line["square"] for line in resumed.metrics], [0, 1, 4, 9, 8100])

    def test_a_line_of_another_case_is_refused(self):
        def failing(case):
            if case["number"] == 2:
                raise ValueError("there is no third case")
            return self.square(case)

        with self.assertRaises(SystemExit) as ended:
            self.run_cases(failing)
        self.assertEqual(ended.exception.code, endings.FAILED)
        metrics = pathlib.Path(self.run_dir, "metrics.jsonl")
        metrics.write_text(metrics.read_text().replace('"number": 1', '"number": 7'))
        with self.assertRaises(SystemExit) as ended:
            self.run_cases(self.square)
        self.assertEqual(ended.exception.code, endings.FAILED)

    def test_a_killed_process_ends_the_measurement_and_not_what_is_recorded(self):
        with self.assertRaises(SystemExit) as ended:
            self.run_cases(killed, processes=2)
        self.assertEqual(ended.exception.code, endings.FAILED)
        self.assertEmpty(multiprocessing.active_children())
        resumed = self.run_cases(self.square)
        self.assertEqual([line["square"] for line in resumed.metrics], [0, 1, 4, 9, 8100])

    def test_processes_record_in_the_order_of_the_cases(self):
        record = self.run_cases(squared, processes=2)
        self.assertEqual([line["square"] for line in record.metrics], [0, 1, 4, 9, 8100])
        self.assertNotIn(os.getpid(), {line["process"] for line in record.metrics})


if __name__ == "__main__":
    absltest.main()
