"""Writes the demo corpus: made-up clinical sentences in BIO-JSON, already split into train, dev and test.

No sentence is a patient's. The names stand in lexicon.yml, the sentences around them in sentences.yml; about a fifth
of the names are kept for the test split, so that a model's score on names it never saw can be told apart.

    python scripts/make_corpus.py assets/demo --sentences 5000 --seed 0
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from string import Formatter
from typing import Annotated, Any

import srsly
import typer
from wasabi import msg

from spacy_qlora.cli.app import in_one_line

HERE = Path(__file__).parent
HELD_OUT = 0.2  # share of each family's names that only test may use
HELD_OUT_DRAWS = 0.35  # share of the names drawn for test that are held out
SHARES = {"train": 0.8, "dev": 0.1, "test": 0.1}
NOTE_SIZES = (1, 2, 3, 4, 5, 6)  # sentences that share a group, as of one patient's note
STYLES: dict[Callable[[str], str], float] = {str: 0.86, str.lower: 0.11, str.upper: 0.03}
TYPOS = 0.05  # share of sentences with two letters swapped

SLOT = re.compile(r"\{([^{}]+)\}|\[([^\]]+)\]\((\w+)\)")
RANGE = re.compile(r"(\d+(?:\.(\d+))?)-(\d+(?:\.\d+)?)")
# The words of the records: every punctuation mark stands alone.
WORD = re.compile(r"\w+|[^\w\s]")
LONG_WORD = re.compile(r"[A-Za-z]{6,}")

Names = dict[str, dict[str, list[str]]]  # type -> family -> names
Mention = tuple[int, int, str]  # start and end character, type


@dataclass
class Lexicon:
    """The names that every split may use, and those kept for test."""

    shared: Names
    held_out: Names

    @classmethod
    def load(cls, path: Path, *, common: set[str], rng: random.Random) -> Lexicon:
        """Expands the patterns of a lexicon and holds some names of each family back.

        common: Names, case-folded, that must not be held out.
        """
        data = srsly.read_yaml(path)
        parts = data.pop("parts")
        lexicon, seen = cls({}, {}), set[str]()
        for entity, families in data.items():
            lexicon.shared[entity], lexicon.held_out[entity] = {}, {}
            for family, patterns in families.items():
                names = [name for name in expand(patterns, parts) if name.casefold() not in seen]
                seen.update(name.casefold() for name in names)
                free = [name for name in names if name.casefold() not in common]
                held = set(rng.sample(free, int(len(names) * HELD_OUT)))
                lexicon.shared[entity][family] = [name for name in names if name not in held]
                lexicon.held_out[entity][family] = [name for name in names if name in held]
        return lexicon

    def draw(self, symbol: str, rng: random.Random, *, held_out: bool) -> str:
        """A name of a type ("Disease") or of one of its families ("LabTest.culture")."""
        entity, _, family = symbol.partition(".")
        family = family or rng.choice(list(self.shared[entity]))
        names = self.held_out[entity][family] if held_out and rng.random() < HELD_OUT_DRAWS else []
        return rng.choice(names or self.shared[entity][family])

    def only_in_test(self) -> set[str]:
        """The held-out names, case-folded."""
        return {name.casefold() for families in self.held_out.values() for names in families.values() for name in names}


def expand(patterns: list[str], parts: dict[str, list[str]]) -> Iterator[str]:
    """All names that patterns such as "{side} {bone} fracture" stand for."""
    for pattern in patterns:
        fields = [field for _, field, _, _ in Formatter().parse(pattern) if field]
        for values in product(*(parts[field] for field in fields)):
            yield pattern.format(**dict(zip(fields, values, strict=True)))


@dataclass
class Sentence:
    """One sentence as it grows: its text so far and the mentions in it."""

    lexicon: Lexicon
    fillers: dict[str, Any]
    rng: random.Random
    held_out: bool
    text: str = ""
    mentions: tuple[Mention, ...] = ()

    def write(self, template: str) -> None:
        """Appends a template with all its slots filled."""
        end = 0
        for slot in SLOT.finditer(template):
            self.text += template[end : slot.start()]
            end = slot.end()
            symbol, fixed, entity = slot.groups()
            if fixed:
                self._mention(fixed, entity)
            else:
                self._fill(self.rng.choice(symbol.split("|")))
        self.text += template[end:]

    def _fill(self, symbol: str) -> None:
        if span := RANGE.fullmatch(symbol):
            decimals = len(span[2] or "")
            low, high = (round(float(bound) * 10**decimals) for bound in (span[1], span[3]))
            self.text += f"{self.rng.randint(low, high) / 10**decimals:.{decimals}f}"
        elif symbol in self.fillers:
            self.write(self.rng.choice(self.fillers[symbol]))
        else:
            name = self.lexicon.draw(symbol, self.rng, held_out=self.held_out)
            while any(self.text[start:end] == name for start, end, _ in self.mentions):
                name = self.lexicon.draw(symbol, self.rng, held_out=self.held_out)
            self._mention(name, symbol.partition(".")[0])

    def _mention(self, name: str, entity: str) -> None:
        start = len(self.text)
        self.text += name
        self.mentions += ((start, len(self.text), entity),)

    def finish(self) -> None:
        """Gives the sentence its casing and, now and then, a typo; neither moves a character's offset."""
        if self.text.split()[0].islower():
            self.text = self.text[0].upper() + self.text[1:]
        [style] = self.rng.choices(list(STYLES), weights=list(STYLES.values()))
        self.text = style(self.text)
        words = [word.start() for word in LONG_WORD.finditer(self.text)]
        if words and self.rng.random() < TYPOS:
            at = self.rng.choice(words) + self.rng.randint(1, 3)
            self.text = self.text[:at] + self.text[at + 1] + self.text[at] + self.text[at + 2 :]

    def labels(self) -> list[dict[str, str]]:
        """The words and their BIO tags."""
        labels = []
        for word in WORD.finditer(self.text):
            inside = [mention for mention in self.mentions if mention[0] <= word.start() < mention[1]]
            tags = [f"{'B' if word.start() == start else 'I'}-{entity}" for start, _, entity in inside]
            labels.append({"word": word.group(), "entity": tags[0] if tags else "O"})
        return labels


