"""Every module has its test file, or says in its docstring whose tests cover it; and a registry names what exists."""

import ast
import pathlib
import re

from absl.testing import absltest

TESTS = pathlib.Path(__file__).parent
HOME = TESTS.parent / "noisy_sgd"


def untested(home: pathlib.Path, tests: pathlib.Path) -> list[str]:
    """Modules without a mirrored test file and without a docstring that names test files which exist."""
    found = []
    for module in sorted(home.rglob("*.py")):
        path = module.relative_to(home)
        if module.name == "__init__.py" or (tests / path.with_name(f"{module.stem}_test.py")).exists():
            continue
        docstring = ast.get_docstring(ast.parse(module.read_text())) or ""
        named = re.findall(r"tests/([\w/]+\.py)", docstring)
        if not named or not all((tests / name).exists() for name in named):
            found.append(path.as_posix())
    return found


class MirrorTest(absltest.TestCase):
    def test_every_module_has_its_tests(self):
        self.assertEmpty(untested(HOME, TESTS))

    def test_a_module_without_tests_is_found(self):
        folder = pathlib.Path(self.create_tempdir().full_path)
        for name, text in {
            "home/alone.py": "x = 1",
            "home/covered.py": '"""Sums.\n\nCovered by tests/one_test.py.\n"""',
            "home/wrong.py": '"""Sums.\n\nCovered by tests/lost_test.py.\n"""',
            "home/one.py": "",
            "tests/one_test.py": "",
        }.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(text)
        self.assertEqual(untested(folder / "home", folder / "tests"), ["alone.py", "wrong.py"])


if __name__ == "__main__":
    absltest.main()
