"""Four adapters on one base: what four pipelines find, in the memory of one base.

python benchmarks/hard_use/adapters.py --base BASE --data DATA
"""

from __future__ import annotations

import json
import subprocess
import sys

from common import add_component, finish, parse, read_docs
from spacy.language import Language
from spacy.tokens import Doc

from spacy_qlora.corpus.docs import make_nlp
from spacy_qlora.engine.memory import MIB, peak_memory

ALLOWED = 0.05  # beyond what the adapters' weights take
NAMES = ("one", "two", "three", "four")
Found = list[list[tuple[int, int, str]]]


def main() -> None:
    args = parse(__doc__, count={"type": int, "help": "run with so many components, and print the memory in MiB"})
    docs = read_docs(args.data / "bc5cdr" / "dev.jsonl", 20 if args.quick else 300)
    if args.count:
        together(args.base, docs, NAMES[: args.count])
        print(memory())
        return
    apart = [found(each, docs, name) for i, name in enumerate(NAMES) for each in [alone(args.base, docs, name, i)]]
    nlp, in_one = together(args.base, docs, NAMES)
    equal = sum(one == other for one, other in zip(apart, in_one, strict=True))
    classifiers = [nlp.get_pipe(name).model.classifier for name in NAMES]  # type: ignore[attr-defined]
    bases = len({id(classifier.base) for classifier in classifiers})
    one, four = (measured(args, count) for count in (1, 4))
    adapter = 4 * sum(value.numel() for value in classifiers[0].adapter.values())
    passed = equal == len(NAMES) and bases == 1 and four <= (1 + ALLOWED) * (one + 3 * adapter / MIB)
    figures = {"one_mib": one, "four_mib": four, "adapter_mib": round(adapter / MIB), "bases": bases}
    finish(passed, **figures, equal=equal, entities=sum(map(len, in_one[0])))


def alone(base: str, docs: list[Doc], name: str, seed: int) -> Language:
    nlp = make_nlp("en", fine=True)
    add_component(nlp, name, base, docs, seed, spans_key=name, fold=False)
    return nlp


def together(base: str, docs: list[Doc], names: tuple[str, ...]) -> tuple[Language, list[Found]]:
    nlp = make_nlp("en", fine=True)
    for seed, name in enumerate(names):
        add_component(nlp, name, base, docs, seed, spans_key=name, fold=False)
    return nlp, [found(nlp, docs, name) for name in names]


def found(nlp: Language, docs: list[Doc], name: str) -> Found:
    texts = [doc.text for doc in docs]
    return [[(span.start, span.end, span.label_) for span in doc.spans[name]] for doc in nlp.pipe(texts)]


def memory() -> int:
    import torch

    return round(peak_memory(torch.device("cpu")) / MIB)


def measured(args: object, count: int) -> int:
    """MiB of a process of its own with so many components."""
    done = subprocess.run(
        [sys.executable, *sys.argv, "--count", str(count)], stdout=subprocess.PIPE, text=True, check=True
    )
    return int(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
