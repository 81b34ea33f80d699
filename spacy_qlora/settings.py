"""The settings of one `qlora_ner` component."""

from __future__ import annotations

from dataclasses import dataclass, field

from spacy_qlora.engine.settings import ClassifierSettings, require

DTYPES = ("bfloat16", "float32")


@dataclass(frozen=True)
class NERSettings:
    """base: Folder, name or hub id of the base.  classifier: What is trained on it; part of a saved pipeline.
    compute_dtype: "bfloat16" or "float32".  device: "auto", "cpu", "cuda" or "cuda:N".
    max_pieces: Longest window.  batch_pieces: Most pieces a batch, padding counted.
    carry_base: Save the base's weights along with the component.
    """

    base: str
    classifier: ClassifierSettings = field(default_factory=ClassifierSettings)
    compute_dtype: str = "bfloat16"
    device: str = "auto"
    max_pieces: int = 512
    batch_pieces: int = 2048
    carry_base: bool = False

    def __post_init__(self) -> None:
        require(self.compute_dtype in DTYPES, "compute_dtype", self.compute_dtype, f"one of {list(DTYPES)}")
        require(self.max_pieces >= 8, "max_pieces", self.max_pieces, "at least 8")
        require(self.batch_pieces >= 1, "batch_pieces", self.batch_pieces, "at least 1")
