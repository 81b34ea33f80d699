"""What `compute_dtype = "auto"` is worth on a CPU: float32 against bfloat16, by the instructions that there are.

    python benchmarks/compute_dtype.py --base BASE --data DATA --output benchmarks/results/compute_dtype.json

ONEDNN_MAX_CPU_ISA and ATEN_CPU_CAPABILITY hold this CPU to the instructions of older ones, as far as it has them; with
the last, "auto" takes bfloat16 on an AMD. Where the environment names one for ONEDNN_MAX_CPU_ISA, that one alone is
measured. Training is full depth, r=16 on all seven linears; inference is nlp.pipe over raw text.
"""

from __future__ import annotations

import os

import torch
from common import compare, ours, parse, save

INSTRUCTIONS = {"AVX2": "avx2", "AVX512_CORE": "avx512", "AVX512_CORE_BF16": "avx512"}


def main() -> None:
    args = parse(__doc__)
    base, limit = ("--base", args.base.resolve()), ("--limit", 4 if args.quick else 20)
    sides = {
        "train": ("pieces_per_s", "pieces/s", "--train", (args.data / "train.jsonl").resolve()),
        "infer": ("words_per_s", "words/s", "--dev", (args.data / "dev.jsonl").resolve()),
    }
    own = torch.backends.cpu.get_cpu_capability()  # before the environment says otherwise
    results, runs = [], {}
    only = os.environ.get("ONEDNN_MAX_CPU_ISA")
    for newest, capability in [(only, INSTRUCTIONS[only])] if only else INSTRUCTIONS.items():
        if capability == "avx512" and own != "AVX512":
            continue
        os.environ.update(ONEDNN_MAX_CPU_ISA=newest, ATEN_CPU_CAPABILITY=capability)
        for command, (key, unit, *data) in sides.items():
            both = [
                [ours(command, *base, *data, *limit, "--compute-dtype", dtype).run()]
                for dtype in ("float32", "bfloat16")
            ]
            name = f"{command} in float32 against bfloat16, up to {newest}"
            runs[name] = both
            results.append(compare(name, *both, key, unit))
    save(args.output, results, runs)


if __name__ == "__main__":
    main()
