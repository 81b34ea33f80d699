"""Pipelines whose tagger listens to an adapted base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import spacy
from spacy.language import Language
from spacy.training import Example

NAME = "spacy-qlora.QLoRATransformer.v1"
LISTENER = {
    "@architectures": "spacy-transformers.TransformerListener.v1",
    "grad_factor": 1.0,
    "pooling": {"@layers": "reduce_mean.v1"},
}
TEXTS = ["Denies chest pain.", "No  complaints\n", "Took aspirin 81 mg daily and then metformin 500 mg.", "Pain denies"]
Make = Callable[..., Language]


@pytest.fixture
def make(base: Path) -> Make:
    """Makes a pipeline of a transformer and a tagger; settings are the model's, and `grad_factor` the listener's."""

    def make(grad_factor: float = 1.0, **settings: object) -> Language:
        nlp = spacy.blank("en")
        model = {"base": str(base), "r": 4, "alpha": 8.0, "dropout": 0.0, "device": "cpu", "compute_dtype": "float32"}
        model |= settings
        nlp.add_pipe("transformer", config={"model": {"@architectures": NAME, **model}})
        add_tagger(nlp, grad_factor=grad_factor)
        return nlp

    return make


def add_tagger(nlp: Language, name: str = "tagger", **listener: object) -> None:
    model = {"@architectures": "spacy.Tagger.v2", "tok2vec": {**LISTENER, **listener}}
    nlp.add_pipe("tagger", name, config={"model": model})


def examples(nlp: Language) -> list[Example]:
    return [Example.from_dict(doc, {"tags": [token.text[0] for token in doc]}) for doc in map(nlp.make_doc, TEXTS)]
