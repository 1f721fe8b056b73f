"""Files: a reader finds the old content or the new one, a failure leaves the old one, and a lock has one owner."""

import errno
import os
import pathlib
import signal
import stat
import subprocess
import sys
from unittest import mock

import tensorflow as tf
from absl.testing import absltest, parameterized

from noisy_sgd import files

FULL = OSError(errno.ENOSPC, "No space left on device")


class Case(parameterized.TestCase):
    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.create_tempdir().full_path)
        self.path = self.root / "run.json"

    def names(self, directory=None) -> list[str]:
        return sorted(os.listdir(directory or self.root))


class WriteTest(Case):
    def test_any_content_replaces_the_one_before(self):
        for data in (b"first\n", b"", bytes(range(256))):
            files.write(self.path, data)
            self.assertEqual(files.read(self.path), data)
        files.write(str(self.path), "\u03b5 = 3\n")
        self.assertEqual(self.path.read_text(encoding="utf-8"), "\u03b5 = 3\n")
        self.assertEqual(self.names(), ["run.json"])

    @parameterized.parameters((0, 0o644, 0o600), (0o077, 0o600, 0o600))
    def test_permissions(self, umask, public, private):
        before = os.umask(umask)
        try:
            files.write(self.path, b"")
            files.write_private(self.root / "private", b"")
        finally:
            os.umask(before)
        for path, mode in ((self.path, public), (self.root / "private", private)):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), mode)

    def test_what_is_renamed_is_on_the_disk_and_so_is_its_name(self):
        events = []

        def recorded(name, function):
            def record(*arguments):
                events.append((name, os.fstat(arguments[0]).st_mode if name == "fsync" else None))
                return function(*arguments)

            return mock.patch.object(os, name, side_effect=record)

        writers = (
            lambda: files.write(self.path, b"a"),
            lambda: files.write_private(self.path, b"b"),
            lambda: files.fill(self.path, self.root / "partial", lambda: (self.root / "partial").write_bytes(b"c")),
        )
        for write in writers:
            with recorded("fsync", os.fsync), recorded("replace", os.replace):
                write()
            self.assertEqual([name for name, _ in events], ["fsync", "replace", "fsync"])
            self.assertTrue(stat.S_ISREG(events[0][1]) and stat.S_ISDIR(events[2][1]))
            events.clear()

    @parameterized.parameters("fsync", "replace")
    def test_a_full_disk_leaves_the_file_before(self, function):
        partial = self.root / "partial"
        for content in ("old", None):
            with mock.patch.object(os, function, side_effect=FULL):
                with self.assertRaises(OSError) as refused:
                    files.write(self.path, "new")
                self.assertEqual((refused.exception.errno, refused.exception.filename), (errno.ENOSPC, str(self.path)))
                with self.assertRaisesRegex(ValueError, f"^{self.path} cannot be written: No space left on device$"):
                    files.write_private(self.path, b"new")
                with self.assertRaisesRegex(OSError, "No space left on device"):
                    files.fill(self.path, partial, lambda: partial.write_text("new"))
            self.assertEqual(self.names(), ["run.json"] if content is None else [])
            files.write(self.path, "old")
            self.assertEqual(self.path.read_text(), "old")

    def test_a_private_file_makes_its_folder_and_removes_what_killed_writers_left(self):
        folder = self.root / "a" / "b"
        files.write_private(folder / "ledger.jsonl", b"1")
        left, others = ".ledger.jsonl.0123456789abcdef.tmp", [".ledgerXjsonl.0123456789abcdef.tmp", ".other.tmp"]
        for name in (left, *others):
            (folder / name).write_text("")
        files.write(folder / "ledger.jsonl", b"2")
        self.assertIn(left, self.names(folder))
        files.write_private(folder / "ledger.jsonl", b"3")
        self.assertEqual(self.names(folder), [*others, "ledger.jsonl"])

    def test_a_file_where_the_folder_should_be(self):
        self.path.write_text("a file")
        for act in (
            lambda: files.write_private(self.path / "below", b""),
            lambda: files.read(self.path / "below"),
            lambda: files.exists(self.path / "below"),
            lambda: files.lock(self.path).__enter__(),
        ):
            with self.assertRaisesRegex(ValueError, f"^{self.path}.* cannot be (written|read): [^\n]+$"):
                act()
        self.assertEqual(self.path.read_text(), "a file")

    def test_what_exists(self):
        self.assertFalse(files.exists(self.path))
        self.assertFalse(files.exists(self.root / "absent" / "run.json"))
        files.write(self.path, "")
        self.assertTrue(files.exists(self.path))
        files.remove(self.path)
        self.assertFalse(files.exists(self.path))


