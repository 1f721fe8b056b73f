import html.parser
import pathlib
import re
import tempfile

from absl.testing import absltest, parameterized
from matplotlib import figure

from noisy_sgd import records
from noisy_sgd.experiments import registry
from noisy_sgd.experiments.report import claims, mistakes, pages, sections, typesetting
from noisy_sgd.figures import canvas
from tests import browser

SHOWN = next(one for one in mistakes.MISTAKES if one.shown_by)


@canvas.styled
def draw(directory):
    """Accuracy against sigma^2: mean over seeds."""
    drawn = figure.Figure(figsize=(8, 3))
    drawn.subplots().plot([1, 2], [3, 4])
    return canvas.save(drawn, [{"x": 1, "y": 3}], directory, "some_figure")


class PagesTest(absltest.TestCase):
    def setUp(self):
        super().setUp()
        self.results = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
        rows = [
            claims.Row(claim="a < b | c at gamma lambda_max = 1e-5", paper="-1", here="0.1", verdict="not reached"),
            claims.Row(claim="other", paper="1", here="", verdict="not run"),
            claims.Row(claim=f"{SHOWN.shown_by} ...", paper="2", here="measured to be 7", verdict="reached"),
        ]
        (png,) = (path for path in draw(self.results / "figures") if path.suffix == ".png")
        wide = "python -m noisy_sgd.experiments.audit --run_dir=" + "a" * 200
        found = [
            sections.Section(
                name="audit",
                heading="Audits",
                rows=rows,
                figures=[png],
                runs=[sections.Runs(command=wide, made="3 seconds, 2026-11-29, a machine, 2 cores")],
                failures=["the disk <is> full"],
            ),
            sections.Section(name="pruning", heading="Pruning"),
        ]
        self.markdown, self.page = pages.write(found, self.results, setting="2 < 3 seeds")

    def test_markdown(self):
        text = self.markdown.read_text()
        self.assertIn("1 reached, 1 not reached, 1 not run.", text)
        self.assertIn("| a < b \\| c at gamma lambda_max = 1e-5 | -1 | 0.1 | not reached |", text)
        self.assertIn("| other | 1 | - | not run |", text)
        self.assertIn("![Some figure](figures/some_figure.png)\n\nAccuracy against sigma^2: mean over seeds.\n", text)
        self.assertIn("Failed: the disk <is> full", text)
        self.assertIn("(3 seconds, 2026-11-29, a machine, 2 cores)", text)
        for mistake in mistakes.MISTAKES:
            self.assertIn(f"| {mistake.place} |", text)
        self.assertIn(f"| {SHOWN.correct} | measured to be 7 |", text)
        self.assertEqual(text.count("| not run: "), sum(bool(one.shown_by) for one in mistakes.MISTAKES) - 1)

    def test_page(self):
        text = self.page.read_text()
        self.assertIn("2 &lt; 3 seeds", text)
        self.assertIn("Failed: the disk &lt;is&gt; full", text)
        self.assertIn("a &lt; b | c at <i>γ</i> <i>λ</i><sub>max</sub> = 1 × 10<sup>−5</sup></td>", text)
        self.assertIn('class="not-reached">not reached</td>', text)
        self.assertIn("</strong> Accuracy against <i>σ</i><sup>2</sup>: mean over seeds.</figcaption>", text)
        self.assertIn('<a href="https://arxiv.org/abs/2402.08344">', text)
        self.assertEmpty(re.findall('src="(?!data:)', text), "report.html must stand alone")

    def test_every_tag_is_closed(self):
        still_open, void = [], {"meta", "link", "img", "br"}

        class Parser(html.parser.HTMLParser):
            def handle_starttag(self, tag, attributes):
                still_open.extend([tag] if tag not in void else [])

            def handle_endtag(self, tag):
                assert still_open.pop() == tag, tag

        Parser().feed(self.page.read_text())
        self.assertEmpty(still_open)

    @absltest.skipIf(browser.PATH is None, "there is no Chromium on this machine")
    def test_in_a_browser_at_the_width_of_a_phone(self):
        found = browser.opened(self.results, self.page.name)
        self.assertEqual(found.width, browser.WIDTH)
        self.assertEqual(found.overflow, 0, "nothing needs scrolling sideways")
        self.assertLen(found.images, 1)
        self.assertGreater(min(found.images), 0)
        self.assertGreater(found.links, 2)
        self.assertEmpty(found.broken)
        self.assertEmpty(found.messages)


class TypesettingTest(parameterized.TestCase):
    @parameterized.parameters(
        ("(sigma^2 / 2) H^-1", "(<i>σ</i><sup>2</sup> / 2) H<sup>−1</sup>"),
        ("mu |beta_inf - beta*| <= |r_inf|", None),
        ("1.3e-05, 2e+03 and e-5", "1.3 × 10<sup>−5</sup>, 2 × 10<sup>3</sup> and e-5"),
        ("-0.2 [-1, +3], B = 16-64, DP-SGD", "−0.2 [−1, +3], B = 16-64, DP-SGD"),
        ("w_{t+1} = w_t", "w<sub>t+1</sub> = w<sub>t</sub>"),
        ("prod |1 - a^2| < sqrt(t)", "∏ |1 − a<sup>2</sup>| &lt; √t"),
        ("alphabet, num_steps, --noise_std=0.1, log2", "alphabet, num_steps, --noise_std=0.1, log2"),
    )
    def test_html(self, text, expected):
        if expected is None:
            expected = "<i>μ</i> |<i>β</i><sub>∞</sub> − <i>β</i><sup>*</sup>| ≤ |r<sub>∞</sub>|"
        self.assertEqual(typesetting.html(text), expected)


class SectionsTest(absltest.TestCase):
    def _record(self, **made):
        return records.Record(
            directory=pathlib.Path("run"),
            config={},
            versions={},
            privacy={},
            status="",
            results={},
            metrics=[],
            made=made,
        )

    def test_what_made_the_runs(self):
        one = {"machine": "a processor, 2 cores", "seconds": 130.0}
        found = [self._record(**one, day="2026-11-29"), self._record(**one, day="2026-11-30"), self._record()]
        made = "2 runs, 4 minutes, 2026-11-29 to 2026-11-30, a processor, 2 cores"
        self.assertEqual(sections.Runs.of("command", found).made, made)
        self.assertEqual(sections.Runs.of("command", found[-1:]).made, "")


class MistakesTest(absltest.TestCase):
    def test_each_is_shown_by_one_row_of_the_report(self):
        texts = [claim.text for experiment in registry.EXPERIMENTS for claim in experiment.claims]
        for mistake in mistakes.MISTAKES:
            if mistake.shown_by is not None:
                self.assertLen([text for text in texts if text.startswith(mistake.shown_by)], 1, mistake.shown_by)

    def test_the_row_is_found(self):
        mistake = next(one for one in mistakes.MISTAKES if one.shown_by)
        row = claims.Row(claim=f"{mistake.shown_by} ...", paper="", here="0.5", verdict="reached")
        other = claims.Row(claim="other", paper="", here="", verdict="reached")
        self.assertIs(mistakes.row(mistake, [other, row]), row)
        self.assertIsNone(mistakes.row(mistake, [other]))


if __name__ == "__main__":
    absltest.main()
