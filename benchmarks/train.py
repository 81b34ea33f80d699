"""Training, r=16 on all seven linears: pieces a second, ours against the stock libraries and against itself.

    python benchmarks/train.py --base BASE --data DATA --output benchmarks/results/train.json

The same first 1,000 sentences for one epoch at full depth on both sides: ours in micro-batches of 1,536 pieces, with
compiled kernels. The peer is `hf_peer.py tuned`, at the best of three batch sizes, and `hf_peer.py recipe`, on the
first 100 sentences, since it takes so long. Each peer's run follows one of ours. Then second epochs of ours against
one another: full depth, the top third adapted on cached states, and full depth with compiled kernels.
"""

from __future__ import annotations

from common import alternate, compare, depth, ours, parse, peer, save, stock_checkpoint


def main() -> None:
    args = parse(__doc__)
    limit, limit_recipe, batches = (24, 8, (4,)) if args.quick else (1000, 100, (4, 8, 16))
    data = ("--train", (args.data / "train.jsonl").resolve(), "--limit")
    own = ("train", "--base", args.base.resolve(), *data, limit)
    with stock_checkpoint(args.base) as checkpoint:
        stock = ("--base", checkpoint, "--dev", (args.data / "dev.jsonl").resolve(), "--limit-dev", 1, *data)
        tuned = [peer(f"tuned, batch {size}", "tuned", *stock, limit, "--batch", size) for size in batches]
        recipe = peer("recipe", "recipe", *stock, limit_recipe)
        mine, [*by_size, by_recipe] = alternate(ours(*own, "--compile"), [*tuned, recipe], rounds=1)
    two_epochs = ours(*own, "--epochs", 2)
    top_third = ours(*own, "--epochs", 2, "--adapted-layers", depth(args.base) // 3)
    kernels = ours(*own, "--epochs", 2, "--compile")
    full, [top, compiled] = alternate(two_epochs, [top_third, kernels], rounds=1 if args.quick else 3)
    best = max(by_size, key=lambda runs: runs[0]["pieces_per_s"])
    results = [
        compare("training, against the tuned stock libraries", mine, best, "pieces_per_s", "pieces/s"),
        compare("training, against the common recipe", mine, by_recipe, "pieces_per_s", "pieces/s"),
        compare("training the top third, against full depth", top, full, "pieces_per_s", "pieces/s"),
        compare("training with compiled kernels, against without", compiled, full, "pieces_per_s", "pieces/s"),
    ]
    others = dict(zip((side.name for side in (*tuned, recipe)), (*by_size, by_recipe), strict=True))
    save(
        args.output,
        results,
        {"ours": mine, **others, "ours, second epoch": full, "ours, top third": top, "ours, compiled": compiled},
    )


if __name__ == "__main__":
    main()
