"""What the programs share: their arguments, texts, and how they end."""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path

from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from spacy_qlora.component import QLoRANER
from spacy_qlora.corpus.check import check
from spacy_qlora.corpus.docs import make_doc, make_nlp
from spacy_qlora.corpus.read_json import read_json

# Whatever a note may hold beside words: blanks of all kinds, controls, marks that join or turn text, other scripts.
ODD = [
    "", " ", "  ", "\n", "\r\n", "\t", "\x00", "\x07", "\x1c", "\x85", "\u00a0", "\u00ad", "\u0301", "\u200b", "\u200d",
    "\u2028", "\u202e", "\u3000", "\ufeff",
    "é", "ß", "µ", "日本", "שלום", "مرحبا", "😀", "👩\u200d👩\u200d👧", "🇩🇪", "PCP)-", "0.5",
]  # fmt: skip


def parse(description: str | None, **more: dict) -> argparse.Namespace:
    """more: Further options, by name, as argparse takes them."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", required=True, help="a folder that `python -m spacy qlora base` made")
    parser.add_argument("--data", type=Path, required=True, help="a folder of corpora, as bc5cdr/train.jsonl")
    parser.add_argument("--quick", action="store_true", help="a small part of it: shows that it runs")
    for name, settings in more.items():
        parser.add_argument(f"--{name}", **settings)
    return parser.parse_args()


def finish(passed: bool, **figures: object) -> None:
    """Prints the figures as a line of JSON and ends the program, with exit code 1 if it did not pass."""
    print(json.dumps({"passed": passed, **figures}))
    sys.exit(0 if passed else 1)


def read_docs(path: Path, limit: int | None = None) -> list[Doc]:
    """The gold docs of a corpus, in BIO-JSON."""
    nlp = make_nlp("en", fine=True)
    records = (check(row)[0] for row in read_json(path))
    return [make_doc(nlp, record)[0] for record, _ in zip(filter(None, records), range(limit or 10**9), strict=False)]


def make_pipeline(base: str, docs: list[Doc], seed: int = 0, **settings: object) -> Language:
    """A pipeline that knows the labels of the docs, with the weights of the first step: any will do here."""
    nlp = make_nlp("en", fine=True)
    add_component(nlp, "qlora_ner", base, docs, seed, **settings)
    return nlp


def add_component(nlp: Language, name: str, base: str, docs: list[Doc], seed: int, **settings: object) -> QLoRANER:
    ner: QLoRANER = nlp.add_pipe("qlora_ner", name, config={"base": base, **settings})  # type: ignore[assignment]
    ner.initialize(lambda: [Example(nlp.make_doc(doc.text), doc) for doc in docs])
    ner.model.seed = seed
    return ner


def mutated(texts: list[str], count: int, seed: int = 0) -> Iterator[str]:
    """So many texts, each made of pieces of the given ones with odd characters in between."""
    chance = random.Random(seed)
    for _ in range(count):
        parts = []
        for _ in range(chance.randint(0, 4)):
            text = chance.choice(texts)
            start = chance.randrange(len(text) + 1)
            parts += [text[start : start + chance.randint(0, 40)], *chance.choices(ODD, k=chance.randint(0, 3))]
        chance.shuffle(parts)
        yield "".join(parts)
