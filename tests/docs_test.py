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
        names = {}
        for block in blocks:
            exec(compile(block, page, "exec"), names)

    @parameterized.parameters(*PAGES)
    def test_the_commands_parse(self, page):
        text = (ROOT / "docs" / page).read_text()
        for binary, arguments in re.findall(r"-m noisy_sgd\.experiments\.(\w+) (.*)$", text, flags=re.MULTILINE):
            words = [word.replace("=configs/", f"={ROOT}/configs/") for word in shlex.split(arguments)]
            importlib.import_module(f"noisy_sgd.experiments.{binary}").parse([binary, *words])


if __name__ == "__main__":
    absltest.main()
