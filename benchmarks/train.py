"""Training at full depth, r=16 on all seven linears: pieces a second, ours against the stock libraries.

    python benchmarks/train.py --base BASE --data DATA --output benchmarks/results/train.json

The same first 1,000 sentences for one epoch on both sides. The peer is `hf_peer.py tuned`, at the best of three batch
sizes, and `hf_peer.py recipe`, on the first 100 sentences, since it takes so long. Each peer's run follows one of ours.
"""

from __future__ import annotations

from common import alternate, compare, ours, parse, peer, save, stock_checkpoint


def main() -> None:
    args = parse(__doc__)
    limit, limit_recipe, batches = (24, 8, (4,)) if args.quick else (1000, 100, (4, 8, 16))
    data = ("--train", (args.data / "train.jsonl").resolve(), "--limit")
    own = ours("train", "--base", args.base.resolve(), *data, limit)
    with stock_checkpoint(args.base) as checkpoint:
        stock = ("--base", checkpoint, "--dev", (args.data / "dev.jsonl").resolve(), "--limit-dev", 1, *data)
        tuned = [peer(f"tuned, batch {size}", "tuned", *stock, limit, "--batch", size) for size in batches]
        mine, theirs = alternate(own, [*tuned, peer("recipe", "recipe", *stock, limit_recipe)], rounds=1)
    best = max((theirs[side.name] for side in tuned), key=lambda runs: runs[0]["pieces_per_s"])
    results = [
        compare("training, against the tuned stock libraries", mine, best, "pieces_per_s", "pieces/s"),
        compare("training, against the common recipe", mine, theirs["recipe"], "pieces_per_s", "pieces/s"),
    ]
    save(args.output, results, {"ours": mine, **theirs})


if __name__ == "__main__":
    main()
