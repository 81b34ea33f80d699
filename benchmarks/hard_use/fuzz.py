"""Odd texts through alignment and windows, and fewer of them through a whole pipeline: no crash, no piece out of place.

python benchmarks/hard_use/fuzz.py --base BASE --data DATA [--texts 1000000] [--whole 20000]
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

import numpy as np
from common import finish, make_pipeline, mutated, parse, read_docs
from spacy.tokens import Doc
from spacy.util import minibatch
from tokenizers import Encoding, Tokenizer
from tqdm import tqdm

from spacy_qlora.engine.info import TOKENIZER
from spacy_qlora.text.alignment import NO_PIECE, doc_windows, encode_docs

SIZES = (8, 16, 64, 512)


def main() -> None:
    args = parse(__doc__, texts={"type": int, "default": 1_000_000}, whole={"type": int, "default": 20_000})
    count, whole = (2000, 200) if args.quick else (args.texts, args.whole)
    gold = read_docs(args.data / "bc5cdr" / "train.jsonl", 1000) + read_docs(args.data / "maccrobat" / "train.jsonl")
    texts = [doc.text for doc in gold]
    nlp = make_pipeline(args.base, gold)
    tokenizer = Tokenizer.from_file(f"{args.base}/{TOKENIZER}")
    misplaced = characters = 0
    for batch in minibatch(tqdm(mutated(texts, count), total=count, unit=" texts"), 1000):
        docs = [nlp.make_doc(text) for text in batch]
        for i, (doc, encoding) in enumerate(zip(docs, encode_docs(tokenizer, docs), strict=True)):
            characters += len(doc.text)
            misplaced += wrong_pieces(doc, encoding, SIZES[i % len(SIZES)], causal=bool(i % 2))
    lost = 0
    found = nlp.pipe(tqdm(islice(mutated(texts, whole, seed=1), whole), total=whole, unit=" docs"))
    for doc, text in zip(found, mutated(texts, whole, seed=1), strict=True):
        lost += doc.text != text or not (doc.has_annotation("ENT_IOB") or not len(doc))
    finish(
        misplaced == 0 and lost == 0, texts=count, characters=characters, misplaced=misplaced, whole=whole, lost=lost
    )


def wrong_pieces(doc: Doc, encoding: Encoding, size: int, causal: bool) -> int:
    """How many tokens are not scored exactly once, by the piece that the definition gives."""
    expected = by_definition(doc, encoding.offsets)
    scored = np.full(len(doc), NO_PIECE)
    times = np.zeros(len(doc), dtype=int)
    for window in doc_windows(doc, encoding, size, size // 2, causal):
        times[window.words] += 1
        scored[window.words] = window.pieces[window.positions]
    ids = np.append(np.asarray(encoding.ids, dtype=np.int64), NO_PIECE)
    return int(((scored != ids[expected]) | (times != (expected != NO_PIECE))).sum())


def by_definition(doc: Doc, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """RETURNS: [tokens] the last piece that overlaps a character of the token which is not blank."""
    last = np.full(len(doc), NO_PIECE)
    token_of = [-1] * len(doc.text)
    for token in doc:
        for place, char in enumerate(token.text, token.idx):
            token_of[place] = -1 if char.isspace() else token.i
    for piece, (start, end) in enumerate(offsets):
        for place in range(start, end):
            if token_of[place] >= 0:
                last[token_of[place]] = piece
    return last


if __name__ == "__main__":
    main()
