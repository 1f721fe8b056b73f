"""Bazel's BUILD files say the diagram of layering_test.py a second time, as `visibility` and `deps`."""

import ast
import re

from absl.testing import absltest, parameterized

from tests import layering_test

_FRONT = "//:__pkg__"
_TESTS = "//tests:__subpackages__"


def libraries(build: str, package: str) -> dict[str, dict[str, list[str]]]:
    """The py_library rules of a BUILD file: layer -> its `visibility` and `deps`, labels written in full.

    Args:
        build: text of the BUILD file, whose rules are Python's syntax too.
        package: the folder, below noisy_sgd/; "" for noisy_sgd/ itself.
    """
    home = f"//noisy_sgd/{package}".rstrip("/")
    found = {}
    for node in ast.walk(ast.parse(build)):
        if isinstance(node, ast.Call) and layering_test.dotted(node.func) == "py_library":
            rule = {keyword.arg: keyword.value for keyword in node.keywords}
            name = ast.literal_eval(rule["name"])
            labels = {
                key: [f"{home}{label}" if label.startswith(":") else label for label in ast.literal_eval(rule[key])]
                for key in ("visibility", "deps")
                if key in rule
            }
            found[package if name == package.split("/")[-1] else f"{package}/{name}".lstrip("/")] = labels
    return found


def label_of(layer: str) -> str:
    if (layering_test.ROOT / "noisy_sgd" / layer).is_dir():
        return f"//noisy_sgd/{layer}"
    folder, _, name = layer.rpartition("/")
    return f"//noisy_sgd/{folder}".rstrip("/") + f":{name}"


def package_of(layer: str) -> str:
    return label_of(layer).split(":")[0]


def expected_visibility(layer: str) -> set[str]:
    if layer in layering_test.SHARED:
        return {_FRONT, _TESTS, "//noisy_sgd:__subpackages__"}
    importers = {package_of(importer) for importer, allowed in layering_test.ALLOWED.items() if layer in allowed}
    return {_FRONT, _TESTS} | {f"{importer}:__pkg__" for importer in importers - {package_of(layer)}}


def expected_deps(layer: str) -> set[str]:
    shared = set() if layer in layering_test.SHARED else set(layering_test.SHARED)
    return {"//noisy_sgd:init"} | {label_of(imported) for imported in layering_test.ALLOWED[layer] | shared}


def all_libraries() -> dict[str, dict[str, list[str]]]:
    home = layering_test.ROOT / "noisy_sgd"
    found = {}
    for build in sorted(home.rglob("BUILD")):
        package = build.parent.relative_to(home).as_posix()
        found |= libraries(build.read_text(), "" if package == "." else package)
    found.pop("init")
    return found


def has_main(source: str) -> bool:
    return any(isinstance(node, ast.If) and "__main__" in ast.unparse(node.test) for node in ast.parse(source).body)


class BuildFilesTest(parameterized.TestCase):
    def test_every_layer_is_a_library_and_no_other(self):
        self.assertCountEqual(all_libraries(), layering_test.ALLOWED)

    def test_every_listed_source_exists(self):
        for build in (layering_test.ROOT / "noisy_sgd").rglob("BUILD"):
            for source in re.findall(r'srcs = \["([\w.]+)"\]', build.read_text()):
                self.assertTrue((build.parent / source).exists(), f"{build.parent.name}/{source}")

    @parameterized.parameters(*layering_test.ALLOWED)
    def test_visibility_is_the_diagram(self, layer):
        self.assertCountEqual(all_libraries()[layer]["visibility"], expected_visibility(layer))

    @parameterized.parameters(*layering_test.ALLOWED)
    def test_deps_are_the_diagram(self, layer):
        self.assertCountEqual(all_libraries()[layer]["deps"], expected_deps(layer))

    def test_a_planted_visibility_is_read(self):
        build = 'py_library(name = "data", visibility = ["//noisy_sgd/sde:__pkg__"], deps = [":files"])'
        rule = libraries(build, "data")["data"]
        self.assertEqual(rule, {"visibility": ["//noisy_sgd/sde:__pkg__"], "deps": ["//noisy_sgd/data:files"]})
        self.assertNotIn("//noisy_sgd/sde:__pkg__", expected_visibility("data"))

    def test_every_package_has_a_build_file(self):
        packages = {module.parent for module in (layering_test.ROOT / "noisy_sgd").rglob("*.py")}
        self.assertEmpty([str(package) for package in packages if not (package / "BUILD").exists()])

    def test_python_rules_are_loaded_where_they_are_used(self):
        # Bazel 9 has no rules of its own; Bazel 4 offline gets them by the same load.
        files = [*layering_test.ROOT.glob("BUILD"), *(layering_test.ROOT / "tests").glob("*.bzl")]
        for path in (
            *files,
            *(layering_test.ROOT / "noisy_sgd").rglob("BUILD"),
            *(layering_test.ROOT / "tests").rglob("BUILD"),
        ):
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            used = {
                name
                for name in map(layering_test.dotted, (call.func for call in calls))
                if re.search(r"(^|\.)py_", name)
            }
            loads = [
                ast.literal_eval(ast.Tuple(call.args)) for call in calls if layering_test.dotted(call.func) == "load"
            ]
            loaded = {name for source, *names in loads if source == "@rules_python//python:defs.bzl" for name in names}
            self.assertEqual(used, loaded, path)

    def test_every_folder_of_tests_has_a_build_file(self):
        tests = layering_test.ROOT / "tests"
        folders = {tests / module.relative_to(tests).parts[0] for module in tests.glob("*/**/*_test.py")}
        self.assertEmpty([str(folder) for folder in folders if not (folder / "BUILD").exists()])

    def test_every_binary_and_nothing_else_is_a_binary(self):
        home = layering_test.ROOT / "noisy_sgd" / "experiments"
        shared = next(
            ast.literal_eval(node.value)
            for node in ast.parse((home / "BUILD").read_text()).body
            if isinstance(node, ast.Assign) and layering_test.dotted(node.targets[0]) == "LIBRARIES"
        )
        binaries = {source.name for source in home.glob("*.py") if has_main(source.read_text())}
        others = {source.name for source in home.glob("*.py")} - binaries
        self.assertEmpty(others - set(shared), "these have no main: put them into support/, report/, or benchmarks/")
        self.assertEmpty(binaries & set(shared), "these have a main: take them out of LIBRARIES in experiments/BUILD")


if __name__ == "__main__":
    absltest.main()
