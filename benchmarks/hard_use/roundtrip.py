"""Gold entities through tags, alignment, windows of 64 pieces, decoding and back: all of them, to the character.

python benchmarks/hard_use/roundtrip.py --base BASE --data DATA
"""

from __future__ import annotations

import numpy as np
from common import finish, parse, read_docs
from spacy.tokens import Doc
from spacy.training import Example
from spacy.util import minibatch
from tokenizers import Tokenizer
from tqdm import tqdm

from spacy_qlora.engine.info import TOKENIZER
from spacy_qlora.text.alignment import doc_windows, encode_docs
from spacy_qlora.text.bio import BIO
from spacy_qlora.text.gold import gold_tags

SIZE = 64


def main() -> None:
    args = parse(__doc__)
    tokenizer = Tokenizer.from_file(f"{args.base}/{TOKENIZER}")
    figures: dict[str, list[int]] = {}
    for path in sorted(args.data.glob("*/*.jsonl")):
        docs = read_docs(path, 200 if args.quick else None)
        bio = BIO(sorted({ent.label_ for doc in docs for ent in doc.ents}))
        mentions = kept = 0
        for batch in minibatch(tqdm(docs, desc=f"{path.parent.name}/{path.name}", unit=" docs"), 256):
            for doc, encoding in zip(batch, encode_docs(tokenizer, batch), strict=True):
                for causal in (True, False):
                    mentions += len(doc.ents)
                    kept += len(entities(doc) & again(doc, encoding, bio, causal))
        figures[f"{path.parent.name}/{path.name}"] = [kept, mentions]
    finish(all(kept == mentions for kept, mentions in figures.values()), kept_of_mentions_twice=figures)


def entities(doc: Doc) -> set[tuple[int, int, str]]:
    return {(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents}


def again(doc: Doc, encoding: object, bio: BIO, causal: bool) -> set[tuple[int, int, str]]:
    """What a model that scores every gold tag best would find."""
    blank = Doc(doc.vocab, words=[token.text for token in doc], spaces=[bool(token.whitespace_) for token in doc])
    tags = gold_tags(Example(blank, doc), bio)
    scores = bio.unread(len(doc))
    for window in doc_windows(blank, encoding, SIZE, SIZE // 2, causal, tags):  # type: ignore[arg-type]
        scores[window.words] = np.eye(len(bio.tags))[window.tags]
    spans = [blank[start:end] for start, end, _ in bio.spans(bio.decode(scores))]
    labels = [label for _, _, label in bio.spans(bio.decode(scores))]
    return {(span.start_char, span.end_char, label) for span, label in zip(spans, labels, strict=True)}


if __name__ == "__main__":
    main()
