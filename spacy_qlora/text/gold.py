"""The tags that a doc should get, from an Example."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from spacy.training import Example

from spacy_qlora.engine.window import IGNORED
from spacy_qlora.text.bio import BIO


def gold_tags(example: Example, bio: BIO) -> NDArray[np.int64]:
    """RETURNS: [tokens of the predicted doc] tag numbers; IGNORED where the gold is unknown or cuts a token."""
    number: dict[str | None, int] = {None: IGNORED, "-": IGNORED}
    number.update((tag, i) for i, tag in enumerate(bio.tags))
    for label in bio.labels:  # spaCy aligns in BILUO
        number[f"U-{label}"], number[f"L-{label}"] = number[f"B-{label}"], number[f"I-{label}"]
    tags = np.array([number[tag] for tag in example.get_aligned_ner()], dtype=np.int64)
    for i in np.flatnonzero((tags > 0) & (tags % 2 == 1)).tolist():  # beginnings: a blank, that nothing reads, is none
        while i + 1 < len(tags) and tags[i + 1] == tags[i] + 1 and example.predicted[i].text.isspace():
            tags[i + 1] = tags[i]
            i += 1
    return tags
