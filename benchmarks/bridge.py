"""spaCy's own textcat on the adapted base against the same on the frozen one: which sentences of BC5CDR mention a
chemical, and which a disease.

    python benchmarks/bridge.py --base BASE --data DATA --output benchmarks/results/bridge.json

configs/textcat_listener.cfg by `spacy train`, 120 steps on the first 1,000 sentences; what is best on the first 300 of
the dev split is scored on the first 1,000 of the test split. The frozen base keeps the causal attention that it was
trained with. Needs the extra spacy-transformers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import spacy
from common import HERE, parse, save
from own import read
from spacy.tokens import DocBin
from thinc.api import Config

from spacy_qlora.corpus.docs import make_nlp

CONFIG = HERE.parent / "configs" / "textcat_listener.cfg"
SENTENCES = {"train": 1000, "dev": 300, "test": 1000}


def main() -> None:
    args = parse(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus"
        labels = write_corpus(args, corpus)
        adapted = run(corpus, Path(folder) / "adapted", load(args, corpus))
        frozen = run(corpus, Path(folder) / "frozen", freeze(load(args, corpus), Path(folder) / "source"))
    compared = "textcat on the adapted base against the frozen one"
    results = [row(f"{compared}, macro F1", adapted["cats_macro_f"], frozen["cats_macro_f"])]
    for label in labels:
        name = f"{compared}, {label}"
        results.append(row(name, *(found["cats_f_per_type"][label]["f"] for found in (adapted, frozen))))
    save(args.output, results, {"adapted": [adapted], "frozen": [frozen]})


def row(name: str, ours: float, peer: float) -> dict:
    return {
        "name": name,
        "ours": round(ours, 4),
        "peer": round(peer, 4),
        "ratio": round(ours / peer, 3) if peer else 0.0,
        "unit": "F1",
    }


def write_corpus(args: argparse.Namespace, folder: Path) -> list[str]:
    """Sentences with a category for each label, true where an entity has it. RETURNS: The labels."""
    nlp, labels = make_nlp("en", fine=True), set()
    folder.mkdir()
    for split, limit in SENTENCES.items():
        annotated = read(nlp, args.data / f"{split}.jsonl", 24 if args.quick else limit)
        labels |= {ent.label_ for doc in annotated for ent in doc.ents}
        docs = DocBin()
        for doc in annotated:
            copy = nlp.make_doc(doc.text)
            copy.cats = {label: float(any(ent.label_ == label for ent in doc.ents)) for label in sorted(labels)}
            docs.add(copy)
        docs.to_disk(folder / f"{split}.spacy")
    return sorted(labels)


def load(args: argparse.Namespace, corpus: Path) -> Config:
    steps = 2 if args.quick else 120
    paths = {"train": corpus / "train.spacy", "dev": corpus / "dev.spacy", "base": args.base.resolve()}
    overrides = {f"paths.{name}": str(path) for name, path in paths.items()}
    overrides |= {"training.max_steps": steps, "training.eval_frequency": max(1, steps // 3)}
    return spacy.util.load_config(CONFIG, overrides=overrides)


def freeze(config: Config, source: Path) -> Config:
    """As spaCy would have it: a transformer from another pipeline, frozen, that annotates the docs to train on."""
    config = config.interpolate()
    model = {**config["components"]["transformer"]["model"], "bidirectional_from": None}
    nlp = spacy.blank("en")
    nlp.add_pipe("transformer", config={"model": model})
    nlp.initialize()
    nlp.to_disk(source)
    config["components"]["transformer"] = {"source": str(source)}
    config["training"] |= {"frozen_components": ["transformer"], "annotating_components": ["transformer"]}
    return config


def run(corpus: Path, folder: Path, config: Config) -> dict:
    """One training. RETURNS: The scores on the test split."""
    folder.mkdir()
    config.to_disk(folder / "config.cfg")
    call("train", folder / "config.cfg", "--output", folder)
    call("evaluate", folder / "model-best", corpus / "test.spacy", "--output", folder / "metrics.json")
    found = json.loads((folder / "metrics.json").read_text())
    return {key: found[key] for key in ("cats_macro_f", "cats_f_per_type")}


def call(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "spacy", *map(str, arguments)], check=True)


if __name__ == "__main__":
    main()
