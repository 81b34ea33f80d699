"""The model card of a pipeline or of an adapter alone: README.md on the hub. It holds labels and figures, no text."""

from __future__ import annotations

from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from spacy_qlora.engine import embedded
from spacy_qlora.engine.info import BaseInfo
from spacy_qlora.hub.meta import Meta, Scores
from spacy_qlora.model import NERModel

TAGS = ["spacy", "spacy-qlora", "token-classification", "named-entity-recognition", "lora"]
METRICS = {"p": "precision", "r": "recall", "f": "f1"}
BODY = """
# {title}

{kind} of [spaCy](https://spacy.io) and spacy-qlora for text in the language `{lang}`. It finds: {labels}.

## Use

With spacy-qlora installed:

```python
import spacy
from huggingface_hub import snapshot_download

{load}
```

`nlp(text).ents` has the entities. `python -m spacy qlora pull {repo} FOLDER` fetches it once, to be loaded from there
without a network. {base}

## Scores

{scores}

## Parts

{parts}

## Intended use and limits

For research on extracting information from texts like those that it was trained on. It is no medical device: it misses
entities and finds wrong ones, and no decision about a patient may rest on it. Entities neither nest nor overlap.
"""


def make_card(
    repo: str,
    models: list[NERModel],
    meta: Meta,
    tokenizer: dict[str, Any] | None,
    scores: Scores | None,
) -> ModelCard:
    """models: What is pushed, trained.  meta: Of the pipeline.
    tokenizer: From the pipeline's config; None if that is pushed too.
    scores: On a test split; those in meta, on the dev split, if None.
    """
    split, scores = ("test", scores) if scores else ("dev", meta.scores)
    base, lang, title = models[0].trained_on, meta.lang, repo.rpartition("/")[2]
    assert base is not None
    data = ModelCardData(
        language=None if lang == "xx" else lang,  # spaCy's for any language, unknown to the hub
        license=meta.license.lower().replace(" ", "-") or None,
        library_name="spacy",
        pipeline_tag="token-classification",
        tags=TAGS,
        base_model=hub_id(base),
        model_name=title,
        eval_results=eval_results(scores, split),
    )
    body = BODY.format(
        title=title,
        kind="A pipeline" if tokenizer is None else "An adapter with its head, for a pipeline",
        lang=lang,
        labels=", ".join(label for model in models for label in model.labels),
        load=load_lines(repo, lang, tokenizer),
        repo=repo,
        base=describe_base(base, tokenizer is None and models[0].carried is not None),
        scores=score_table(scores, split),
        parts="\n".join(describe(model) for model in models),
    )
    return ModelCard(f"---\n{data.to_yaml()}\n---\n{body}")


def hub_id(base: BaseInfo) -> str | None:
    """What the hub calls the model that a base was made from; None for one that was made from a local folder."""
    if base.id == embedded.NAME:
        return embedded.HUB_ID
    return base.id if "/" in base.id else None


def load_lines(repo: str, lang: str, tokenizer: dict[str, Any] | None) -> str:
    fetched = f'snapshot_download("{repo}")'
    if tokenizer is None:
        return f"nlp = spacy.load({fetched})"
    config = {"nlp": {"tokenizer": tokenizer}}
    return f'nlp = spacy.blank("{lang}", config={config})\nnlp.add_pipe("qlora_ner").from_disk({fetched})'


def describe_base(base: BaseInfo, is_carried: bool) -> str:
    """Where the base comes from."""
    if is_carried:
        return f"Its base, {base.id}, is part of it."
    if hub_id(base):
        return f"The first text fetches its base, {base.id}, unless `SPACY_QLORA_BASE` names a folder that holds it."
    return f"The variable `SPACY_QLORA_BASE` has to name a folder with its base, {base.id}, made from a local model."


def describe(model: NERModel) -> str:
    """What a component was trained as."""
    settings, base = model.settings.classifier, model.trained_on
    lora, layers = settings.lora, f"the top {settings.adapted_layers}" if settings.adapted_layers else "all"
    assert base is not None
    return (
        f"- `{model.name}`: the base {base.id} in 4 bits (NF4, fingerprint {base.fingerprint[:12]}), "
        f"LoRA of rank {lora.r} on {', '.join(lora.target_modules)} of {layers} layers, "
        f"a head of {2 * len(model.labels) + 1} tags."
    )


def eval_results(scores: Scores | None, split: str) -> list[EvalResult] | None:
    """The scores in all, for the card's model-index."""
    if scores is None:
        return None
    return [
        EvalResult(
            task_type="token-classification",
            task_name="named entity recognition",
            dataset_type="own",
            dataset_name=f"{split} split of its corpus",
            dataset_split=split,
            metric_type=name,
            metric_name=f"entity {name}",
            metric_value=round(scores["all"][key], 4),
        )
        for key, name in METRICS.items()
    ]


def score_table(scores: Scores | None, split: str) -> str:
    """The scores by label and in all, as Markdown."""
    if scores is None:
        return "None are on record."
    lines = [f"| {label} | {' | '.join(f'{row[key]:.4f}' for key in METRICS)} |" for label, row in scores.items()]
    above = f"Of entities on the {split} split: right only where the label and both ends are.\n"
    return "\n".join([above, f"| | {' | '.join(METRICS.values())} |", "|---|---|---|---|", *lines])
