"""A page in a real browser: what a reader at the width of a phone would stumble over.

    found = browser.opened(folder, "report.html")
    found.overflow, found.images, found.broken, found.messages

Tested by the tests that open pages: tests/manual_test.py and tests/experiments/report/pages_test.py.
"""

import dataclasses
import functools
import http.server
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading

PATH = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTH = 390
_PROBE = """<iframe src="PAGE" width="WIDTH" height="800" style="border: 0"></iframe><pre></pre><script>
document.querySelector("iframe").onload = event => {
  const page = event.target.contentDocument, root = page.documentElement;
  const links = [...page.querySelectorAll("a[href^='#']")].map(a => a.getAttribute("href").slice(1));
  document.querySelector("pre").textContent = "PROBE" + JSON.stringify({
    overflow: root.scrollWidth - root.clientWidth, width: root.clientWidth,
    images: [...page.images].map(image => image.naturalWidth),
    links: links.length, broken: links.filter(id => !page.getElementById(id)),
  }) + "END";
}</script>"""
_OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --enable-logging=stderr --virtual-time-budget=5000"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    """A page as it was rendered.

    Attributes:
        width: of the page, in pixels.
        overflow: by how many pixels it would scroll sideways.
        images: the width of every image, 0 for one that was not loaded.
        links: the number of links within the page.
        broken: those that lead nowhere.
        messages: what the console shows.
    """

    width: int
    overflow: int
    images: list[int]
    links: int
    broken: list[str]
    messages: list[str]


def opened(folder: pathlib.Path, page: str) -> Opened:
    """Opens a page of a folder, served on this machine, at the width of a phone."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        probe = _PROBE.replace("PAGE", f"/{page}").replace("WIDTH", str(WIDTH))
        handler = functools.partial(_Handler, probe=probe, directory=str(folder))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/probe"
            command = [PATH, *_OPTIONS.split(), f"--user-data-dir={profile}", "--dump-dom", address]
            found = subprocess.run(command, capture_output=True, text=True, timeout=120)
        finally:
            server.shutdown()
            server.server_close()
    messages = [line for line in found.stderr.splitlines() if ":CONSOLE" in line and "favicon" not in line]
    return Opened(**json.loads(re.search("PROBE(.*)END", found.stdout)[1]), messages=messages)


class _Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *arguments, probe, **keywords):
        self._probe = probe
        super().__init__(*arguments, **keywords)

    def do_GET(self):
        if self.path != "/probe":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self._probe.encode())

    def log_message(self, *arguments):
        pass
