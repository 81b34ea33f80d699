"""A pipeline on disk: which files, what loads again, and which base it takes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import spacy
import torch
from peft import PeftModel
from safetensors.torch import load_file
from spacy.language import Language
from transformers import MistralForCausalLM, MistralModel

from spacy_qlora.component import QLoRANER
from spacy_qlora.engine.source import make_base
from spacy_qlora.errors import InputError, QLoRAError
from tests.conftest import train_by_heart

TEXT = "Patient was diagnosed with type 2 diabetes and prescribed metformin."
FOUND = [("type 2 diabetes", "Disease"), ("metformin", "Drug")]
FILES = {
    "adapter/adapter_config.json",
    "adapter/adapter_model.safetensors",
    "base.json",
    "cfg",
    "head.safetensors",
    "tokenizer.json",
}
BASE_FILES = {"base/base.json", "base/config.json", "base/model.safetensors", "base/tokenizer.json"}
WEIGHTS = ("adapter/adapter_model.safetensors", "head.safetensors")


def files(pipeline: Path) -> set[str]:
    folder = pipeline / "qlora_ner"
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def entities(nlp: Language) -> list[tuple[str, str]]:
    return [(ent.text, ent.label_) for ent in nlp(TEXT).ents]


def component(nlp: Language) -> QLoRANER:
    pipe = nlp.get_pipe("qlora_ner")
    assert isinstance(pipe, QLoRANER)
    return pipe


def set_base(pipeline: Path, setting: str) -> Path:
    """Has the pipeline name another base in its config, and a source that is not there of the one it was trained on."""
    config = spacy.util.load_config(pipeline / "config.cfg")
    config["components"]["qlora_ner"]["base"] = setting
    config.to_disk(pipeline / "config.cfg")
    info = pipeline / "qlora_ner" / "base.json"
    info.write_text(json.dumps({**json.loads(info.read_text()), "id": "no-such/base"}))
    return pipeline


@pytest.fixture
def homeless(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained pipeline whose base is on another machine."""
    monkeypatch.setenv("SPACY_QLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPACY_QLORA_BASE", raising=False)
    return set_base(Path(shutil.copytree(trained, tmp_path / "homeless")), "/no/such/folder")


@pytest.fixture
def carrier(trained: Path, tmp_path: Path) -> Path:
    """The trained pipeline, saved once more with its base."""
    nlp = spacy.load(trained, config={"components.qlora_ner.carry_base": True})
    nlp.to_disk(tmp_path / "carrier")
    return tmp_path / "carrier"


