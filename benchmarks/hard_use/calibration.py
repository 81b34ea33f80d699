"""The calibration error of entities' probabilities on a test split, without and with the temperature set on dev.

    python benchmarks/hard_use/calibration.py --base BASE --data DATA --model PIPELINE [--plot FILE.svg]

PIPELINE: trained on BC5CDR.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import spacy
from common import finish, parse, read_docs
from matplotlib.figure import Figure
from spacy.training import Example

from spacy_qlora.evaluation.calibration import calibration_error, collect, fit, probabilities
from spacy_qlora.report.probabilities import in_bins


def main() -> None:
    args = parse(__doc__, model={"type": Path, "required": True}, plot={"type": Path})
    nlp = spacy.load(args.model, config={"components.qlora_ner.base": args.base})
    ner = nlp.get_pipe("qlora_ner")
    found = {}
    for split in ("dev", "test"):
        docs = read_docs(args.data / "bc5cdr" / f"{split}.jsonl", 200 if args.quick else None)
        found[split] = collect(ner, (Example(nlp.make_doc(doc.text), doc) for doc in docs))  # type: ignore[arg-type]
    on_dev = fit(found["dev"])
    temperature = on_dev.temperature or 1.0
    right = np.concatenate([each.right for each in found["test"]])
    before, after = (probabilities(found["test"], value) for value in (1.0, temperature))
    if args.plot:
        plot(args.plot, {"before": before, "after": after}, right)
    errors = [round(calibration_error(scores, right), 4) for scores in (before, after)]
    finish(
        errors[1] <= errors[0] + 0.005,
        temperature=temperature, entities=len(right), test_before=errors[0], test_after=errors[1],
        dev_before=round(on_dev.before, 4), dev_after=round(on_dev.after, 4),
    )  # fmt: skip


def plot(path: Path, series: dict[str, np.ndarray], right: np.ndarray) -> None:
    """The share of right entities by probability, a point for each tenth that holds enough of them to tell."""
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.add_subplot(xlabel="probability", ylabel="share of right entities", aspect="equal")
    axes.plot([0, 1], [0, 1], color="#999999", linestyle="dashed")
    for name, scores in series.items():
        points = [(each.mean, each.share) for each in in_bins(scores, right) if each.is_telling]
        axes.plot(*zip(*points, strict=True), marker="o", label=name)
    axes.legend()
    figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
