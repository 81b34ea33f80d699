"""What a run shows: what is trained, and a bar with loss, score, speed and memory."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm

from spacy_qlora.component import QLoRANER
from spacy_qlora.engine.loop import Loop
from spacy_qlora.engine.memory import MIB, peak_memory
from spacy_qlora.engine.progress import Progress
from spacy_qlora.engine.source import explicit_base


def describe(ner: QLoRANER, loop: Loop) -> str:
    """Lines for the start of a run: the base, the data and the share of the parameters that is trained."""
    trained, total = loop.classifier.count()
    source = ", of SPACY_QLORA_BASE" if explicit_base() else ""
    base = loop.classifier.base
    dtype = str(base.dtype).removeprefix("torch.")
    pieces = sum(len(window) for window in loop.windows)
    kernels = "\nKernels   compiled by torch.compile" if loop.compiles else ""
    if loop.settings.compile and not loop.compiles:
        kernels = "\nKernels   PyTorch's own: torch.compile finds no compiler here (install g++, or Triton for a GPU)"
    return (
        f"Base      {base.info.id} ({base.info.fingerprint[:12]}), NF4, {dtype} on {base.device}{source}\n"
        f"Labels    {', '.join(ner.labels)}\n"
        f"Trained   {trained:,} of {total:,} parameters, {trained / total:.2%}\n"
        f"Corpus    {len(loop.windows):,} windows, {pieces:,} pieces; {loop.total_steps or 'no limit of'} steps\n"
        f"Memory    about {loop.job.total() / MIB:,.0f} MiB: {loop.job.pieces:,} pieces a micro-batch, "
        f"{loop.job.checkpointed} of {loop.job.adapted} layers checkpointed, "
        f"{loop.job.resident} kept dequantised, {8 if loop.job.eight_bit else 32}-bit moments" + kernels
    )


class Bar:
    """A progress bar over the steps of a loop; a context manager."""

    def __init__(self, loop: Loop) -> None:
        self._device = loop.classifier.device
        self._bar = tqdm(
            total=loop.total_steps or None,
            initial=loop.progress.step,
            desc="Training",
            unit=" steps",
            mininterval=0.5 if sys.stderr.isatty() else 10,
            dynamic_ncols=True,
        )

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def on_step(self, progress: Progress) -> None:
        shown = {"loss": f"{progress.loss:.4f}", "pieces/s": f"{progress.rate:.0f}"}
        if progress.best >= 0:
            shown["best F1"] = f"{progress.best:.4f}"
        shown["memory"] = f"{peak_memory(self._device) / MIB:,.0f} MiB" + ", halved" * progress.backed_off
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()
