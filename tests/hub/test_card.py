"""The model card: what the hub reads of it, and what stands in it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import srsly
from huggingface_hub import ModelCard

from spacy_qlora.engine.info import BaseInfo
from spacy_qlora.hub.card import hub_id, score_table
from spacy_qlora.hub.meta import only_scores
from tests.hub.conftest import run
from tests.hub.server import Hub

REPO = "clinic/en_notes"
SCORES = {
    "ents_p": 0.75, "ents_r": 0.6, "ents_f": 2 / 3, "docs": 3,
    "ents_per_type": {"Drug": {"p": 0.5, "r": 0.25, "f": 1 / 3, "support": 4}},
}  # fmt: skip


@pytest.fixture
def card(online: Hub, pipeline: Path, tmp_path: Path) -> ModelCard:
    folder = shutil.copytree(pipeline, tmp_path / "model")
    srsly.write_json(folder / "meta.json", {**srsly.read_json(folder / "meta.json"), "license": "CC BY 4.0"})
    (tmp_path / "metrics.json").write_text(json.dumps(SCORES))
    assert run("push", folder, REPO, "--metrics", tmp_path / "metrics.json").exit_code == 0
    return ModelCard(online.repositories[REPO].files["README.md"].decode())


def test_what_the_hub_reads(card: ModelCard) -> None:
    data = card.data
    assert (data.language, data.license, data.library_name) == ("en", "cc-by-4.0", "spacy")
    assert data.pipeline_tag == "token-classification"
    assert {"spacy", "token-classification"} <= set(data.tags)
    assert data.model_name == "en_notes"
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {
        "precision": 0.75, "recall": 0.6, "f1": 0.6667,
    }  # fmt: skip


def test_what_the_reader_reads(card: ModelCard) -> None:
    assert "It finds: Disease, Drug, Symptom." in " ".join(card.text.split())
    assert "| Drug | 0.5000 | 0.2500 | 0.3333 |" in card.text
    assert f'spacy.load(snapshot_download("{REPO}"))' in card.text
    assert "no medical device" in card.text
    assert "LoRA of rank 16" in card.text


def test_scores_in_training_where_no_others_are_given(online: Hub, pipeline: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(pipeline, tmp_path / "model")
    assert run("push", folder, REPO).exit_code == 0
    first = ModelCard(online.repositories[REPO].files["README.md"].decode())
    assert first.data.eval_results is None
    assert "None are on record." in first.text
    meta = srsly.read_json(folder / "meta.json")
    srsly.write_json(folder / "meta.json", {**meta, "performance": {**SCORES, "qlora_ner_loss": 0.1}})
    assert run("push", folder, REPO).exit_code == 0
    second = ModelCard(online.repositories[REPO].files["README.md"].decode())
    assert {result.dataset_split for result in second.data.eval_results} == {"dev"}
    assert "| all | 0.7500 | 0.6000 | 0.6667 |" in second.text


def test_an_adapter_alone_says_how_to_load_it(online: Hub, pipeline: Path) -> None:
    assert run("push", pipeline, REPO, "--adapter-only").exit_code == 0
    text = online.repositories[REPO].files["README.md"].decode()
    assert f'add_pipe("qlora_ner").from_disk(snapshot_download("{REPO}"))' in text
    assert "'@tokenizers': 'spacy.Tokenizer.v1'" in text, "of the config"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("smollm2-135m", "HuggingFaceTB/SmolLM2-135M-Instruct"),
        ("mistralai/Mistral-7B-v0.3", "mistralai/Mistral-7B-v0.3"),
        ("checkpoint", None),
    ],
)
def test_the_base_as_the_hub_calls_it(name: str, expected: str | None) -> None:
    assert hub_id(BaseInfo(id=name)) == expected


def test_scores_of_a_pipeline_without_types() -> None:
    scores = only_scores({"ents_p": 1.0, "ents_r": 0.5, "ents_f": 0.25, "ents_per_type": None})
    assert score_table(scores, "dev").endswith("| all | 1.0000 | 0.5000 | 0.2500 |")
