"""F1 on whole reports by the size of the windows: 512 pieces against one window for each report, and smaller ones.

    python benchmarks/hard_use/windows.py --base BASE --data DATA --model PIPELINE

PIPELINE: trained on maccrobat's train split, best on sentences and on several sentences together.
"""

from __future__ import annotations

from pathlib import Path

import spacy
from common import finish, parse, read_docs
from spacy.training import Example

SIZES = (64, 128, 256, 512, 4096)
ALLOWED = 0.01


def main() -> None:
    args = parse(__doc__, model={"type": Path, "required": True})
    reports = read_docs(args.data / "maccrobat" / "documents.dev.jsonl", 2 if args.quick else None)
    scores = {}
    for size in SIZES:
        config = {"components.qlora_ner.max_pieces": size, "components.qlora_ner.base": args.base}
        nlp = spacy.load(args.model, config=config)
        examples = [Example(nlp.make_doc(report.text), report) for report in reports]
        scores[size] = round(nlp.evaluate(examples)["ents_f"], 4)
        print(f"windows of {size} pieces: {scores[size]}", flush=True)
    longest = max(len(nlp.tokenizer(report.text)) for report in reports)
    finish(abs(scores[512] - scores[4096]) <= ALLOWED, f1_by_window=scores, longest_report_in_tokens=longest)


if __name__ == "__main__":
    main()
