"""The name that spaCy finds in a config. Imports nothing heavy: neither transformers nor spacy-transformers."""

# No postponed annotations here: spaCy builds its checks of the settings from them.
from typing import TYPE_CHECKING

from spacy.util import registry

from spacy_qlora.engine.settings import LINEARS, ClassifierSettings, LoRASettings
from spacy_qlora.errors import RunError

if TYPE_CHECKING:
    from spacy_qlora.bridge.model import QLoRATransformer

ALL_LINEARS = list(LINEARS)


@registry.architectures("spacy-qlora.QLoRATransformer.v1")
def make_qlora_transformer(
    base: str = "smollm2-135m",
    r: int = 16,
    alpha: float = 32.0,
    dropout: float = 0.05,
    target_modules: list[str] = ALL_LINEARS,
    layers: int | None = None,
    adapted_layers: int | None = None,
    bidirectional_from: int | str | None = "auto",
    compute_dtype: str = "auto",
    device: str = "auto",
    max_pieces: int = 512,
    overlap: int | None = None,
    batch_pieces: int = 2048,
    checkpointing: bool = False,
) -> "QLoRATransformer":
    """The model of a `transformer` component: a frozen 4-bit base with a LoRA adapter that learns from its listeners.

    batch_pieces (int): Most pieces a batch.
    checkpointing (bool): Recompute each layer in the backward pass instead of keeping its activations.
    The others are those of `qlora_ner`; see `make_qlora_ner`.
    RETURNS (Model[List[Doc], FullTransformerBatch]): The model.
    Raises RunError where spacy-transformers is not installed.
    """
    try:
        from spacy_qlora.bridge.model import QLoRATransformer, TransformerSettings
    except ImportError as error:
        raise RunError("Q700") from error

    lora = LoRASettings(r, alpha, dropout, tuple(target_modules))
    settings = TransformerSettings(
        base=base,
        classifier=ClassifierSettings(lora, layers, adapted_layers, bidirectional_from),
        compute_dtype=compute_dtype,
        device=device,
        max_pieces=max_pieces,
        overlap=overlap,
        batch_pieces=batch_pieces,
        checkpointing=checkpointing,
    )
    return QLoRATransformer(settings)
