"""The top third adapted on cached states against the same run without the cache: losses step by step, and dev F1.

    python benchmarks/prefix.py --base BASE --data DATA --output benchmarks/results/prefix.json

The first 1,000 sentences for two epochs, F1 on the first 1,000 dev sentences.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import torch
from common import depth, parse, save
from own import initialized, read
from spacy.training import Example

from spacy_qlora.corpus.docs import make_nlp
from spacy_qlora.engine.loop import Loop
from spacy_qlora.engine.prefix import with_states
from spacy_qlora.engine.progress import Hooks, Progress, Schedule
from spacy_qlora.engine.settings import LoopSettings, OptimizerSettings


def main() -> None:
    args = parse(__doc__)
    (cached, cached_f), (plain, plain_f) = run(args, cache=True), run(args, cache=False)
    worst = max(abs(one / other - 1) for one, other in zip(cached, plain, strict=True))
    print(f"largest relative difference between the losses of a step: {worst:.2e}, of {len(cached)} steps")
    results = [
        row("last step's loss, with the cache and without", cached[-1], plain[-1], "nats/word"),
        row("dev F1, with the cache and without", cached_f, plain_f, "strict F1"),
    ]
    save(args.output, results, {"losses, cached": cached, "losses": plain})


def row(name: str, ours: float, other: float, unit: str) -> dict:
    return {
        "name": name,
        "ours": round(ours, 4),
        "peer": round(other, 4),
        "ratio": round(ours / other, 4) if other else 0.0,
        "unit": unit,
    }


def run(args: argparse.Namespace, cache: bool) -> tuple[list[float], float]:
    """RETURNS: The mean loss of a word at each step, and F1 on the dev split."""
    limit, steps = (24, 3) if args.quick else (1000, 0)
    torch.manual_seed(0)  # of the first weights; the loop sets its own
    nlp = make_nlp("en", fine=True)
    docs = read(nlp, args.data / "train.jsonl", limit)
    ner = initialized(nlp, str(args.base), docs, adapted_layers=max(1, depth(args.base) // 3))
    windows = ner.training_windows(Example(nlp.make_doc(doc.text), doc) for doc in docs)
    losses: list[float] = []
    before = [0.0, 0]

    def on_step(progress: Progress) -> None:
        total = progress.loss * progress.words
        losses.append((total - before[0]) / (progress.words - before[1]))
        before[:] = [total, progress.words]

    def on_evaluation(progress: Progress, is_best: bool) -> None:
        before[:] = [0.0, 0]  # from then on the mean begins anew

    with tempfile.TemporaryDirectory() as folder:
        if cache:
            windows = with_states(ner.model.classifier, windows, ner.settings.batch_pieces, Path(folder))
        schedule = Schedule(max_epochs=2, max_steps=steps)
        loop = Loop(ner.model.classifier, windows, LoopSettings(), OptimizerSettings(), schedule, Path(folder))
        loop.run(Hooks(lambda: 0.0, on_evaluation, on_step))
    dev = [Example(nlp.make_doc(doc.text), doc) for doc in read(nlp, args.data / "dev.jsonl", limit)]
    return losses, nlp.evaluate(dev)["ents_f"] or 0.0


if __name__ == "__main__":
    main()
