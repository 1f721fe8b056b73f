"""The manual is built in strict mode, its links lead somewhere, it needs no other host, and its notebooks run."""

import html.parser
import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import types
import urllib.parse

import nbclient
import nbformat
from absl.testing import absltest, parameterized

import noisy_sgd
from noisy_sgd.experiments import registry
from noisy_sgd.experiments.support import console
from noisy_sgd.optimizers import foreign_arguments
from tests import browser

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
# The settings of a notebook's first cell with which it takes seconds.
NOTEBOOKS = {
    "privatize_a_keras_model": {"DATASET": '"digits"', "BATCH_SIZE": "256", "EPOCHS": "2"},
    "implicit_bias": {"NUM_STEPS": "200", "NUM_RUNS": "2", "IMAGE_STEPS": "8", "SEEDS": "(0,)"},
}


class _Page(html.parser.HTMLParser):
    """The links of a page, what it loads, and the names in it that can be linked to."""

    def __init__(self, text):
        super().__init__()
        self.links, self.loaded, self.names = [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.names |= {found[key] for key in ("id", "name") if found.get(key)}
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag == "link" and found.get("href") and found.get("rel") != "canonical":
            self.loaded.append(found["href"])
        elif found.get("src"):
            self.loaded.append(found["src"])


class ManualTest(parameterized.TestCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.site = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        built = subprocess.run(
            [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(cls.site)],
            cwd=ROOT,
            env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
            capture_output=True,
            text=True,
        )
        assert built.returncode == 0, built.stdout + built.stderr
        cls.pages = {
            path.relative_to(cls.site).as_posix(): _Page(path.read_text()) for path in cls.site.rglob("*.html")
        }

    def test_every_page_is_built(self):
        for path in DOCS.glob("*.md"):
            self.assertIn(f"{path.stem}.html", self.pages)
            self.assertIn(f'{path.stem}.html"', (self.site / "first_run.html").read_text(), "it is in the navigation")

    def test_every_link_leads_somewhere(self):
        checked = 0
        for name, page in self.pages.items():
            for link in page.links:
                place, _, anchor = link.partition("#")
                if urllib.parse.urlsplit(link).scheme in ("http", "https"):
                    continue
                checked += 1
                # The page for a lost reader is shown at any address, so its links begin at the root.
                folder = "" if place.startswith("/") else os.path.dirname(name)
                target = os.path.normpath(os.path.join(folder, place.lstrip("/"))) if place else name
                target = "index.html" if target == "." else target
                self.assertTrue((self.site / target).exists(), f"{name}: {link}")
                if anchor and target in self.pages:
                    self.assertIn(urllib.parse.unquote(anchor), self.pages[target].names, f"{name}: {link}")
        self.assertGreater(checked, 1000)

    def test_nothing_is_loaded_from_another_host(self):
        for name, page in self.pages.items():
            self.assertNotEmpty(page.loaded)
            self.assertEmpty([each for each in page.loaded if re.match(r"(\w+:)?//", each)], name)
        for path in self.site.rglob("*.css"):
            self.assertEmpty(re.findall(r"url\(['\"]?(?:\w+:)?//[^)]*", path.read_text()), path.name)

    def test_every_flag_is_explained(self):
        page = (self.site / "flags.html").read_text()
        for name in console.binaries():
            self.assertIn(f'<h2 id="{name}">', page)
        self.assertIn("<code>--noise_multiplier</code>", page)
        self.assertIn("how the examples of a step are drawn", page)

    def test_every_figure_has_its_lineage(self):
        page = (self.site / "figures.html").read_text()
        for experiment in registry.EXPERIMENTS:
            self.assertIn(f'<h2 id="{experiment.name}">', page)
            for flagfile in experiment.flagfiles:
                self.assertIn(f"--flagfile=configs/{experiment.name}/{flagfile.name}", page)
            if experiment.claimed_in:
                self.assertIn(f"noisy_sgd/experiments/report/{experiment.claimed_in}.py", page)
        for figure in range(1, 8):
            self.assertIn(f"<td>{figure}</td>", page)
        self.assertRegex(page, r'<td>3</td>\s*<td><a href="#diagonal_linear-figure_3">')

    def test_every_public_name_is_in_the_reference(self):
        for page in (ROOT / "mkdocs.yml").read_text().split("api/")[1:]:
            package = page.split(".md")[0]
            names = self.pages[f"api/{package}.html"].names
            module = noisy_sgd if package == "noisy_sgd" else getattr(noisy_sgd, package)
            values = [getattr(module, name) for name in module.__all__]
            for value in values:
                if callable(value):
                    self.assertIn(f"{value.__module__}.{value.__qualname__}", names)
                elif isinstance(value, types.ModuleType) and module is not noisy_sgd:
                    self.assertIn(value.__name__, names)
        self.assertIn("standard deviation in units of C", (self.site / "api" / "noisy_sgd.html").read_text())

    def test_other_libraries_arguments_are_listed(self):
        page = (DOCS / "from_other_libraries.md").read_text()
        for name in foreign_arguments.OURS:
            self.assertRegex(page, rf"\b{name}\b")

    @parameterized.parameters("index", "first_run", "flags", "figures", "from_other_libraries", "api/noisy_sgd")
    @absltest.skipIf(browser.PATH is None, "there is no Chromium on this machine")
    def test_in_a_browser_at_the_width_of_a_phone(self, name):
        found = browser.opened(self.site, f"{name}.html")
        self.assertEqual(found.width, browser.WIDTH)
        self.assertEqual(found.overflow, 0, "nothing needs scrolling sideways")
        self.assertGreater(min(found.images, default=1), 0)
        self.assertEmpty([anchor for anchor in found.broken if anchor])
        self.assertEmpty(found.messages)


class LineageTest(parameterized.TestCase):
    @parameterized.parameters(
        ("Figure 3: |beta|^2 over 5 runs.", [3]),
        ("Figures 3, 4 and 6 on 12 data sets.", [3, 4, 6]),
        ("Figures 1 and 2 of the paper, scaled down: 75 runs.", [1, 2]),
        ("Beyond the paper. Figure 1 is another.", []),
    )
    def test_figures_in(self, sentence, expected):
        spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
        hooks = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(hooks)
        self.assertEqual(hooks.figures_in(sentence), expected)


class NotebooksTest(parameterized.TestCase):
    def test_all_are_tested_and_hold_no_outputs(self):
        self.assertCountEqual(NOTEBOOKS, [path.stem for path in (DOCS / "notebooks").glob("*.ipynb")])
        for name in NOTEBOOKS:
            cells = _read(name).cells
            self.assertEmpty([cell for cell in cells if cell.get("outputs") or cell.get("execution_count")])

    @parameterized.parameters(*NOTEBOOKS)
    def test_it_runs(self, name):
        notebook = _read(name)
        first = next(cell for cell in notebook.cells if cell.cell_type == "code")
        for parameter, value in NOTEBOOKS[name].items():
            first.source, found = re.subn(
                rf"^{parameter} = [^#\n]*", f"{parameter} = {value}  ", first.source, flags=re.M
            )
            self.assertEqual(found, 1, parameter)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "MPLBACKEND": ""}
        folder = self.create_tempdir().full_path
        resources = {"metadata": {"path": folder}}
        client = nbclient.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=resources)
        client.execute(env=environment)
        printed = "".join(
            output.get("text", "")
            for cell in notebook.cells
            if cell.cell_type == "code"
            for output in cell.outputs
            if output.get("name") == "stdout"
        )
        if name == "implicit_bias":
            self.assertRegex(printed, r"Noisy-SGD +\|beta - beta\*\|\^2 = [\d.e-]+, 0 of 2 runs diverged")
            self.assertRegex(printed, r"Noisy-SGD +B = 256 +test accuracy [\d.]+ %")
        else:
            self.assertRegex(printed, r"epsilon = (2\.\d+|3) at delta = 1e-05 .* Poisson, each of 1437 examples")
            self.assertIn("`model` must not mix examples", printed)


def _read(name):
    return nbformat.read(DOCS / "notebooks" / f"{name}.ipynb", as_version=4)


if __name__ == "__main__":
    absltest.main()
