"""A transformer on disk and in bytes: which file, what loads again, and which base it takes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import spacy
import torch
from safetensors.torch import load_file, save
from spacy.language import Language

from spacy_qlora.errors import InputError, QLoRAError
from tests.bridge.conftest import TEXTS, Make, examples

pytest.importorskip("spacy_transformers")
from spacy_qlora.bridge.model import QLoRATransformer
from spacy_qlora.bridge.saved import read_fields

MODEL = "transformer/model"


@pytest.fixture
def learned(make: Make, tmp_path: Path) -> Path:
    """The folder of a pipeline after a few steps."""
    nlp = make()
    optimizer = nlp.initialize(lambda: examples(nlp))
    for _ in range(3):
        nlp.update(examples(nlp), sgd=optimizer)
    nlp.to_disk(tmp_path / "learned")
    return tmp_path / "learned"


def model_of(nlp: Language) -> QLoRATransformer:
    model = nlp.get_pipe("transformer").model
    assert isinstance(model, QLoRATransformer)
    return model


def found(nlp: Language) -> list[tuple[list[str], list[float]]]:
    docs = nlp.pipe(TEXTS)
    return [([token.tag_ for token in doc], doc._.trf_data.tensors[0].ravel().tolist()) for doc in docs]


def test_the_adapter_is_a_safetensors_file_with_json_in_its_header(learned: Path, base: Path) -> None:
    assert {path.name for path in (learned / "transformer").iterdir()} == {"cfg", "model"}
    tensors, fields = load_file(learned / MODEL), read_fields((learned / MODEL).read_bytes())
    encoder = model_of(spacy.load(learned)).shim.adapted.encoder
    assert tensors.keys() == encoder.adapter.keys()
    assert all(name.startswith("base_model.model.layers.") for name in tensors)
    assert all(torch.equal(tensors[name], weight) for name, weight in encoder.adapter.items())
    assert fields["trained_on"] == json.loads((base / "base.json").read_text())
    assert fields.keys() == {"width", "seed", "classifier", "trained_on", "tokenizer"}


def test_a_loaded_pipeline_finds_the_same(learned: Path, tmp_path: Path) -> None:
    nlp = spacy.load(learned)
    expected = found(nlp)
    nlp.to_disk(tmp_path / "again")
    assert (tmp_path / "again" / MODEL).read_bytes() == (learned / MODEL).read_bytes()
    assert found(spacy.load(tmp_path / "again")) == expected
    by_bytes = spacy.blank("en").from_config(nlp.config).from_bytes(nlp.to_bytes())
    assert found(by_bytes) == expected


def test_it_loads_saves_and_learns_on(learned: Path, tmp_path: Path) -> None:
    nlp = spacy.load(learned)
    before = model_of(nlp).shim.adapted.encoder.trained()[0]
    nlp.update(examples(nlp), sgd=nlp.resume_training())
    assert any(not torch.equal(before[name], weight) for name, weight in model_of(nlp).shim.adapted.trained[0].items())


def test_an_initialised_pipeline_keeps_its_first_weights(make: Make, tmp_path: Path) -> None:
    nlp = make()
    nlp.initialize(lambda: examples(nlp))
    nlp.to_disk(tmp_path)
    assert load_file(tmp_path / MODEL) == {}
    one, other = (model_of(pipeline).shim.adapted.encoder.adapter for pipeline in (nlp, spacy.load(tmp_path)))
    assert all(torch.equal(weight, other[name]) for name, weight in one.items())


def test_settings_of_the_run_change_and_those_of_the_weights_do_not(learned: Path) -> None:
    changes = {"batch_pieces": 64, "max_pieces": 32, "r": 2, "dropout": 0.5}
    nlp = spacy.load(learned, config={f"components.transformer.model.{name}": value for name, value in changes.items()})
    settings = model_of(nlp).shim.adapted.settings
    assert (settings.batch_pieces, settings.max_pieces) == (64, 32)
    assert (settings.classifier.lora.r, settings.classifier.lora.dropout) == (4, 0.0)
    for (tags, states), (same, close) in zip(found(nlp), found(spacy.load(learned)), strict=True):
        assert tags == same
        np.testing.assert_allclose(states, close, atol=1e-5)


# Which base it takes


@pytest.fixture
def homeless(learned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pipeline whose base is on another machine."""
    monkeypatch.setenv("SPACY_QLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPACY_QLORA_BASE", raising=False)
    config = spacy.util.load_config(learned / "config.cfg")
    config["components"]["transformer"]["model"]["base"] = "/no/such/folder"
    config.to_disk(learned / "config.cfg")
    return learned


def test_it_loads_without_a_base_and_fails_at_the_first_text(homeless: Path, tmp_path: Path) -> None:
    nlp = spacy.load(homeless)
    nlp.to_disk(tmp_path / "again")
    assert (tmp_path / "again" / MODEL).read_bytes() == (homeless / MODEL).read_bytes()
    with pytest.raises(QLoRAError, match=r"^\[Q2\d\d\] "):
        nlp(TEXTS[0])


def test_the_variable_names_the_base(homeless: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACY_QLORA_BASE", str(base))
    assert len(found(spacy.load(homeless))) == len(TEXTS)


def test_another_base_is_refused(learned: Path, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Path(shutil.copytree(base, tmp_path / "other"))
    info = json.loads((other / "base.json").read_text())
    (other / "base.json").write_text(json.dumps({**info, "fingerprint": "0" * 64}))
    monkeypatch.setenv("SPACY_QLORA_BASE", str(other))
    nlp = spacy.load(learned)
    with pytest.raises(QLoRAError, match=f"Q301.*transformer.*{info['fingerprint'][:12]}.*{'0' * 12}"):
        nlp(TEXTS[0])


# What is no such file

DAMAGES = {
    "cut": lambda data: data[:-9],
    "empty": lambda data: b"",
    "no header": lambda data: b"\x80\x04" + data,
    "of others": lambda data: save({"weight": torch.zeros(2)}),
    "another rank": lambda data: data.replace(b'\\"r\\": 4', b'\\"r\\": 8'),
    "no tokenizer": lambda data: data.replace(b'\\"tokenizer\\"', b'\\"tokenizes\\"'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_in_one_line(learned: Path, damage: str) -> None:
    data = (learned / MODEL).read_bytes()
    damaged = DAMAGES[damage](data)
    assert damaged != data
    (learned / MODEL).write_bytes(damaged)
    with pytest.raises(InputError, match=r"^\[Q305\] transformer: ") as raised:
        spacy.load(learned)
    assert "\n" not in str(raised.value)
