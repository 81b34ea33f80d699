"""A report on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from wasabi import msg

from spacy_qlora.engine.inspection import Linear
from spacy_qlora.engine.memory import MIB, Job
from spacy_qlora.inspection.report import Report, figures, trained

HEADER = ("bits", "NF4 error", "uniform error", "largest", "of")
LEGEND = """bits: of a weight, its share of the constants counted.
error: root mean square, as a share of the float weights' own.
largest: the largest |weight|, in units of its matrix' root mean square."""


def print_report(report: Report) -> None:
    info = report.info
    print(f"{info.id} {info.revision}, fingerprint {info.fingerprint[:12]}, {report.shape.layers} layers")
    total = ("all", *_cells(report.linears))
    _table("layer", HEADER, [(str(i), *_cells(linears)) for i, linears in enumerate(report.layers())], total)
    _table("linear", HEADER, [(name, *_cells(linears)) for name, linears in report.kinds().items()], total)
    print(LEGEND)
    outliers = [(f"layer {linear.layer}", linear.name, f"{linear.largest:.1f}") for linear in report.outliers()]
    _table("outlier", ("linear", "largest"), outliers)
    _print_memory(report)
    if report.job:
        _print_trained(report.job)
    if report.without_floats:
        msg.warn(
            f"No errors ({report.without_floats}): no checkpoint {info.id} here that gives this base. "
            "Name the one that it was made from by --float, a folder or a hub id."
        )


def _cells(linears: Sequence[Linear]) -> tuple[str, ...]:
    found = figures(linears)
    largest = max(linears, key=lambda linear: linear.largest)
    errors = (found["nf4_error"], found["uniform_error"])
    return (
        f"{found['bits_per_weight']:.3f}",
        *("" if error is None else f"{error:.4f}" for error in errors),
        f"{largest.largest:.1f}",
        f"{largest.layer} {largest.name}",
    )


def _print_memory(report: Report) -> None:
    parts = {**report.memory, "all": tuple(map(sum, zip(*report.memory.values(), strict=True)))}
    rows = [(part, _mib(before), _mib(after), f"{after / before:.1%}") for part, (before, after) in parts.items()]
    _table("memory", ("in 16 bits", "as stored", "share"), rows[:-1], rows[-1])


def _print_trained(job: Job) -> None:
    found = trained(job)
    layers = found["layers"]
    rows = [(name, count, count * len(layers)) for name, count in found["of_each_layer"].items()]
    rows.append((f"head ({found['labels_assumed']} labels)", "", found["head"]))
    shown = [
        (name, *(f"{cell:,}" if cell else "" for cell in cells), f"{cells[1] / found['parameters']:.1%}")
        for name, *cells in rows
    ]
    total = ("all", f"{sum(found['of_each_layer'].values()):,}", f"{found['parameters']:,}", "100.0%")
    _table("trained", ("each layer", f"layers {layers[0]} to {layers[-1]}", "share"), shown, total)
    print(f"{found['parameters']:,} parameters, {found['share']:.2%} of all, are trained.")


def _table(name: str, header: Sequence[str], rows: list[tuple[Any, ...]], total: tuple[Any, ...] | None = None) -> None:
    aligns: list[Literal["l", "r"]] = ["l", *(["r"] * len(header))]  # type: ignore[list-item]
    msg.table(rows, header=(name, *header), footer=total, divider=True, aligns=aligns)


def _mib(size: int) -> str:
    return f"{size / MIB:,.2f} MiB" if size < 10 * MIB else f"{size / MIB:,.0f} MiB"
