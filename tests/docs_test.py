"""The Python of every page in docs/ runs, page by page from top to bottom, and its commands parse."""

import importlib
import pathlib
import re
import shlex

from absl.testing import absltest, parameterized

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = sorted((path.name,) for path in (ROOT / "docs").glob("*.md"))


class DocsTest(parameterized.TestCase):
    @parameterized.parameters(*PAGES)
    def test_the_python_runs(self, page):
        blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / page).read_text(), flags=re.DOTALL)
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
