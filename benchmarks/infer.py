"""Inference from raw text to entities: words a second, nlp.pipe against the token-classification pipeline.

    python benchmarks/infer.py --base BASE --data DATA --output benchmarks/results/infer.json

The first 500 sentences of the dev split. The peer is `hf_peer.py infer`, in 4 bits, and with `--full` in bfloat16.
"""

from __future__ import annotations

from common import alternate, compare, ours, parse, peer, save, stock_checkpoint


def main() -> None:
    args = parse(__doc__)
    limit, rounds = (24, 1) if args.quick else (500, 3)
    data = ("--dev", (args.data / "dev.jsonl").resolve(), "--limit", limit)
    with stock_checkpoint(args.base) as checkpoint:
        stock = ("--base", checkpoint, *data)
        peers = [peer("4 bits", "infer", *stock), peer("bfloat16", "infer", *stock, "--full")]
        mine, theirs = alternate(ours("infer", "--base", args.base.resolve(), *data), peers, rounds)
    named = {side.name: runs for side, runs in zip(peers, theirs, strict=True)}
    results = [
        compare(f"inference, against a pipeline in {name}", mine, runs, "words_per_s", "words/s")
        for name, runs in named.items()
    ]
    save(args.output, results, {"ours": mine, **named})


if __name__ == "__main__":
    main()
