"""The README's Python runs, its commands parse, and what it names exists."""

import importlib
import pathlib
import re
import shlex
from unittest import mock

import keras
import numpy as np
from absl.testing import absltest

ROOT = pathlib.Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


class ReadmeTest(absltest.TestCase):
    def test_the_python_example_trains(self):
        (example,) = blocks("python")
        # On fewer images, for fewer steps.
        for shown, tried in (("60_000", "300"), ("1024", "128"), ("epochs=10", "epochs=1, verbose=0")):
            self.assertIn(shown, example)
            example = example.replace(shown, tried)
        rng, names = np.random.default_rng(0), {}
        data = [(rng.integers(0, 256, (size, 28, 28)), rng.integers(0, 10, size)) for size in (300, 20)]
        with mock.patch.object(keras.datasets.mnist, "load_data", lambda: data):
            exec(compile(example, "README.md", "exec"), names)
        self.assertEqual(int(names["optimizer"].iterations), 3)
        self.assertLess(names["budget"].spent, 3.0)

    def test_the_commands_parse(self):
        commands = re.findall(r"^\S.*-m noisy_sgd\.experiments\.(\w+) ((?:.*\\\n)*.*)$", README, flags=re.MULTILINE)
        self.assertGreater(len(commands), 3)
        for binary, arguments in commands:
            self.assertTrue((ROOT / f"noisy_sgd/experiments/{binary}.py").exists(), binary)
            words = [
                word.replace("=configs/", f"={ROOT}/configs/") for word in shlex.split(arguments.replace("\\\n", " "))
            ]
            importlib.import_module(f"noisy_sgd.experiments.{binary}").parse([binary, *words])

    def test_the_two_commands_run_whatever_python3_is(self):
        environment = "python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && .venv/bin/python -m "
        commands = [line for line in README.splitlines() if line.startswith("python3")]
        self.assertLen(commands, 2)
        for command, module in zip(commands, ("noisy_sgd.experiments.reproduce ", "pytest tests"), strict=True):
            self.assertStartsWith(command, environment + module)

    def test_it_is_short(self):
        self.assertLessEqual(README.count("\n"), 150)

    def test_what_it_names_exists(self):
        for path in re.findall(r"`((?:noisy_sgd|configs|tests)/[\w/.]*)`|\]\(((?:\.|docs/)[\w/.]+)\)", README):
            self.assertTrue((ROOT / (path[0] or path[1])).exists(), path)


if __name__ == "__main__":
    absltest.main()
