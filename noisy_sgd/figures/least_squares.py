"""Least squares: measured covariances beside predicted ones, and the two sides of Theorem 1.

    draw_covariance    one-standard-deviation ellipses in the first and last coordinates, and every matrix's error
    draw_theorem_1     E|theta - beta|^2 and its bound over time

Each takes a `records.Record` of experiments/least_squares, which holds the measurement in its results, and writes a
PNG, a PDF and the CSV behind them. The paper has no figure of least squares; these show its eq. (15) beside the
corrected one:

    least_squares.draw_covariance(records.read("results/least_squares/covariance"), pathlib.Path("results/figures"))

Tested by tests/studies/least_squares_test.py.
"""

import pathlib

import numpy as np

from noisy_sgd import records
from noisy_sgd.figures import canvas

_LOOKS = {
    "measured": ("measured", "#000000", "-"),
    "discrete": ("discrete law (corrected)", "#009E73", "--"),
    "continuous": ("SDE's law (corrected)", "#0072B2", "-."),
    "paper_eq15": ("eq. (15) as printed", "#D55E00", ":"),
}


@canvas.styled
def draw_covariance(
    run: records.Record, directory: pathlib.Path, name: str = "least_squares_covariance"
) -> list[pathlib.Path]:
    """Ellipses of the covariances in two coordinates, and the errors of the whole matrices."""
    found = run.results
    matrices = {key: np.array(found[key]) for key in _LOOKS}
    figure, (plane, bars) = _two_panels()
    angles = np.linspace(0, 2 * np.pi, 200)
    circle = np.stack([np.cos(angles), np.sin(angles)])
    for key, (label, color, dashes) in _LOOKS.items():
        corner = matrices[key][np.ix_([0, -1], [0, -1])]
        ellipse = np.linalg.cholesky(corner) @ circle
        plane.plot(*ellipse, dashes, color=color, linewidth=1.6, label=label)
    plane.set_aspect("equal", adjustable="datalim")
    plane.set_xlabel("first coordinate")
    plane.set_ylabel("last coordinate")
    plane.legend(fontsize=6.5, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    keys = [key for key in _LOOKS if key != "measured"]
    errors = [100 * found[f"error_{key}"] for key in keys]
    bars.barh(range(len(keys)), errors, color=[_LOOKS[key][1] for key in keys])
    bars.set_yticks(range(len(keys)), [_LOOKS[key][0] for key in keys], fontsize=7)
    bars.set_xlabel("error of the whole matrix (%, Frobenius)")
    for position, error in enumerate(errors):
        bars.annotate(f" {error:.1f} %", (error, position), va="center", fontsize=7)
    bars.margins(x=0.25)
    bars.invert_yaxis()
    title = (
        rf"$\gamma\lambda_{{\max}}$ = {found['relative_step']:g}, $\varepsilon$ = {found['residual_scale']:g}, "
        rf"$\sigma$ = {found['noise_scale']:g}, {found['effective_samples']:,} samples"
    )
    figure.suptitle(title, fontsize=9)
    rows = [
        {"matrix": key, "row": row, "column": column, "value": float(value)}
        for key, matrix in matrices.items()
        for (row, column), value in np.ndenumerate(matrix)
    ]
    return canvas.save(figure, rows, directory, name)


@canvas.styled
def draw_theorem_1(run: records.Record, directory: pathlib.Path, name: str = "theorem_1") -> list[pathlib.Path]:
    """Both sides of Theorem 1's inequality over time, with two standard errors of their difference."""
    found = run.results
    time, left, right, error = (np.array(found[key]) for key in ("time", "left", "right", "standard_error"))
    figure, (axes,) = canvas.panels(width=4.8)
    axes.plot(time, right, color=canvas.COLORS["noisy_sgd"], label=r"$\gamma d\sigma^2\,E\int\|r\|^2$")
    axes.plot(time, left, color=canvas.COLORS["sgd"], label=r"$E\|\theta_t-\beta_t\|^2$")
    axes.fill_between(
        time,
        left - 2 * error,
        left + 2 * error,
        color=canvas.COLORS["sgd"],
        alpha=0.2,
        linewidth=0,
        label="2 standard errors",
    )
    axes.set_xscale("log")
    axes.set_xlabel("time")
    axes.set_title(rf"Theorem 1: {found['num_pairs']:,} pairs, $\sigma$ = {found['noise_scale']:g}", fontsize=9)
    axes.legend(fontsize=7)
    rows = [
        dict(zip(("time", "left", "right", "standard_error"), map(float, line), strict=True))
        for line in zip(time, left, right, error, strict=True)
    ]
    return canvas.save(figure, rows, directory, name)


def _two_panels():
    """Two panels that share no axis."""
    figure, (first,) = canvas.panels(width=8.4)
    first.remove()
    return figure, figure.subplots(1, 2)
