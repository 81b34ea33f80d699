"""The settings of a component."""

from __future__ import annotations

from dataclasses import dataclass, field

from spacy_qlora.engine.settings import ClassifierSettings, require

DTYPES = ("auto", "bfloat16", "float32")
EARLIER = ("overwrite", "keep", "merge")  # what becomes of doc.ents that are set


@dataclass(frozen=True)
class ModelSettings:
    """base: Folder, name or hub id of the base.  classifier: What is trained on it; part of a saved pipeline.
    compute_dtype: "auto", "bfloat16" or "float32".  device: "auto", "cpu", "cuda" or "cuda:N".
    max_pieces: Longest window.  overlap: Pieces that neighbouring windows of a text share; half a window if None.
    batch_pieces: Most pieces a batch.
    fold: While predicting, keep a copy of dequantised weights with the adapter folded in, where they are kept at all.
    """

    base: str
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)
    compute_dtype: str = "auto"
    device: str = "auto"
    max_pieces: int = 512
    overlap: int | None = None
    batch_pieces: int = 2048
    fold: bool = True

    def __post_init__(self) -> None:
        require(self.compute_dtype in DTYPES, "compute_dtype", self.compute_dtype, f"one of {list(DTYPES)}")
        require(self.max_pieces >= 8, "max_pieces", self.max_pieces, "at least 8")
        most = self.max_pieces // 2
        allowed = self.overlap is None or 0 <= self.overlap <= most
        require(allowed, "overlap", self.overlap, f"empty, or from 0 to {most}, half of max_pieces")
        require(self.batch_pieces >= 1, "batch_pieces", self.batch_pieces, "at least 1")

    @property
    def cut(self) -> tuple[int, int, bool]:
        """How texts are cut into windows: their size, what they share, and whether attention is causal."""
        overlap = self.max_pieces // 2 if self.overlap is None else self.overlap
        return self.max_pieces, overlap, self.classifier.bidirectional_from is None


@dataclass(frozen=True)
class NERSettings(ModelSettings):
    """Of one `qlora_ner`.  earlier_ents: "overwrite", "keep" or "merge", see `set_ents`.
    threshold: Lowest probability of an entity; None for the one that the pipeline was calibrated with.
    spans_key: Key of doc.spans for all entities found, with their probabilities; None for no such group.
    carry_base: Save the base's weights along with the component.
    """

    earlier_ents: str = "overwrite"
    threshold: float | None = None
    spans_key: str | None = None
    carry_base: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.earlier_ents in EARLIER, "earlier_ents", self.earlier_ents, f"one of {list(EARLIER)}")
        allowed = self.threshold is None or 0 <= self.threshold <= 1
        require(allowed, "threshold", self.threshold, "empty, or from 0 to 1")