class Generator:
    """Draws records, no text twice.

    seed (int): The same seed gives the same records under every Python from 3.10 on.
    """

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        data = srsly.read_yaml(HERE / "sentences.yml")
        self.kinds, self.fillers, self.patients = data["kinds"], data["fillers"], data["patients"]
        templates = [template for kind in self.kinds.values() for template in kind["templates"]]
        fixed = {slot[2].casefold() for template in templates for slot in SLOT.finditer(template) if slot[2]}
        self.lexicon = Lexicon.load(HERE / "lexicon.yml", common=fixed, rng=self.rng)
        self._only_in_test = self.lexicon.only_in_test()
        self._texts: set[str] = set()

    def records(self, split: str, size: int) -> list[dict[str, Any]]:
        """split (str): "train", "dev" or "test". size (int): Records wanted."""
        records: list[dict[str, Any]] = []
        note = 0
        while len(records) < size:
            note += 1
            words = self.patients[self.rng.choice(sorted(self.patients))]
            patient = {symbol: [word] for symbol, word in words.items()} | {"age": [str(self.rng.randint(18, 94))]}
            for _ in range(min(self.rng.choice(NOTE_SIZES), size - len(records))):
                sentence = self._sentence(patient, split)
                name = {"id": f"{split}-{len(records) + 1:05d}", "group": f"{split}-note-{note:04d}"}
                records.append({**name, "text": sentence.text, "labels": sentence.labels()})
        return records

    def _sentence(self, patient: dict[str, list[str]], split: str) -> Sentence:
        [kind] = self.rng.choices(list(self.kinds.values()), weights=[kind["weight"] for kind in self.kinds.values()])
        while True:
            sentence = Sentence(self.lexicon, {**self.fillers, **patient}, self.rng, held_out=split == "test")
            sentence.write(self.rng.choice(kind["templates"]))
            sentence.finish()
            text = " ".join(sentence.text.casefold().split())
            names = {sentence.text[start:end].casefold() for start, end, _ in sentence.mentions}
            # A typo or a name of two types may still spell a held-out name.
            if text not in self._texts and (split == "test" or not names & self._only_in_test):
                self._texts.add(text)
                return sentence


def write_json(path: Path, records: list[dict[str, Any]]) -> None:
    """Writes one record a line, in bytes that no platform changes."""
    lines = ",\n".join(json.dumps(record, ensure_ascii=False) for record in records)
    path.write_bytes(f"[\n{lines}\n]\n".encode())


def main(
    out_dir: Annotated[Path, typer.Argument(help="Folder for train.json, dev.json and test.json.")],
    sentences: Annotated[int, typer.Option(help="Sentences in all; 80, 10 and 10% go to the splits.", min=10)] = 5000,
    seed: Annotated[int, typer.Option(help="The same seed writes the same files.")] = 0,
) -> None:
    """Write the demo corpus of made-up clinical sentences."""
    out_dir.mkdir(parents=True, exist_ok=True)
    generator = Generator(seed)
    sizes = {split: int(sentences * share) for split, share in SHARES.items()}
    sizes["train"] = sentences - sizes["dev"] - sizes["test"]
    entities = list(generator.lexicon.shared)
    rows = []
    for split, size in sizes.items():
        records = generator.records(split, size)
        write_json(out_dir / f"{split}.json", records)
        count = Counter(label["entity"] for record in records for label in record["labels"])
        rows.append([split, size, *(count[f"B-{entity}"] for entity in entities)])
    msg.table(rows, header=["split", "sentences", *entities], divider=True)


if __name__ == "__main__":
    typer.run(in_one_line(main))
