"""A base measured: what is found, as JSON holds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from thinc.api import Config

from spacy_qlora.engine.base import read_base
from spacy_qlora.engine.info import INFO, BaseInfo
from spacy_qlora.engine.inspection import Linear, add_errors, bits, measure, memory, relative_error
from spacy_qlora.engine.memory import Job, Shape
from spacy_qlora.engine.settings import LINEARS
from spacy_qlora.engine.source import find_base, float_weights
from spacy_qlora.errors import QLoRAError
from spacy_qlora.training.config import read_loop_settings
from spacy_qlora.training.plan import LABELS, make_job, read_ner_settings

OUTLIERS = 5


@dataclass(frozen=True)
class Report:
    """info, shape: Of the base.  linears: Layer by layer.  memory: Bytes by part, in 16 bits and as stored.
    without_floats: Why there are no errors, as an error's code; None where there are.
    job: What a config would train; None without one.
    """

    info: BaseInfo
    shape: Shape
    linears: list[Linear]
    memory: Mapping[str, tuple[int, int]]
    without_floats: str | None
    job: Job | None

    def layers(self) -> list[list[Linear]]:
        return [[linear for linear in self.linears if linear.layer == i] for i in range(self.shape.layers)]

    def kinds(self) -> dict[str, list[Linear]]:
        return {name: [linear for linear in self.linears if linear.name == name] for name in LINEARS}

    def outliers(self) -> list[Linear]:
        return sorted(self.linears, key=lambda linear: -linear.largest)[:OUTLIERS]


def inspect(base: str, floats: str | None, config: tuple[Path, Config] | None) -> Report:
    """base: A base's folder, or what `find_base` finds.  config: With its path, for errors.
    floats: Checkpoint that the base was made from; None looks for the one that base.json names, without the hub.

    Raises InputError or RunError where the base, the config or the checkpoint named is not to be had or wrong.
    """
    folder = Path(base) if (Path(base) / INFO).exists() else find_base(base, None, None)
    info, fields, tensors, _ = read_base(folder)
    shape = Shape.of(fields)
    job = configured_job(*config, shape, info) if config else None
    linears, without = measure(tensors), None
    try:
        with float_weights(floats or info.id, None if floats else info.revision or None, fetch=bool(floats)) as weights:
            linears = add_errors(linears, tensors, weights, floats or info.id)
    except QLoRAError as error:
        if floats:
            raise
        without = error.code
    return Report(info, shape, list(linears.values()), memory(tensors), without, job)


def configured_job(path: Path, config: Config, shape: Shape, info: BaseInfo) -> Job:
    """What a config would train on this base, whichever it names. Raises InputError where it is wrong."""
    settings = read_ner_settings(path, config)
    settings.classifier.unmasked_from(shape.layers, info.id)
    return make_job(settings, read_loop_settings(path, config.get("qlora", {})), shape)


def as_json(report: Report) -> dict[str, Any]:
    return {
        "base": {**asdict(report.info), "shape": asdict(report.shape)},
        **figures(report.linears),
        "layers": [
            {"layer": i, **figures(linears), "linears": {linear.name: figures([linear]) for linear in linears}}
            for i, linears in enumerate(report.layers())
        ],
        "linears": {name: figures(linears) for name, linears in report.kinds().items()},
        "outliers": [
            {"layer": linear.layer, "linear": linear.name, "largest": linear.largest} for linear in report.outliers()
        ],
        "memory": {part: {"in_16_bits": before, "stored": after} for part, (before, after) in report.memory.items()},
        "trained": trained(report.job) if report.job else None,
    }


def figures(linears: Iterable[Linear]) -> dict[str, Any]:
    """Of some linears together: weights, bits a weight, relative errors, and the largest weight in units of its RMS."""
    linears = list(linears)
    known = all(linear.errors for linear in linears)
    return {
        "weights": sum(linear.weights for linear in linears),
        "bits_per_weight": bits(linears),
        "nf4_error": relative_error(linears, "nf4") if known else None,
        "uniform_error": relative_error(linears, "uniform") if known else None,
        "largest": max(linear.largest for linear in linears),
    }


def trained(job: Job) -> dict[str, Any]:
    """What a config trains: parameters by module of one layer, which layers, and the share of all parameters."""
    count, of_a_layer = job.trained(), job.layer_adapter()
    total = job.depth * job.shape.layer_weights + job.shape.unquantised(job.depth) + count
    return {
        "layers": list(range(job.depth - job.adapted, job.depth)),
        "of_each_layer": of_a_layer,
        "head": count - job.adapted * sum(of_a_layer.values()),
        "labels_assumed": LABELS,
        "parameters": count,
        "share": count / total,
    }
