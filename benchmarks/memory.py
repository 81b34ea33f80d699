"""Peak memory of training, as the system counts it: ours against our own plan and against the stock libraries.

    python benchmarks/memory.py --base BASE --data DATA --output benchmarks/results/memory.json

The first 200 sentences of the train split, at full depth, r=16, and a long run of 1,000 for four epochs. Each process
runs alone, from start to end.
"""

from __future__ import annotations

from common import ours, parse, peer, save, stock_checkpoint

SENTENCES = ("--limit", 200)
OWN = {
    "768 pieces": (*SENTENCES, "--pieces", 768),
    "1,536 pieces": (*SENTENCES, "--pieces", 1536),
    "1,536 pieces, checkpointed": (*SENTENCES, "--pieces", 1536, "--checkpointing"),
    "1,536 pieces, a long run": ("--limit", 1000, "--epochs", 4, "--pieces", 1536),
}


def main() -> None:
    args = parse(__doc__)
    data = ("--train", (args.data / "train.jsonl").resolve())
    few = ("--limit", 8) if args.quick else ()
    own = {name: ours("train", "--base", args.base.resolve(), *data, *more, *few) for name, more in OWN.items()}
    with stock_checkpoint(args.base) as checkpoint:
        stock = ("--base", checkpoint, "--dev", (args.data / "dev.jsonl").resolve(), "--limit-dev", 1, *data)
        theirs = peer("tuned, batch 8", "tuned", *stock, *SENTENCES, "--batch", 8, *few).run()
        mine = {name: side.run() for name, side in own.items()}
    results = [
        row(f"peak memory against the plan, {name}", run["rss_mib"], run["planned_mib"]) for name, run in mine.items()
    ]
    # Like with like: neither of the two recomputes activations.
    results.append(
        row("peak memory against the tuned stock libraries", mine["768 pieces"]["rss_mib"], theirs["rss_mib"])
    )
    save(args.output, results, {**{name: [run] for name, run in mine.items()}, "tuned, batch 8": [theirs]})


def row(name: str, own: float, other: float) -> dict:
    return {"name": name, "ours": own, "peer": other, "ratio": round(own / other, 2), "unit": "MiB"}


if __name__ == "__main__":
    main()