class NewDirectoryTest(Case):
    def test_it_appears_as_a_whole_or_not_at_all(self):
        directory = self.root / "above" / "run"
        with self.assertRaisesRegex(KeyError, "within"), files.new_directory(directory) as fresh:
            (fresh / "file").write_text("")
            raise KeyError("within")
        self.assertEmpty(self.names(self.root / "above"))
        directory.mkdir()
        with files.new_directory(directory) as fresh:
            (fresh / "file").write_text("")
            self.assertEmpty(self.names(directory))
        self.assertEqual(self.names(directory), ["file"])
        with self.assertRaises(OSError) as refused, files.new_directory(directory):
            pass
        self.assertIn(refused.exception.errno, (errno.ENOTEMPTY, errno.EEXIST))
        self.assertEqual(self.names(self.root / "above"), ["run"])


class LockTest(Case):
    def test_a_second_writer_is_refused_until_the_first_ends(self):
        with files.lock(self.root):
            with self.assertRaisesRegex(ValueError, f"{self.root} is in use by another process; wait"):
                with files.lock(self.root):
                    self.fail("two writers")
        with files.lock(self.root):
            pass

    def test_death_releases_it(self):
        code = """if True:
            import signal, sys
            from noisy_sgd import files
            with files.lock(sys.argv[1]):
                print("held", "tensorflow" in sys.modules, flush=True)
                signal.pause()
        """
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        command = [sys.executable, "-c", code, str(self.root)]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
            self.assertEqual(process.stdout.readline(), "held False\n")
            with self.assertRaisesRegex(ValueError, "in use by another process"):
                files.lock(self.root).__enter__()
            process.send_signal(signal.SIGKILL)
            process.communicate()
        with files.lock(self.root):
            pass

    def test_an_error_within_passes_and_releases_it(self):
        with self.assertRaisesRegex(OSError, "within"):
            with files.lock(self.root):
                raise OSError("within")
        with files.lock(self.root):
            pass

    @parameterized.parameters((errno.ENOLCK, True), (errno.EIO, False))
    def test_a_filesystem_without_locks_is_not_guarded(self, number, passes):
        with mock.patch("fcntl.flock", side_effect=OSError(number, os.strerror(number))):
            if passes:
                with files.lock(self.root):
                    pass
            else:
                self.assertRaises(OSError, files.lock(self.root).__enter__)


class OtherFilesystemTest(Case):
    def test_any_filesystem_of_tensorflow(self):
        directory = f"ram:/{self.root}/run"
        path = f"{directory}/ledger.jsonl"
        self.assertFalse(files.exists(path))
        with self.assertRaisesRegex(ValueError, f"^{path} cannot be read: [^\n]+$"):
            files.read(path)
        with files.lock(directory):
            for write, data in ((files.write_private, b"1"), (files.write, b"2"), (files.write_private, b"3")):
                write(path, data)
                self.assertEqual(files.read(path), data)
        self.assertEqual(files.names(directory), ["ledger.jsonl"])
        with mock.patch.object(tf.io.gfile, "rename", side_effect=tf.errors.UnavailableError(None, None, "gone")):
            with self.assertRaisesRegex(ValueError, f"^{path} cannot be written: gone$"):
                files.write_private(path, b"4")
        self.assertEqual(files.names(directory), ["ledger.jsonl"])
        self.assertEqual(files.read(path), b"3")
        files.remove(path)
        self.assertFalse(files.exists(path))
        self.assertEmpty(self.names())


if __name__ == "__main__":
    absltest.main()
