"""Checkpoints: what was saved comes back, and neither a kill, a full disk nor a damaged byte loses the one before."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
from absl.testing import absltest, parameterized

from noisy_sgd import files
from noisy_sgd.runs import checkpoints

SAVING = """
    import os, signal, sys
    import numpy as np
    from noisy_sgd.runs import checkpoints

    directory, first = sys.argv[1], int(sys.argv[2])

    def save(step, size=30_000):
        arrays = {"weights": np.full(size, step, np.float64)}
        checkpoints.save(directory, checkpoints.Checkpoint(step=step, arrays=arrays, facts={"step": step}), keep=2)
"""


def made(step: int, size: int = 5000) -> checkpoints.Checkpoint:
    """A checkpoint of about 8 * size bytes, whose content tells the step."""
    arrays = {
        "model/dense/kernel": np.random.default_rng(step).normal(size=size),
        "file": np.full((2, 3), step, np.float32),
        "optimizer/iterations": np.int64(step),
    }
    return checkpoints.Checkpoint(step=step, arrays=arrays, facts={"seed": step, "nested": {"a": [1, 0.1, None]}})


def started(code: str, *arguments, command: tuple[str, ...] = ()) -> subprocess.Popen:
    """Another Python process with `SAVING` and then `code`, run by a command if there is one."""
    return subprocess.Popen(
        [*command, sys.executable, "-c", textwrap.dedent(SAVING) + textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


class Case(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.directory = pathlib.Path(self.create_tempdir().full_path) / "run"

    def path(self, step: int) -> pathlib.Path:
        return self.directory / f"step_{step:08d}.npz"

    def names(self) -> list[str]:
        return sorted(os.listdir(self.directory))

    def refuse(self, sentence: str):
        self.fail(f"nothing was to be warned about: {sentence}")

    def assert_same(self, found: checkpoints.Checkpoint, expected: checkpoints.Checkpoint):
        self.assertEqual((found.step, found.facts), (expected.step, expected.facts))
        self.assertCountEqual(found.arrays, expected.arrays)
        for name, array in expected.arrays.items():
            self.assertEqual(found.arrays[name].dtype, array.dtype, name)
            np.testing.assert_array_equal(found.arrays[name], array, err_msg=name)

    def assert_loads(self, step: int):
        self.assert_same(checkpoints.load_newest(self.directory, self.refuse), made(step))


class SaveTest(Case):
    def test_what_was_saved_comes_back(self):
        self.assertIsNone(checkpoints.load_newest(self.directory, self.refuse))
        checkpoints.save(self.directory, made(120), keep=3)
        self.assert_loads(120)
        self.assertEqual(self.names(), ["step_00000120.npz"])
        with np.load(self.path(120)) as file:
            np.testing.assert_array_equal(file["arrays/file"], made(120).arrays["file"])

    def test_the_same_content_gives_the_same_bytes(self):
        checkpoints.save(self.directory, made(7), keep=3)
        first = self.path(7).read_bytes()
        time.sleep(2.1)  # A date in a zip counts in steps of two seconds.
        arrays = {name: np.asarray(array, order="F") for name, array in reversed(made(7).arrays.items())}
        facts = dict(reversed(made(7).facts.items()))
        checkpoints.save(self.directory, checkpoints.Checkpoint(step=7, arrays=arrays, facts=facts), keep=3)
        self.assertEqual(self.path(7).read_bytes(), first)

    def test_only_the_owner_may_read(self):
        before = os.umask(0)
        try:
            checkpoints.save(self.directory, made(1), keep=1)
        finally:
            os.umask(before)
        self.assertEqual(self.path(1).stat().st_mode & 0o777, 0o600)

    def test_the_newest_are_kept(self):
        for step in (5, 10, 15, 20):
            checkpoints.save(self.directory, made(step), keep=2)
            self.assert_loads(step)
        self.assertEqual(self.names(), ["step_00000015.npz", "step_00000020.npz"])

    def test_a_run_that_is_back_at_an_earlier_step_removes_the_damaged_later_ones(self):
        for step in (10, 20):
            checkpoints.save(self.directory, made(step), keep=2)
        self.path(20).write_bytes(b"damaged")
        checkpoints.save(self.directory, made(15), keep=1)
        self.assertEqual(self.names(), ["step_00000015.npz"])
        self.assert_loads(15)

    def test_steps_sort_as_numbers(self):
        for step in (99_999_999, 100_000_000):
            checkpoints.save(self.directory, made(step), keep=2)
        self.assert_loads(100_000_000)

    def test_what_killed_writers_left_is_removed_and_nothing_else(self):
        self.directory.mkdir()
        for name in (".step_00000003.npz.0123456789abcdef.tmp", ".other.tmp", "step_3.npz", "metrics.jsonl"):
            (self.directory / name).write_text("")
        self.assertIsNone(checkpoints.load_newest(self.directory, self.refuse))
        checkpoints.save(self.directory, made(4), keep=1)
        self.assertEqual(self.names(), [".other.tmp", "metrics.jsonl", "step_00000004.npz", "step_3.npz"])

    @parameterized.parameters((np.array([None]),), (np.zeros(2, "V2"),))
    def test_objects_are_refused(self, array):
        with self.assertRaisesRegex(ValueError, "`arrays` must hold plain .*Received: bad of dtype"):
            checkpoints.save(self.directory, checkpoints.Checkpoint(step=1, arrays={"bad": array}, facts={}), keep=1)

    def test_at_least_one_is_kept(self):
        with self.assertRaisesRegex(ValueError, "`keep` must be at least 1. Received: keep=0"):
            checkpoints.save(self.directory, made(1), keep=0)


class DamageTest(Case):
    def setUp(self):
        super().setUp()
        for step in (1, 2):
            checkpoints.save(self.directory, made(step), keep=2)
        self.whole = self.path(2).read_bytes()
        self.said = []

    def assert_falls_back(self, damaged: bytes, what: str):
        self.path(2).write_bytes(damaged)
        self.said.clear()
        found = checkpoints.load_newest(self.directory, self.said.append)
        self.assertEqual(found.step, 1, what)
        self.assertLen(self.said, 1, what)
        self.assertRegex(self.said[0], r"step_00000002\.npz is skipped, falling back to step_00000001\.npz")
        self.assertNotIn("\n", self.said[0])

    def test_cut_short_anywhere(self):
        self.assertGreater(len(self.whole), 40_000)
        cuts = [
            *range(0, len(self.whole), 1024),
            1,
            63,
            64,
            65,
            2049,
            *(len(self.whole) - n for n in (1, 2, 22, 64, 65, 87)),
        ]
        for cut in cuts:
            self.assert_falls_back(self.whole[:cut], f"cut at {cut} of {len(self.whole)}")

    def test_a_flipped_bit_anywhere(self):
        generator = random.Random(3)
        places = [generator.randrange(len(self.whole)) for _ in range(50)] + [0, 8, len(self.whole) - 1]
        for place in places:
            damaged = bytearray(self.whole)
            damaged[place] ^= 1 << generator.randrange(8)
            self.assert_falls_back(bytes(damaged), f"flipped at {place}")

    def test_a_page_of_zeros_and_bytes_too_many(self):
        self.assert_falls_back(self.whole[:4096] + bytes(4096) + self.whole[8192:], "zeros")
        self.assert_falls_back(self.whole + b"\0", "one more")
        self.assert_falls_back(b"", "empty")

    def test_what_cannot_be_read_is_passed_over(self):
        self.path(2).unlink()
        self.path(2).mkdir()
        self.assertEqual(checkpoints.load_newest(self.directory, self.said.append).step, 1)
        self.assertIn("cannot be read: Is a directory", self.said[0])

    def test_none_whole_is_one_sentence(self):
        for step in (1, 2):
            self.path(step).write_bytes(self.whole[:-1])
        message = rf"checkpoints \(2\) are .*Received: directory={self.directory}"
        with self.assertRaisesRegex(ValueError, message) as raised:
            checkpoints.load_newest(self.directory, self.said.append)
        self.assertNotIn("\n", str(raised.exception))
        self.assertLen(self.said, 1)


class FaultTest(Case):
    def test_a_file_where_the_directory_should_be(self):
        self.directory.write_text("a file")
        for act in (
            lambda: checkpoints.save(self.directory, made(1), keep=1),
            lambda: checkpoints.save(self.directory / "below", made(1), keep=1),
            lambda: checkpoints.load_newest(self.directory, self.refuse),
        ):
            with self.assertRaisesRegex(ValueError, f"^{self.directory}.* cannot be (written|read): [^\n]+$"):
                act()
        self.assertEqual(self.directory.read_text(), "a file")

    @parameterized.named_parameters(
        ("file_too_large", False, "File too large"),
        ("small_filesystem", True, "No space left on device"),
    )
    def test_a_full_disk_leaves_the_older_checkpoints(self, small, reason):
        code = """
            import resource, subprocess
            if len(sys.argv) > 3:
                mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", directory])
                if mounted.returncode:
                    sys.exit(77)
            else:
                resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
            save(1)
            try:
                save(2, 60_000)
            except ValueError as error:
                print(error)
            print(sorted(os.listdir(directory)), checkpoints.load_newest(directory, print).step)
            save(3, 20_000 if len(sys.argv) > 3 else 30_000)
            print(checkpoints.load_newest(directory, print).step)
        """
        self.directory.mkdir()
        # The filesystem belongs to the process that makes it, and so is gone with it.
        process = started(code, self.directory, 1, *["small"] * small, command=("unshare", "--mount") if small else ())
        out, err = process.communicate()
        if small and (process.returncode == 77 or "unshare" in err):
            self.skipTest(f"cannot mount a filesystem here: {err}")
        self.assertEqual(process.returncode, 0, err)
        said, left, last = out.splitlines()
        self.assertEqual(said, f"{self.path(2)} cannot be written: {reason}")
        self.assertEqual(left, "['step_00000001.npz'] 1")
        self.assertEqual(last, "3")


class KillTest(Case):
    @parameterized.parameters(
        ("fsync", 1, 1, 2),  # All bytes are written, not yet on the disk.
        ("replace", 1, 1, 2),  # Whole, under its temporary name.
        ("fsync", 2, 2, 2),  # Under its own name; the directory is not yet on the disk.
        ("unlink", 1, 3, 3),  # The one that is too many is still there.
    )
    def test_killed_at_every_stage_of_a_save(self, function, call, expected, step):
        for earlier in range(1, step):
            checkpoints.save(self.directory, made(earlier), keep=2)
        code = f"""
            real, calls = os.{function}, 0
            def killing(*arguments):
                global calls
                calls += 1
                if calls == {call}:
                    os.kill(os.getpid(), signal.SIGKILL)
                return real(*arguments)
            os.{function} = killing
            save(first)
        """
        process = started(code, self.directory, step)
        _, err = process.communicate()
        self.assertEqual(process.returncode, -signal.SIGKILL, err)
        self.assertEqual(checkpoints.load_newest(self.directory, self.refuse).step, expected)
        checkpoints.save(self.directory, made(step + 1), keep=2)
        self.assertEqual(
            self.names(), sorted(path.name for path in (self.path(max(expected, step - 1)), self.path(step + 1)))
        )

    def test_killed_at_any_moment(self):
        generator, reached = random.Random(5), 0
        for _ in range(8):
            code = """
                print("saving", flush=True)
                while True:
                    first += 1
                    save(first)
            """
            process = started(code, self.directory, reached)
            process.stdout.readline()
            time.sleep(generator.uniform(0, 0.06))
            process.kill()
            process.communicate()
            found = checkpoints.load_newest(self.directory, self.refuse)
            if found is not None:
                self.assertGreaterEqual(found.step, reached)
                reached = found.step
                np.testing.assert_array_equal(found.arrays["weights"], np.full(30_000, reached, np.float64))
        self.assertGreater(reached, 0)


class OtherFilesystemTest(Case):
    def test_any_filesystem_of_tensorflow(self):
        directory = f"ram:/{self.directory}"
        self.assertIsNone(checkpoints.load_newest(directory, self.refuse))
        for step in (1, 2, 3):
            checkpoints.save(directory, made(step), keep=2)
        self.assert_same(checkpoints.load_newest(directory, self.refuse), made(3))
        self.assertFalse(self.directory.exists())

        data = files.read(f"{directory}/step_00000003.npz")
        files.write_private(f"{directory}/step_00000003.npz", data[:-1000])
        said = []
        self.assert_same(checkpoints.load_newest(directory, said.append), made(2))
        self.assertIn(f"{directory}/step_00000003.npz is skipped", said[0])


if __name__ == "__main__":
    absltest.main()
