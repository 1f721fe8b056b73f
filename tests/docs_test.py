"""The Python of every page in docs/ runs, page by page from top to bottom, and its commands parse."""

import importlib
import pathlib
import re
import shlex

import keras
from absl.testing import absltest, parameterized

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = sorted((path.name,) for path in (ROOT / "docs").glob("*.md"))


def _restore(objects, before):
    for name in [name for name in objects if not name.startswith("noisy_sgd>")]:
        del objects[name]
    objects.update(before)


class DocsTest(parameterized.TestCase):
    @parameterized.parameters(*PAGES)
    def test_the_python_runs(self, page):
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), flags=re.DOTALL)
        # A page may register classes under names that other tests use; those of the package stay.
        objects = keras.saving.get_custom_objects()
        before = dict(objects)
        self.addCleanup(lambda: _restore(objects, before))
        names = {"__name__": "page"}
        for block in blocks:
            exec(compile(block, page, "exec"), names)

    @parameterized.parameters(*PAGES)
    def test_the_commands_parse(self, page):
        text = (ROOT / "docs" / page).read_text()
        commands = re.findall(r"^ *python -m noisy_sgd\.experiments\.(\w+)((?: .*\\\n)*.*)$", text, flags=re.MULTILINE)
        for binary, arguments in commands:
            words = shlex.split(arguments.replace("\\\n", " "))
            words = [word.replace("=configs/", f"={ROOT}/configs/") for word in words]
            importlib.import_module(f"noisy_sgd.experiments.{binary}").parse([binary, *words])


if __name__ == "__main__":
    absltest.main()
