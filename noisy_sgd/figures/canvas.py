"""The look of every figure, and its three files: PNG to look at, PDF to print, CSV with the numbers behind it.

A function that draws is `styled`. The first line of its docstring is the caption of the figures that it saves. Each PNG
holds its caption, for reports.

Tested by tests/figures/images_test.py.
"""

import contextvars
import csv
import functools
import io
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import PIL.Image
from matplotlib import figure

from noisy_sgd import files

STYLE = {
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "savefig.dpi": 160,
    "pdf.fonttype": 42,
}
# The keyword of a PNG's caption, by the PNG specification.
_CAPTION = "Description"

# Okabe and Ito's colors: distinct for color-blind readers too.
COLORS = {"sgd": "#0072B2", "noisy_sgd": "#D55E00", "dp_sgd": "#009E73"}
LABELS = {"sgd": "SGD", "noisy_sgd": "Noisy-SGD", "dp_sgd": "DP-SGD"}
MARKERS = {"sgd": "o", "noisy_sgd": "s", "dp_sgd": "^"}


_caption = contextvars.ContextVar("caption", default="")


def styled(draw: Callable) -> Callable:
    """A decorator for functions that draw: the style is on while they run, and the caller's settings stay unchanged."""

    @functools.wraps(draw)
    def drawn(*arguments, **options):
        token = _caption.set((draw.__doc__ or "").strip().partition("\n")[0])
        try:
            with matplotlib.rc_context(STYLE):
                return draw(*arguments, **options)
        finally:
            _caption.reset(token)

    return drawn


def caption(path: pathlib.Path) -> str:
    """The caption that a PNG holds; empty if it holds none."""
    with PIL.Image.open(path) as image:
        return image.info.get(_CAPTION, "")


def panels(count: int = 1, *, width: float = 4.2, height: float = 3.2) -> tuple[figure.Figure, list[Any]]:
    """A figure of `count` panels side by side that share their vertical axis; sizes in inches."""
    canvas = figure.Figure(figsize=(width * count, height), layout="constrained")
    return canvas, list(canvas.subplots(1, count, sharey=True, squeeze=False)[0])


def save(
    canvas: figure.Figure, rows: Sequence[Mapping[str, Any]], directory: pathlib.Path, name: str
) -> list[pathlib.Path]:
    """Writes NAME.png, NAME.pdf and NAME.csv, each completely or not at all; the same rows give the same bytes.

    Args:
        canvas: the drawn figure.
        rows: the numbers that are drawn, with the same columns in every row; empty if every run diverged.
        directory: created if absent.
        name: of the files, without an ending.

    Returns:
        The three paths.

    Raises:
        OSError: naming the file that cannot be written.
    """
    for axes in canvas.axes:
        # If every run diverged there is no positive number, and a logarithmic axis cannot be drawn.
        for scale, choose, positive in zip(
            (axes.get_xscale(), axes.get_yscale()), (axes.set_xscale, axes.set_yscale), axes.dataLim.minpos, strict=True
        ):
            if scale == "log" and not np.isfinite(positive):
                choose("linear")
    png, pdf, table = io.BytesIO(), io.BytesIO(), io.StringIO(newline="")
    canvas.savefig(png, format="png", metadata={_CAPTION: _caption.get()})
    canvas.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    writer = csv.DictWriter(table, fieldnames=list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    directory.mkdir(parents=True, exist_ok=True)
    contents = {"png": png.getvalue(), "pdf": pdf.getvalue(), "csv": table.getvalue().encode()}
    for ending, data in contents.items():
        files.write(directory / f"{name}.{ending}", data)
    return [directory / f"{name}.{ending}" for ending in contents]
