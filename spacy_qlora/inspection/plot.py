"""The errors of a base, layer by layer, as a plot."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spacy_qlora.engine.files import new_file
from spacy_qlora.engine.inspection import relative_error
from spacy_qlora.inspection.report import Report

GRIDS = {"uniform": ("uniform 4-bit grid", "s"), "nf4": ("NF4", "o")}  # named in the order of the curves


def plot_errors(report: Report, path: Path) -> None:
    """Draws both errors of each layer, which have to be known. path: A .svg or .png file."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for grid, (label, marker) in GRIDS.items():
        errors = [relative_error(linears, grid) for linears in report.layers()]
        total = f"{relative_error(report.linears, grid):.4f} in all"
        axes.plot(errors, marker=marker, markersize=4, label=f"{label}, {total}")
    axes.set_title(f"{report.info.id} in 4 bits, blocks of 64")
    axes.set_xlabel("layer")
    axes.set_ylabel("relative root mean square error")
    axes.set_ylim(0, 1.1 * axes.get_ylim()[1])
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    axes.legend(loc="lower right")
    with new_file(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower(), dpi=150)
