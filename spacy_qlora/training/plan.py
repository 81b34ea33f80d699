"""What training with a config costs in memory, as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from spacy import util
from spacy.language import Language
from thinc.api import Config
from wasabi import table

from spacy_qlora.adapted import find_dtype
from spacy_qlora.engine.memory import MIB, Job, Shape
from spacy_qlora.engine.plan import fit
from spacy_qlora.engine.settings import LoopSettings, read_size
from spacy_qlora.engine.source import explicit_base, read_shape
from spacy_qlora.errors import InputError
from spacy_qlora.settings import NERSettings
from spacy_qlora.training.config import problem, read_loop_settings
from spacy_qlora.training.run import only_component

LEAD = 1  # piece, at most, that the base wants before a window: the begin-of-text
LABELS = 8  # assumed: only the corpus tells how many there are, and they matter little


def plan(path: Path, config: Config, memory: str | None) -> str:
    """path: Of the config, for errors.  memory: The budget; the config's own if None.

    RETURNS: The table. Raises InputError where the config is wrong or nothing fits into the budget.
    """
    settings = read_ner_settings(path, config)
    loop = read_loop_settings(path, config.get("qlora", {}))
    shape = read_shape(settings.base)
    settings.classifier.unmasked_from(shape.layers, settings.base)
    job = make_job(settings, loop, shape)
    columns = {"as configured": (job, loop.accumulate)}
    if budget := memory or loop.memory_budget:
        columns[f"within {budget}"] = fit(job, loop.accumulate, read_size(budget))
    return draw(columns, explicit_base() or settings.base)


def make_job(settings: NERSettings, loop: LoopSettings, shape: Shape) -> Job:
    """What a config describes, with `LABELS` labels."""
    device = device_type(settings.device)
    return Job.usual(
        shape,
        settings.classifier,
        loop,
        tags=2 * LABELS + 1,
        length=settings.max_pieces + LEAD,
        size=find_dtype(settings.compute_dtype, device).itemsize,
        device=device,
    )


def read_ner_settings(path: Path, config: Config) -> NERSettings:
    """The component's settings, without its base or a corpus. Raises InputError where the config is wrong."""
    return only_component(path, make_untrained(path, config), frozen=[]).settings


def make_untrained(path: Path, config: Config) -> Language:
    """The pipeline of a config, without its base or a corpus. Raises InputError where the config is wrong."""
    try:
        return util.load_model_from_config(config.interpolate(), auto_fill=True)
    except InputError:
        raise
    except Exception as error:  # spaCy raises many kinds
        raise InputError("Q401", path=path, problem=problem(error)) from error


def device_type(setting: str) -> str:
    """ "cpu" or "cuda"; a run can be planned for a GPU that another machine has. Raises InputError for any other."""
    if setting == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = setting.partition(":")[0]
    if kind not in ("cpu", "cuda"):
        raise InputError("Q306", name="device", value=setting, reason="not supported")
    return kind


def draw(columns: dict[str, tuple[Job, int]], base: str) -> str:
    """columns: Jobs and their micro-batches a step, by what stands above them.  base: Its name, told below."""
    jobs = [job for job, _ in columns.values()]
    items: list[tuple[str, list[int]]] = [(name, [job.items()[name] for job in jobs]) for name in jobs[0].items()]
    items.append(("room that no block fits", [job.total() - sum(job.items().values()) for job in jobs]))
    costs = [(name, *map(_mib, sizes)) for name, sizes in items]
    ways = [
        ("device", *(job.device for job in jobs)),
        ("pieces a micro-batch", *(f"{job.pieces:,}" for job in jobs)),
        ("micro-batches a step", *(f"{accumulate:,}" for _, accumulate in columns.values())),
        ("layers checkpointed", *(f"{job.checkpointed} of {job.adapted}" for job in jobs)),
        ("layers kept dequantised", *(f"{job.resident} of {job.shape.layers}" for job in jobs)),
        ("bits of the moments", *(8 if job.eight_bit else 32 for job in jobs)),
    ]
    total = ("total", *(_mib(job.total()) for job in jobs))
    aligns: list[Literal["l", "r"]] = ["l", *(["r"] * len(jobs))]  # type: ignore[list-item]
    above = table(costs, header=("memory", *columns), footer=total, aligns=aligns, divider=True)
    below = table(ways, header=("plan", *columns), aligns=aligns, divider=True)
    shape = jobs[0].shape
    return f"{above}{below}Planned for the base {base}: {shape.layers} layers, {shape.hidden:,} wide.\n"


def _mib(size: int) -> str:
    return f"{size / MIB:,.0f} MiB"
