"""Our side of the comparisons, as a program of its own: prints one line of JSON.

    python benchmarks/own.py train --base BASE --train train.jsonl --limit 1000
    python benchmarks/own.py infer --base BASE --dev dev.jsonl --limit 500

`train` is an epoch, r=16 on all seven linears, by the engine's own loop; `infer` is nlp.pipe over raw
text, to doc.ents, with weights as they are before training.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from itertools import islice
from pathlib import Path

import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example

from spacy_qlora.corpus.check import check
from spacy_qlora.corpus.docs import make_doc, make_nlp
from spacy_qlora.corpus.read_json import read_json
from spacy_qlora.engine.loop import Loop
from spacy_qlora.engine.memory import MIB, peak_memory
from spacy_qlora.engine.prefix import with_states
from spacy_qlora.engine.progress import Hooks, Schedule
from spacy_qlora.engine.settings import LoopSettings, OptimizerSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["train", "infer"])
    parser.add_argument("--base", required=True, help="a folder that `python -m spacy qlora base` made")
    parser.add_argument("--train", type=Path)
    parser.add_argument("--dev", type=Path)
    parser.add_argument("--limit", type=int, default=0, help="texts; 0 for all")
    parser.add_argument("--pieces", type=int, default=1536, help="most pieces a micro-batch")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--compile", action="store_true", help="by torch.compile")
    parser.add_argument("--compute-dtype", default="auto", help="or bfloat16, float32")
    parser.add_argument("--epochs", type=int, default=1, help="the speed is that of the last")
    parser.add_argument("--adapted-layers", type=int, help="from the top, on cached states; default: all")
    args = parser.parse_args()
    found = {"train": train, "infer": infer}[args.command](args)
    peak = peak_memory(torch.device("cpu"))
    print(json.dumps({**found, "rss_mib": round(peak / MIB), "threads": torch.get_num_threads()}))


def train(args: argparse.Namespace) -> dict[str, float]:
    nlp = make_nlp("en", fine=True)
    docs = read(nlp, args.train, args.limit)
    ner = initialized(nlp, args.base, docs, compute_dtype=args.compute_dtype, adapted_layers=args.adapted_layers)
    windows = ner.training_windows(Example(nlp.make_doc(doc.text), doc) for doc in docs)
    classifier = ner.model.classifier
    with tempfile.TemporaryDirectory() as folder:
        if classifier.frozen:
            windows = with_states(classifier, windows, ner.settings.batch_pieces, Path(folder))
        schedule = Schedule(max_epochs=args.epochs)
        settings = LoopSettings(batch_pieces=args.pieces, checkpointing=args.checkpointing, compile=args.compile)
        loop = Loop(classifier, windows, settings, OptimizerSettings(), schedule, Path(folder))
        ends = [(0, 0.0)]
        loop.run(Hooks(lambda: 0.0, lambda progress, best: ends.append((progress.pieces, progress.seconds))))
    pieces, seconds = (end - start for start, end in zip(*ends[-2:], strict=True))
    planned = round(loop.job.total() / MIB)
    speed = round(pieces / seconds, 1)
    return {"train_s": round(seconds, 2), "pieces_per_s": speed, "pieces": pieces, "planned_mib": planned}


def infer(args: argparse.Namespace) -> dict[str, float]:
    nlp = make_nlp("en", fine=True)
    with args.dev.open(encoding="utf8") as lines:
        records = [json.loads(line) for line in islice(lines, args.limit or None)]
    initialized(nlp, args.base, read(nlp, args.dev, 100), compute_dtype=args.compute_dtype)
    texts = [record["text"] for record in records]
    words = sum(len(record["labels"]) for record in records)
    list(nlp.pipe(texts[:8]))
    start = time.perf_counter()
    list(nlp.pipe(texts))
    seconds = time.perf_counter() - start
    return {"infer_s": round(seconds, 2), "words_per_s": round(words / seconds, 1)}


def read(nlp: Language, path: Path, limit: int) -> list[Doc]:
    records = (check(row)[0] for row in read_json(path))
    return [make_doc(nlp, record)[0] for record in islice((r for r in records if r is not None), limit or None)]


def initialized(nlp: Language, base: str, docs: list[Doc], **settings: object) -> spacy.pipeline.Pipe:
    """A qlora_ner with the defaults and `settings`, added to `nlp`, that knows the labels of the docs."""
    ner = nlp.add_pipe("qlora_ner", config={"base": base, **settings})
    nlp.initialize(lambda: [Example(nlp.make_doc(doc.text), doc) for doc in docs])
    return ner


if __name__ == "__main__":
    main()
