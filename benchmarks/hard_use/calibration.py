"""The calibration error of entities' probabilities on a test split, without and with the temperature set on dev.

    python benchmarks/hard_use/calibration.py --base BASE --data DATA --model PIPELINE [--plot FILE.svg]

PIPELINE: trained on BC5CDR.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import spacy
from common import finish, parse, read_docs
from spacy.training import Example

from spacy_qlora.evaluation.calibration import calibration_error, collect, fit, probabilities

WIDTH, EDGE = 320, 40  # of the plot, in pixels


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
        args.plot.write_text(reliability_plot({"before": before, "after": after}, right), encoding="utf8")
    errors = [round(calibration_error(scores, right), 4) for scores in (before, after)]
    finish(
        errors[1] <= errors[0] + 0.005,
        temperature=temperature, entities=len(right), test_before=errors[0], test_after=errors[1],
        dev_before=round(on_dev.before, 4), dev_after=round(on_dev.after, 4),
    )  # fmt: skip


def reliability_plot(series: dict[str, np.ndarray], right: np.ndarray, bins: int = 10) -> str:
    """RETURNS: An SVG: the share of right entities by probability, a point for each tenth that holds at least ten."""
    colours = dict(zip(series, ("#b5651d", "#1d6fb5"), strict=True))
    size = WIDTH + 2 * EDGE
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" width="{size}" role="img" '
        'font-family="sans-serif" font-size="12"><title>Share of right entities by their probability</title>',
        f'<rect width="{size}" height="{size}" fill="white"/>',
        f'<path d="M{EDGE} {EDGE + WIDTH}L{EDGE + WIDTH} {EDGE}" stroke="#999" stroke-dasharray="4"/>',
        f'<path d="M{EDGE} {EDGE}V{EDGE + WIDTH}H{EDGE + WIDTH}" stroke="black" fill="none"/>',
        f'<text x="{EDGE + WIDTH / 2}" y="{size - 6}" text-anchor="middle">probability</text>',
        f'<text text-anchor="middle" transform="translate(12 {EDGE + WIDTH / 2}) rotate(-90)">right</text>',
    ]
    for tick in (0, 0.5, 1):
        parts.append(f'<text x="{EDGE + WIDTH * tick}" y="{EDGE + WIDTH + 16}" text-anchor="middle">{tick}</text>')
        parts.append(f'<text x="{EDGE - 6}" y="{EDGE + WIDTH * (1 - tick) + 4}" text-anchor="end">{tick}</text>')
    for i, (name, scores) in enumerate(series.items()):
        bin_of = np.minimum((scores * bins).astype(int), bins - 1)
        full = [b for b in range(bins) if (bin_of == b).sum() >= 10]
        points = [(scores[bin_of == b].mean(), right[bin_of == b].mean()) for b in full]
        places = [(EDGE + WIDTH * x, EDGE + WIDTH * (1 - y)) for x, y in points]
        line = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts.append(f'<path d="M{line}" stroke="{colours[name]}" stroke-width="2" fill="none"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colours[name]}"/>' for x, y in places]
        parts.append(f'<text x="{EDGE + 12}" y="{EDGE + 16 * (i + 1)}" fill="{colours[name]}">{name}</text>')
    return "".join([*parts, "</svg>\n"])


if __name__ == "__main__":
    main()
