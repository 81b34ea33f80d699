"""The names that spaCy finds in a config. Imports nothing heavy: `spacy.blank` imports this module."""

# No postponed annotations here: spaCy builds its checks of the settings from them.
from collections.abc import Callable
from typing import TYPE_CHECKING

from spacy.language import Language

if TYPE_CHECKING:
    from spacy_qlora.component import QLoRANER

DEFAULTS = {
    "base": "smollm2-135m",
    "r": 16,
    "alpha": 32.0,
    "dropout": 0.05,
    "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "layers": None,
    "adapted_layers": None,
    "bidirectional_from": "auto",
    "pooling": "first_last",
    "label_smoothing": 0.1,
    "compute_dtype": "auto",
    "device": "auto",
    "max_pieces": 512,
    "overlap": None,
    "batch_pieces": 2048,
    "fold": True,
    "earlier_ents": "overwrite",
    "threshold": None,
    "spans_key": None,
    "carry_base": False,
    "scorer": {"@scorers": "spacy.ner_scorer.v1"},
}


@Language.factory(
    "qlora_ner",
    assigns=["doc.ents", "token.ent_iob", "token.ent_type"],
    default_config=DEFAULTS,
    default_score_weights={"ents_f": 1.0, "ents_p": 0.0, "ents_r": 0.0, "ents_per_type": None},
)
def make_qlora_ner(
    nlp: Language,
    name: str,
    base: str,
    r: int,
    alpha: float,
    dropout: float,
    target_modules: list[str],
    layers: int | None,
    adapted_layers: int | None,
    bidirectional_from: int | str | None,
    pooling: str,
    label_smoothing: float,
    compute_dtype: str,
    device: str,
    max_pieces: int,
    overlap: int | None,
    batch_pieces: int,
    fold: bool,
    earlier_ents: str,
    threshold: float | None,
    spans_key: str | None,
    carry_base: bool,
    scorer: Callable | None,
) -> "QLoRANER":
    """A named entity recogniser on a frozen 4-bit base with a LoRA adapter.

    base (str): Folder of a base, "smollm2-135m", a checkpoint folder or a hub id. SPACY_QLORA_BASE stands in for it.
    r (int): Rank of the adapter.
    alpha (float): The adapter's product is scaled by alpha / r.
    dropout (float): Probability, on the adapter's input.
    target_modules (List[str]): Which of the seven linears of a layer are adapted.
    layers (Optional[int]): How many layers of the base to keep, from the bottom; all if empty.
    adapted_layers (Optional[int]): How many of those are adapted, from the top; all if empty.
    bidirectional_from (Union[int, str, None]): The first layer with unmasked attention: "auto" unmasks the upper half,
        but no layer that is not adapted; empty leaves all layers causal.
    pooling (str): Which pieces of a word the head reads: "last", or "first_last" for both.
    label_smoothing (float): Share of a word's target that all tags divide equally; a word's own tag takes the rest.
    compute_dtype (str): "bfloat16" or "float32"; "auto" is float32 where bfloat16 is slower.
    device (str): "auto", "cpu", "cuda" or "cuda:N".
    max_pieces (int): Longest window of pieces; a longer text becomes overlapping windows.
    overlap (Optional[int]): Pieces that neighbouring windows share, at most half of max_pieces; half if empty.
    batch_pieces (int): Most pieces a batch when predicting, and a micro-batch under `spacy train`.
    fold (bool): Keep a copy of the dequantised weights with the adapter folded in while predicting: faster, and memory
        for each component. Only where dequantised weights are kept at all.
    earlier_ents (str): What becomes of doc.ents that are set: "overwrite" drops them, "keep" prefers them, "merge"
        keeps the more probable of two that overlap; one that no scored span group holds counts as certain. "keep" and
        "merge" leave blocked tokens as they are.
    threshold (Optional[float]): Lowest probability with which an entity gets into doc.ents; if empty, the one that gave
        the best F1 when the pipeline was calibrated, and 0 before that.
    spans_key (Optional[str]): Key of doc.spans for all entities found, with attrs["scores"]; no such group if empty.
    carry_base (bool): Save the base's weights along with the component.
    scorer (Optional[Callable]): The scoring method.
    """
    from spacy_qlora.component import QLoRANER
    from spacy_qlora.engine.settings import ClassifierSettings, LoRASettings
    from spacy_qlora.settings import NERSettings

    lora = LoRASettings(r, alpha, dropout, tuple(target_modules))
    settings = NERSettings(
        base=base,
        classifier=ClassifierSettings(lora, layers, adapted_layers, bidirectional_from, pooling, label_smoothing),
        compute_dtype=compute_dtype,
        device=device,
        max_pieces=max_pieces,
        overlap=overlap,
        batch_pieces=batch_pieces,
        fold=fold,
        earlier_ents=earlier_ents,
        threshold=threshold,
        spans_key=spans_key,
        carry_base=carry_base,
    )
    return QLoRANER(nlp.vocab, name, settings, scorer)
