import datetime
import json
import math
import os
import pathlib
import tempfile
import time
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import records

CONFIG = {"data": {"dataset": "digits"}, "algorithm": {"algorithm": "sgd", "batch_size": 64}}
OTHER = {"data": {"dataset": "digits"}, "algorithm": {"algorithm": "sgd", "batch_size": 32}}


class RunDirectoryTest(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
        self.directory = self.root / "deep" / "run"

    def _finished(self, config=CONFIG):
        run = records.create(self.directory, config, privacy="none")
        run.append({"step": 1, "loss": 0.5})
        run.finish({"accuracy": 1.0})
        return run

    def test_reads_back_what_was_written(self):
        run = records.create(self.directory, CONFIG, privacy="No guarantee.")
        run.append({"step": np.int64(1), "loss": np.float32(0.5), "shape": (1, 2)})
        run.append({"step": 2, "loss": math.nan})
        running = records.read(self.directory)
        self.assertEqual(running.status, records.RUNNING)
        self.assertEqual(running.config, CONFIG)
        self.assertEqual(running.privacy, "No guarantee.")
        self.assertEqual(running.metrics, [{"step": 1, "loss": 0.5, "shape": [1, 2]}, {"step": 2, "loss": None}])
        self.assertIn("tensorflow", running.versions)
        run.finish({"accuracy": 0.75})
        finished = records.read(self.directory)
        self.assertEqual((finished.status, finished.results), (records.FINISHED, {"accuracy": 0.75}))
        self.assertEqual(finished.metrics, running.metrics)

    def test_the_same_run_gives_the_same_bytes(self):
        for name in ("a", "b"):
            run = records.create(self.root / name, CONFIG, privacy="none")
            run.append({"step": 1, "loss": 0.1 + 0.2})
            run.finish({"loss": 0.1 + 0.2})
        self.assertEqual(*((self.root / name / "metrics.jsonl").read_bytes() for name in ("a", "b")))
        self.assertEqual(
            *(json.loads((self.root / name / "run.json").read_text()) | {"made": 0} for name in ("a", "b"))
        )

    def test_a_finished_run_says_where_it_was_made_and_how_long_it_took(self):
        run = records.create(self.directory, CONFIG, privacy="none")
        self.assertEqual(records.read(self.directory).made, {})
        with mock.patch.object(time, "monotonic", return_value=run._began + 7.5):
            run.finish({})
        made = records.read(self.directory).made
        self.assertRegex(made["machine"], rf"\w.*, {os.cpu_count()} cores")
        self.assertEqual(made["day"], datetime.date.today().isoformat())
        self.assertEqual(made["seconds"], 7.5)

    def test_nothing_but_the_run_is_left_behind(self):
        self._finished()
        self.assertCountEqual(os.listdir(self.directory), ["run.json", "metrics.jsonl"])
        self.assertEqual(os.listdir(self.directory.parent), ["run"])

    def test_an_empty_directory_will_do(self):
        self.directory.mkdir(parents=True)
        self.assertEqual(records.create(self.directory, CONFIG, privacy="none").directory, self.directory)

    def test_an_unfinished_run_starts_again(self):
        records.create(self.directory, CONFIG, privacy="none").append({"step": 1})
        records.create(self.directory, CONFIG, privacy="none")
        self.assertEmpty(records.read(self.directory).metrics)

    def test_of_two_that_start_at_once_the_second_leaves_the_first_its_run(self):
        versions, running = records.versions, []

        def meanwhile():
            if not running:
                running.append(True)
                running.append(records.reopen(self.directory, CONFIG, privacy="none"))
                running[-1].append({"step": 1})
            return versions()

        with mock.patch.object(records, "versions", side_effect=meanwhile):
            with self.assertRaisesRegex(ValueError, "`run_dir` is in use by another process"):
                records.reopen(self.directory, CONFIG, privacy="none")
        self.assertEqual(records.read(self.directory).metrics, [{"step": 1}])
        self.assertEqual(os.listdir(self.directory.parent), ["run"])

    def test_an_unfinished_run_is_reopened_as_it_stands(self):
        run = records.reopen(self.directory, CONFIG, privacy="none")
        run.append({"step": 1})
        run.append({"step": 1, "loss": 0.5}, private=True)
        text = run.text()
        run.append({"step": 2})
        again = records.reopen(self.directory, CONFIG, privacy="another")
        self.assertLen(records.read(self.directory).metrics, 2)
        self.assertEqual(records.read(self.directory).privacy, "none")
        again.rewrite(text)
        self.assertEqual(records.read(self.directory).metrics, [{"step": 1}])
        self.assertEqual(again.text(private=True), '{"step": 1, "loss": 0.5}\n')
        self.assertNotIn("loss", text)
        self.assertEqual((self.directory / "private").stat().st_mode & 0o777, 0o700)
        again.state("another")
        self.assertEqual(records.read(self.directory).privacy, "another")
        again.finish({})
        with self.assertRaisesRegex(ValueError, "finished"):
            records.reopen(self.directory, CONFIG, privacy="none")

    def test_reopening_refuses_what_creating_refuses(self):
        self._finished()
        with self.assertRaisesRegex(ValueError, "algorithm.batch_size is 64 there and 32 here"):
            records.reopen(self.directory, OTHER, privacy="none")

    def test_another_run_is_refused_by_its_first_difference(self):
        self._finished()
        before = (self.directory / "run.json").read_bytes()
        with self.assertRaisesRegex(ValueError, "algorithm.batch_size is 64 there and 32 here"):
            records.create(self.directory, OTHER, privacy="none")
        self.assertEqual((self.directory / "run.json").read_bytes(), before)

    def test_the_same_finished_run_is_known_and_kept(self):
        self.assertFalse(records.is_finished(self.directory, CONFIG))
        records.create(self.directory, CONFIG, privacy="none")
        self.assertFalse(records.is_finished(self.directory, CONFIG))
        self._finished()
        self.assertTrue(records.is_finished(self.directory, CONFIG))
        self.assertFalse(records.is_finished(self.directory, OTHER))
        with self.assertRaisesRegex(ValueError, "finished"):
            records.create(self.directory, CONFIG, privacy="none")
        self.assertLen(records.read(self.directory).metrics, 1)

    def test_other_files_are_not_overwritten(self):
        self.directory.mkdir(parents=True)
        (self.directory / "thesis.tex").write_text("years of work")
        with self.assertRaisesRegex(ValueError, "holds other files"):
            records.create(self.directory, CONFIG, privacy="none")
        self.assertEqual((self.directory / "thesis.tex").read_text(), "years of work")

    @parameterized.parameters("file", "file/run", "file/deep/run")
    def test_a_file_where_a_directory_should_be(self, place):
        (self.root / "file").write_text("")
        with self.assertRaisesRegex(ValueError, "`run_dir` needs a directory, but .*file is a file") as caught:
            records.create(self.root / place, CONFIG, privacy="none")
        self.assertNotIn("\n", str(caught.exception))
        self.assertEqual(os.listdir(self.root), ["file"])

    def test_a_full_disk_leaves_nothing(self):
        with mock.patch.object(os, "fsync", side_effect=OSError(28, "No space left on device")):
            with self.assertRaisesRegex(ValueError, "`run_dir` cannot be written: No space left on device"):
                records.create(self.directory, CONFIG, privacy="none")
        self.assertEmpty(os.listdir(self.directory.parent))

    def test_a_failed_replacement_keeps_the_old_file(self):
        run = records.create(self.directory, CONFIG, privacy="none")
        with mock.patch.object(os, "fsync", side_effect=OSError(28, "No space left on device")):
            with self.assertRaisesRegex(ValueError, "run.json cannot be written: No space left on device"):
                run.finish({})
        self.assertEqual(records.read(self.directory).status, records.RUNNING)
        self.assertEqual(os.listdir(self.directory), ["run.json"])

    def test_a_line_that_cannot_be_written_names_the_file(self):
        run = records.create(self.directory, CONFIG, privacy="none")
        (self.directory / "private").write_text("")
        with self.assertRaisesRegex(ValueError, "private.* cannot be written: (File exists|Not a directory)"):
            run.append({"step": 1}, private=True)

    def test_a_line_cut_short_is_left_out(self):
        records.create(self.directory, CONFIG, privacy="none").append({"step": 1})
        with open(self.directory / "metrics.jsonl", "a") as file:
            file.write('{"step": 2, "lo')
        self.assertEqual(records.read(self.directory).metrics, [{"step": 1}])

    @parameterized.parameters(b"{", b"", b"7", b"\xff\xfe", b"\0\0\0")
    def test_a_damaged_line_is_named(self, line):
        run = records.create(self.directory, CONFIG, privacy="none")
        (self.directory / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + line + b'\n{"step": 3}\n')
        with self.assertRaisesRegex(ValueError, "metrics.jsonl is damaged: its line 2 is not a JSON object"):
            records.read(self.directory)
        # A run that goes on takes its metrics from a checkpoint.
        self.assertFalse(records.is_finished(self.directory, CONFIG))
        records.reopen(self.directory, CONFIG, privacy="none").rewrite('{"step": 1}\n')
        self.assertEqual(records.read(self.directory).metrics, [{"step": 1}])
        run.finish({})

    @parameterized.parameters(0o077, 0o027, 0o022, 0o000)
    def test_nothing_is_wider_than_the_umask(self, umask):
        before = os.umask(umask)
        try:
            run = records.create(self.directory, CONFIG, privacy="none")
            run.append({"step": 1})
            run.append({"step": 1}, private=True)
            run.rewrite("", private=False)
            run.finish({})
        finally:
            os.umask(before)
        for path in (self.directory, *self.directory.rglob("*")):
            self.assertFalse(path.stat().st_mode & umask, path)
        if umask == 0o022:
            modes = [path.stat().st_mode & 0o777 for path in (self.directory, self.directory / "run.json")]
            self.assertEqual(modes, [0o755, 0o644])

    def test_what_is_not_a_run_is_said(self):
        self.directory.mkdir(parents=True)
        with self.assertRaisesRegex(ValueError, "must hold the run.json of a run"):
            records.read(self.directory)
        (self.directory / "run.json").write_text(json.dumps({"config": {}}))
        with self.assertRaisesRegex(ValueError, "must hold the run.json of a run"):
            records.read(self.directory)

    def test_find_takes_finished_runs_only(self):
        for name in ("b", "a"):
            records.create(self.root / name, CONFIG, privacy="none").finish({})
        records.create(self.root / "c", CONFIG, privacy="none")
        self.assertEqual([run.directory.name for run in records.find(self.root)], ["a", "b"])
        self.assertEmpty(records.find(self.root / "nowhere"))


class FirstDifferenceTest(parameterized.TestCase):
    @parameterized.parameters(
        ({}, {}, None),
        ({"a": 1}, {"a": 1.0}, None),
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b is 1 there and 2 here"),
        ({"a": 1}, {}, "a is 1 there and 'absent' here"),
        ({"b": 1, "a": 1}, {"b": 2, "a": 2}, "a is 1 there and 2 here"),
    )
    def test_names_it(self, there, here, expected):
        self.assertEqual(records.first_difference(there, here), expected)


if __name__ == "__main__":
    absltest.main()
