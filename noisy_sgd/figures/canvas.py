"""The look of every figure, and its three files: PNG to look at, PDF to print, CSV with the numbers behind it."""

import csv
import io
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
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
# A decorator for whatever draws: the style is on while it runs, and the caller's own settings stay as they were.
styled = matplotlib.rc_context(STYLE)

# Okabe and Ito's colours: distinct to every kind of eye.
COLOURS = {"sgd": "#0072B2", "noisy_sgd": "#D55E00", "dp_sgd": "#009E73"}
LABELS = {"sgd": "SGD", "noisy_sgd": "Noisy-SGD", "dp_sgd": "DP-SGD"}
MARKERS = {"sgd": "o", "noisy_sgd": "s", "dp_sgd": "^"}


def panels(count: int = 1, *, width: float = 4.2, height: float = 3.2) -> tuple[figure.Figure, list[Any]]:
    """A figure of `count` panels side by side that share their vertical axis; sizes in inches."""
    canvas = figure.Figure(figsize=(width * count, height), layout="constrained")
    return canvas, list(canvas.subplots(1, count, sharey=True, squeeze=False)[0])


def save(
    canvas: figure.Figure, rows: Sequence[Mapping[str, Any]], directory: pathlib.Path, name: str
) -> list[pathlib.Path]:
    """Writes NAME.png, NAME.pdf and NAME.csv, each as a whole or not at all; the same rows give the same bytes.

    Args:
        canvas: the drawn figure.
        rows: what was drawn, all rows with the same columns; none where every run diverged.
        directory: made if absent.
        name: without an ending.

    Returns:
        The three paths.

    Raises:
        OSError: naming the file that cannot be written.
    """
    for axes in canvas.axes:
        # Where every run diverged there is no positive number, and no logarithmic axis to draw it on.
        for scale, choose, positive in zip(
            (axes.get_xscale(), axes.get_yscale()), (axes.set_xscale, axes.set_yscale), axes.dataLim.minpos, strict=True
        ):
            if scale == "log" and not np.isfinite(positive):
                choose("linear")
    png, pdf, table = io.BytesIO(), io.BytesIO(), io.StringIO(newline="")
    canvas.savefig(png, format="png")
    canvas.savefig(pdf, format="pdf", metadata={"CreationDate": None})
    writer = csv.DictWriter(table, fieldnames=list(rows[0]) if rows else [])
    writer.writeheader()
    writer.writerows(rows)
    directory.mkdir(parents=True, exist_ok=True)
    contents = {"png": png.getvalue(), "pdf": pdf.getvalue(), "csv": table.getvalue().encode()}
    for ending, data in contents.items():
        files.write(directory / f"{name}.{ending}", data)
    return [directory / f"{name}.{ending}" for ending in contents]
