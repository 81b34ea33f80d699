"""configs/textcat_listener.cfg under spaCy's own commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import spacy
from spacy.tokens import DocBin

from spacy_qlora.engine.source import find_base
from spacy_qlora.errors import QLoRAError
from tests.conftest import TEXTS
from tests.test_spacy_commands import python, spacy_command

pytest.importorskip("spacy_transformers")

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "configs" / "textcat_listener.cfg"


def write(folder: Path, records: list[tuple[str, set[str]]], labels: set[str]) -> Path:
    """train.spacy and dev.spacy, of texts and the labels that each has; every third is for dev."""
    nlp = spacy.blank("en")
    docs = []
    for text, own in records:
        docs.append(nlp.make_doc(text))
        docs[-1].cats = {label: float(label in own) for label in labels}
    parts = {"dev": docs[::3], "train": [doc for i, doc in enumerate(docs) if i % 3]}
    for name, part in parts.items():
        DocBin(docs=part).to_disk(folder / f"{name}.spacy")
    return folder


def train(corpus: Path, base: Path, output: Path, steps: int, **settings: object) -> float:
    """RETURNS: The best macro F1 on the dev split."""
    paths = ["--paths.train", corpus / "train.spacy", "--paths.dev", corpus / "dev.spacy", "--paths.base", base]
    limits = ["--training.max_steps", steps, "--training.eval_frequency", steps // 2]
    more = [part for name, value in settings.items() for part in (f"--{name}", value)]
    spacy_command("train", CONFIG, "--output", output, *paths, *limits, *more)
    return json.loads((output / "model-best" / "meta.json").read_text())["performance"]["cats_macro_f"]


def test_it_is_valid_and_full(base: Path, tmp_path: Path) -> None:
    corpus = write(tmp_path, [(TEXTS[0][0], set())], {"Drug"})
    paths = ["--paths.train", corpus / "train.spacy", "--paths.dev", corpus / "dev.spacy", "--paths.base", base]
    assert "Config is valid" in spacy_command("debug", "config", CONFIG, *paths)
    spacy_command("init", "fill-config", CONFIG, tmp_path / "filled.cfg")
    model = spacy.util.load_config(tmp_path / "filled.cfg")["components"]["transformer"]["model"]
    assert model == spacy.util.load_config(CONFIG)["components"]["transformer"]["model"]


def test_spacy_trains_packs_and_loads_it(base: Path, tmp_path: Path) -> None:
    labels = {"Disease", "Drug", "Symptom"}
    records = [(text, {label for _, _, label in spans}) for text, spans in TEXTS for _ in range(3)]
    corpus = write(tmp_path, records, labels)
    faster = {"training.optimizer.adapter_lr": 3e-3, "training.optimizer.learn_rate": 1e-2}
    assert train(corpus, base, tmp_path / "out", 30, **faster) > 0.95
    best = tmp_path / "out" / "model-best"
    spacy_command("package", best, tmp_path, "--name", "cats", "--version", "1.2.3", "--build", "none")
    packed = tmp_path / "en_cats-1.2.3"
    requirements = json.loads((packed / "meta.json").read_text())["requirements"]
    assert {requirement.partition(">")[0] for requirement in requirements} >= {"spacy-qlora", "spacy-transformers"}
    [pipeline] = packed.glob("en_cats/en_cats-1.2.3")
    for text, own in records:
        found = spacy.load(pipeline)(text).cats
        assert {label for label, score in found.items() if score > 0.5} == own


@pytest.mark.slow
def test_adapting_the_embedded_base_is_better_than_freezing_it(tmp_path: Path) -> None:
    """Which kinds of entities a made-up sentence mentions. A rate of 0 leaves the base as it is."""
    try:
        base = find_base("smollm2-135m", None, None)
    except QLoRAError as error:
        pytest.skip(str(error))
    python(ROOT / "scripts" / "make_corpus.py", tmp_path, "--sentences", 600)
    records = []
    for record in json.loads((tmp_path / "train.json").read_text(encoding="utf8")):
        own = {label["entity"].partition("-")[2] for label in record["labels"]} - {""}
        records.append((record["text"], own))
    corpus = write(tmp_path, records, set().union(*(own for _, own in records)))
    as_trained = {"training.optimizer.adapter_lr": 0.0, "components.transformer.model.bidirectional_from": "null"}
    adapted, frozen = train(corpus, base, tmp_path / "a", 40), train(corpus, base, tmp_path / "f", 40, **as_trained)
    assert adapted > frozen + 0.05