@pytest.fixture(scope="module")
def other_base(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base of the same shape and other weights."""
    folder = Path(shutil.copytree(checkpoint, tmp_path_factory.mktemp("other") / "checkpoint"))
    model = MistralForCausalLM.from_pretrained(folder)
    model.model.layers[0].self_attn.q_proj.weight.data.mul_(2)
    model.save_pretrained(folder)
    make_base(str(folder), folder.parent / "base")
    return folder.parent / "base"


# Files


def test_files_of_a_trained_component(trained: Path, carrier: Path) -> None:
    assert files(trained) == FILES
    assert files(carrier) == FILES | BASE_FILES


def test_no_base_of_an_earlier_pipeline_is_left(trained: Path, carrier: Path) -> None:
    spacy.load(carrier).to_disk(carrier)
    assert files(carrier) == FILES | BASE_FILES
    spacy.load(carrier, config={"components.qlora_ner.carry_base": False}).to_disk(carrier)
    assert files(carrier) == FILES | BASE_FILES, "its own"
    used = {"components.qlora_ner.base": str(carrier / "qlora_ner" / "base")}
    spacy.load(trained, config=used).to_disk(carrier)
    assert files(carrier) == FILES | BASE_FILES, "its own by its settings"
    spacy.load(trained).to_disk(carrier)
    assert files(carrier) == FILES


def test_a_base_of_links_is_carried_as_files(trained: Path, base: Path, tmp_path: Path) -> None:
    """As in the hub's cache."""
    (tmp_path / "links").mkdir()
    for file in base.iterdir():
        (tmp_path / "links" / file.name).symlink_to(os.path.relpath(file, tmp_path / "links"))
    changed = {"base": str(tmp_path / "links"), "carry_base": True}
    spacy.load(trained, config={"components": {"qlora_ner": changed}}).to_disk(tmp_path / "carrier")
    assert files(tmp_path / "carrier") == FILES | BASE_FILES
    assert not any(path.is_symlink() for path in (tmp_path / "carrier").rglob("*"))
    spacy.load(tmp_path / "carrier")


def test_files_of_a_component_that_is_not_trained(nlp: Language, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path / "untrained")
    assert files(tmp_path / "untrained") == {"cfg"}
    assert component(spacy.load(tmp_path / "untrained")).labels == ()


def test_an_initialised_pipeline_keeps_labels_and_seed(nlp: Language, examples: list, tmp_path: Path) -> None:
    nlp.initialize(lambda: examples)
    nlp.to_disk(tmp_path / "initialised")
    loaded = spacy.load(tmp_path / "initialised")
    assert component(loaded).labels == ("Disease", "Drug", "Symptom")
    for one, other in zip(
        component(nlp).model.classifier.named_trained(), component(loaded).model.classifier.named_trained(), strict=True
    ):
        assert torch.equal(one[1], other[1])


def test_nothing_is_a_pickle(carrier: Path) -> None:
    for path in (carrier / "qlora_ner").rglob("*"):
        assert path.is_dir() or path.suffix in (".json", ".safetensors") or path.name == "cfg"
    assert json.loads((carrier / "qlora_ner" / "cfg").read_text())["labels"] == ["Disease", "Drug", "Symptom"]


def test_the_adapter_is_one_that_peft_reads(trained: Path, checkpoint: Path) -> None:
    model = PeftModel.from_pretrained(MistralModel.from_pretrained(checkpoint), str(trained / "qlora_ner" / "adapter"))
    saved = load_file(trained / "qlora_ner" / WEIGHTS[0])
    read = {name: value for name, value in model.named_parameters() if "lora_" in name}
    assert len(read) == len(saved) == 3 * 7 * 2
    for name, value in saved.items():
        stem = name.removesuffix(".weight")
        assert torch.equal(read[f"{stem}.default.weight"], value)


# Loading


def test_a_loaded_pipeline_finds_the_same(trained: Path, tmp_path: Path) -> None:
    nlp = spacy.load(trained)
    assert entities(nlp) == FOUND
    nlp.to_disk(tmp_path / "again")
    assert entities(spacy.load(tmp_path / "again")) == FOUND


@pytest.mark.parametrize("opened", [True, False])
def test_what_is_saved_again_is_the_same_to_the_byte(trained: Path, tmp_path: Path, opened: bool) -> None:
    nlp = spacy.load(trained)
    if opened:
        assert entities(nlp) == FOUND
    nlp.to_disk(tmp_path / "again")
    for name in files(trained):
        assert (tmp_path / "again" / "qlora_ner" / name).read_bytes() == (trained / "qlora_ner" / name).read_bytes()


def test_a_pipeline_of_before_a_setting_was_there_is_what_it_was(base: Path, tmp_path: Path) -> None:
    folder = train_by_heart(base, tmp_path / "old", pooling="last")
    fields = json.loads((folder / "qlora_ner" / "cfg").read_text())
    assert fields["classifier"].pop("pooling") == "last"
    (folder / "qlora_ner" / "cfg").write_text(json.dumps(fields))
    nlp = spacy.load(folder, config={"components.qlora_ner.pooling": "first_last"})
    assert entities(nlp) == FOUND
    classifier = component(nlp).model.classifier
    assert classifier.head.in_features == classifier.base.config.hidden_size


def test_settings_of_the_run_change_and_those_of_the_weights_do_not(trained: Path, base: Path) -> None:
    changes = {"batch_pieces": 64, "device": "cpu", "base": str(base), "max_pieces": 32, "r": 2, "dropout": 0.5}
    nlp = spacy.load(trained, config={f"components.qlora_ner.{name}": value for name, value in changes.items()})
    settings = component(nlp).settings
    assert (settings.batch_pieces, settings.device, settings.base, settings.max_pieces) == (64, "cpu", str(base), 32)
    assert settings.classifier == component(spacy.load(trained)).settings.classifier
    assert settings.classifier.bidirectional_from == 1, "the upper half of three layers, by number"
    assert entities(nlp) == FOUND


# Which base it takes


def test_it_loads_without_a_base_and_fails_at_the_first_text(homeless: Path, tmp_path: Path) -> None:
    nlp = spacy.load(homeless)
    assert component(nlp).labels == ("Disease", "Drug", "Symptom")
    nlp.to_disk(tmp_path / "again")
    for name in WEIGHTS:
        assert (tmp_path / "again" / "qlora_ner" / name).read_bytes() == (homeless / "qlora_ner" / name).read_bytes()
    with pytest.raises(QLoRAError) as raised:
        nlp(TEXT)
    assert str(raised.value).startswith("[Q")
    assert "no-such/base" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_variable_names_the_base(homeless: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACY_QLORA_BASE", str(base))
    assert entities(spacy.load(homeless)) == FOUND


def test_a_setting_names_the_base(homeless: Path, base: Path) -> None:
    assert entities(spacy.load(homeless, config={"components.qlora_ner.base": str(base)})) == FOUND


def test_the_carried_base_serves_where_the_setting_is_gone(carrier: Path, tmp_path: Path) -> None:
    moved = set_base(carrier, "/no/such/folder").rename(tmp_path / "moved")
    nlp = spacy.load(moved)
    assert entities(nlp) == FOUND
    nlp.to_disk(tmp_path / "again")
    assert files(tmp_path / "again") == FILES | BASE_FILES
    nlp.to_disk(moved)  # over itself
    assert entities(spacy.load(moved)) == FOUND


def test_the_carried_base_serves_from_any_working_directory(
    carrier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_base(carrier, "/no/such/folder")
    monkeypatch.chdir(carrier.parent)
    nlp = spacy.load(carrier.name)
    monkeypatch.chdir("/")
    assert entities(nlp) == FOUND


def test_the_carried_base_serves_a_new_initialisation(carrier: Path, examples: list) -> None:
    nlp = spacy.load(set_base(carrier, "/no/such/folder"))
    nlp.initialize(lambda: examples)
    assert nlp.update(examples, sgd=nlp.create_optimizer())["qlora_ner"] > 0


def test_what_another_component_left_is_told_before_anything_is_saved(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "qlora_ner").mkdir()
    (tmp_path / "qlora_ner" / "moves").touch()
    with pytest.raises(InputError, match=r"Q308.*moves"):
        spacy.load(trained).to_disk(tmp_path)
    assert files(tmp_path) == {"moves"}


def test_hidden_folders_are_let_be(trained: Path, tmp_path: Path) -> None:
    pipeline = Path(shutil.copytree(trained, tmp_path / "pipeline"))
    (pipeline / "qlora_ner" / ".git").mkdir()
    (pipeline / "qlora_ner" / ".git" / "HEAD").touch()
    assert entities(spacy.load(pipeline)) == FOUND


def test_a_checkpoint_in_place_of_a_base_is_quantised_once(
    trained: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPACY_QLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPACY_QLORA_BASE", raising=False)
    setting = {"components.qlora_ner.base": str(checkpoint)}
    assert entities(spacy.load(trained, config=setting)) == FOUND
    (cached,) = (tmp_path / "cache").iterdir()
    made = (cached / "model.safetensors").stat().st_mtime_ns
    assert entities(spacy.load(trained, config=setting)) == FOUND
    assert (cached / "model.safetensors").stat().st_mtime_ns == made


@pytest.mark.parametrize("by_variable", [True, False])
def test_another_base_is_refused_and_both_are_named(
    trained: Path, base: Path, other_base: Path, monkeypatch: pytest.MonkeyPatch, by_variable: bool
) -> None:
    if by_variable:
        monkeypatch.setenv("SPACY_QLORA_BASE", str(other_base))
        nlp = spacy.load(trained)
    else:
        nlp = spacy.load(trained, config={"components.qlora_ner.base": str(other_base)})
    with pytest.raises(QLoRAError) as raised:
        nlp(TEXT)
    assert raised.value.code == "Q301"
    for folder in (base, other_base):
        info = json.loads((folder / "base.json").read_text())
        assert f"{info['id']} ({info['fingerprint'][:12]})" in str(raised.value)
    assert str(other_base) in str(raised.value)
