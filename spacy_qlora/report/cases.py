"""What became of each entity: which gold and predicted ones belong together, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import groupby

from spacy.training import Example

from spacy_qlora.evaluation.mentions import Mention, Placed, scored_entities
from spacy_qlora.text.ents import scores_of


class Kind(str, Enum):
    """In the order in which entities are matched: the closest first."""

    RIGHT = "right"
    TYPE = "wrong type"
    BOUNDARY = "wrong boundary"
    BOTH = "wrong type and boundary"
    MISSED = "missed"
    SPURIOUS = "spurious"


ERRORS = (Kind.MISSED, Kind.SPURIOUS, Kind.TYPE, Kind.BOUNDARY, Kind.BOTH)


@dataclass(frozen=True)
class Entity:
    """mention: Label and gold tokens.  start, end: Characters, end exclusive.
    score: The probability of a predicted one, if the pipeline tells.
    """

    mention: Mention
    start: int
    end: int
    score: float | None = None

    @property
    def label(self) -> str:
        return self.mention.label


@dataclass(frozen=True)
class Case:
    """A gold entity, a predicted one, or one of each that share a token.

    record: Number of the doc, from 1.  gold: None where spurious.  found: None where missed.
    """

    record: int
    kind: Kind
    gold: Entity | None = None
    found: Entity | None = None

    @property
    def entities(self) -> list[Entity]:
        return [entity for entity in (self.gold, self.found) if entity is not None]

    @property
    def start(self) -> int:
        return min(entity.start for entity in self.entities)

    @property
    def end(self) -> int:
        return max(entity.end for entity in self.entities)

    @property
    def labels(self) -> tuple[str, ...]:
        """Of both sides, without repetition."""
        return tuple(dict.fromkeys(entity.label for entity in self.entities))


def judge(record: int, example: Example) -> list[Case]:
    """The cases of a doc, in the order of the text.

    Each entity is in one case. A strict score counts every case but a right one as one false positive per predicted
    entity and one false negative per gold one.
    """
    placed_gold, placed_found = scored_entities(example)
    scores = scores_of(example.predicted)
    gold: dict[int, Entity] = dict(enumerate(_entities(placed_gold, {})))
    found: dict[int, Entity] = dict(enumerate(_entities(placed_found, scores)))
    cases = []
    for kind, g, f in _matches([mention for mention, _ in placed_gold], [mention for mention, _ in placed_found]):
        if g in gold and f in found:
            cases.append(Case(record, kind, gold.pop(g), found.pop(f)))
    cases += [Case(record, Kind.MISSED, gold=entity) for entity in gold.values()]
    cases += [Case(record, Kind.SPURIOUS, found=entity) for entity in found.values()]
    return sorted(cases, key=lambda case: (case.start, case.end))


def _entities(placed: Sequence[Placed], scores: dict[tuple[int, int, int], float]) -> Iterator[Entity]:
    for mention, ent in placed:
        yield Entity(mention, ent.start_char, ent.end_char, scores.get((ent.start, ent.end, ent.label)))


def _matches(gold: Sequence[Mention], found: Sequence[Mention]) -> list[tuple[Kind, int, int]]:
    """All pairs that share a token, the closest first: by kind, then by the number of tokens shared, then by place."""
    owner = {token: g for g, mention in enumerate(gold) for token in range(mention.start, mention.end)}
    rank = {kind: i for i, kind in enumerate(Kind)}
    pairs = []
    for f, mention in enumerate(found):
        shared = [owner[token] for token in range(mention.start, mention.end) if token in owner]
        for g in set(shared):
            pairs.append((_kind(gold[g], mention), -shared.count(g), g, f))
    pairs.sort(key=lambda pair: (rank[pair[0]], *pair[1:]))
    return [(kind, g, f) for kind, _, g, f in pairs]


def _kind(gold: Mention, found: Mention) -> Kind:
    if gold == found:
        return Kind.RIGHT
    if gold[1:] == found[1:]:
        return Kind.TYPE
    return Kind.BOUNDARY if gold.label == found.label else Kind.BOTH


def sample(cases: Iterable[Case], limit: int) -> list[Case]:
    """At most `limit` cases, in their order: as many as there is room for of each kind and types, the first ones."""

    def group(case: Case) -> tuple[Kind, tuple[str, ...]]:
        return case.kind, case.labels

    ranked = [
        (rank, case) for _, alike in groupby(sorted(cases, key=group), key=group) for rank, case in enumerate(alike)
    ]
    ranked.sort(key=lambda pair: pair[0])
    return sorted((case for _, case in ranked[:limit]), key=lambda case: (case.record, case.start, case.end))
