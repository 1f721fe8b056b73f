"""The source archive and the wheel: built without network, installed elsewhere, and used from another folder."""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tempfile

from absl.testing import absltest

ROOT = pathlib.Path(__file__).parents[1]
PARTS = ("noisy_sgd", "configs", "pyproject.toml", "setup.py", "README.md", "LICENSE")


class WheelTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.root = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))

    def _run(self, *command, cwd=None, **environment):
        found = subprocess.run(
            command, cwd=cwd or self.root, env=os.environ | environment, capture_output=True, text=True
        )
        self.assertEqual(found.returncode, 0, found.stdout + found.stderr)
        return found.stdout

    def test_a_wheel_from_the_source_archive_works_anywhere(self):
        tree = self.root / "tree"
        tree.mkdir()
        for part in PARTS:
            copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
            copy(ROOT / part, tree / part)
        build = "import setuptools.build_meta as build; build.build_{}(r'{}')"
        self._run(sys.executable, "-c", build.format("sdist", self.root), cwd=tree)
        (archive,) = self.root.glob("noisy_sgd-*.tar.gz")
        with tarfile.open(archive) as file:
            file.extractall(self.root / "source")
        (source,) = (self.root / "source").iterdir()
        self._run(sys.executable, "-c", build.format("wheel", self.root), cwd=source)
        (wheel,) = self.root.glob("*.whl")
        site = self.root / "site"
        self._run(sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel)
        flagfiles = sorted(path.relative_to(ROOT / "configs") for path in (ROOT / "configs").rglob("*.flags"))
        installed = site / "noisy_sgd" / "configs"
        self.assertEqual(sorted(path.relative_to(installed) for path in installed.rglob("*.flags")), flagfiles)

        command, elsewhere = site / "bin" / "noisy-sgd", self.root / "elsewhere"
        elsewhere.mkdir()
        listed = self._run(command, cwd=elsewhere, PYTHONPATH=str(site))
        self.assertIn("\nreproduce ", listed)
        helped = self._run(command, "reproduce", "--help", cwd=elsewhere, PYTHONPATH=str(site))
        self.assertIn("--flagfile=configs/reproduce/quick.flags", helped, "the example in its own description")
        run = (command, "fixed_epsilon_noise", "epsilon_3", "--run_dir=run")
        self._run(*run, cwd=elsewhere, PYTHONPATH=str(site))
        self.assertTrue((elsewhere / "run" / "run.json").exists())


if __name__ == "__main__":
    absltest.main()
