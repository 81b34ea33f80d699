"""Eight threads that call one pipeline find what one finds.

python benchmarks/hard_use/threads.py --base BASE --data DATA
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from common import finish, make_pipeline, parse, read_docs
from spacy.language import Language

THREADS, DOCS = 8, 500


def main() -> None:
    args = parse(__doc__)
    docs = read_docs(args.data / "bc5cdr" / "dev.jsonl", 20 if args.quick else DOCS)
    texts = [doc.text for doc in docs]
    nlp = make_pipeline(args.base, docs, spans_key="found")
    expected = found(nlp, texts)
    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(lambda _: found(nlp, texts), range(THREADS)))
    equal = sum(result == expected for result in results)
    finish(equal == THREADS, threads=THREADS, docs=len(texts), entities=sum(map(len, expected)), equal=equal)


def found(nlp: Language, texts: list[str]) -> list[list[tuple[int, int, str, float]]]:
    return [
        [
            (span.start, span.end, span.label_, float(score))
            for span, score in zip(doc.spans["found"], doc.spans["found"].attrs["scores"], strict=True)
        ]
        for doc in map(nlp, texts)
    ]


if __name__ == "__main__":
    main()
