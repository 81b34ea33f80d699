"""Wrong input to `train`, `base` and `spacy.load`: one line that names the place, and no text of a record.

`convert` and `evaluate` have the like in tests/cli/.
"""

from __future__ import annotations

import json
import math
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import spacy
import srsly
import torch
from click.testing import Result
from safetensors.torch import load_file, save_file
from spacy.cli._util import app
from spacy.tokens import DocBin
from thinc.api import Config
from typer.testing import CliRunner

import spacy_qlora.cli  # noqa: F401
from spacy_qlora.engine import embedded
from spacy_qlora.errors import QLoRAError
from tests.conftest import file_size_limit

MARK = "ZQXPATIENT"
DEFAULT = Path(__file__).parent.parent / "configs" / "default.cfg"
BARS = ("Training:", "Quantising:", "Evaluating:")
NOTES: list[tuple[str, list[tuple[int, int, str]]]] = [
    (f"{MARK} took aspirin.", [(16, 23, "Drug")]),
    (f"{MARK} denies chest pain.", [(18, 28, "Symptom")]),
]


@dataclass
class Place:
    """Where a case happens.  folder: Its own, empty.  corpus, base, checkpoint, trained: Shared, not to be changed."""

    folder: Path
    corpus: Path
    base: Path
    checkpoint: Path
    trained: Path

    @property
    def output(self) -> Path:
        return self.folder / "output"

    def copy(self, source: Path) -> Path:
        return shutil.copytree(source, self.folder / source.name)

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    def config(self, change: Callable[[Config], Any]) -> Path:
        config = Config().from_disk(DEFAULT, interpolate=False)
        change(config)
        config.to_disk(self.folder / "changed.cfg")
        return self.folder / "changed.cfg"

    def docs(self, name: str, notes: list[tuple[str, list[tuple[int, int, str]]]]) -> Path:
        save_docs(self.folder / name, notes)
        return self.folder / name

    def train(self, *more: object, config: Path = DEFAULT) -> list[object]:
        """The arguments of a short run that nothing is wrong with, but for `more`."""
        paths = {"train": self.corpus / "train.spacy", "dev": self.corpus / "dev.spacy", "base": self.base}
        given = [part for name, path in paths.items() for part in (f"--paths.{name}", path)]
        return ["train", config, "--output", self.output, *given, "--training.max_steps", 2, *more]


def save_docs(path: Path, notes: list[tuple[str, list[tuple[int, int, str]]]]) -> None:
    nlp, docs = spacy.blank("en"), DocBin()
    for text, spans in notes:
        doc = nlp.tokenizer(text)
        doc.ents = [doc.char_span(start, end, label) for start, end, label in spans]
        docs.add(doc)
    docs.to_disk(path)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["qlora", *map(str, arguments)], prog_name="spacy")


def assert_one_line(result: Result, code: str, named: object) -> None:
    """The exit code, the only line on stderr, and what it names."""
    assert isinstance(result.exception, SystemExit), result.exception
    lines = [line for line in result.stderr.splitlines() if line.strip() and not line.startswith(BARS)]
    assert result.exit_code == 1, result.output
    assert len(lines) == 1, result.output
    assert lines[0].startswith(f"Error: [{code}] ")
    assert str(named) in lines[0]
    assert MARK not in result.output
    assert "Traceback" not in result.output


@pytest.fixture(scope="module")
def marked_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("marked")
    for name in ("train", "dev"):
        save_docs(folder / f"{name}.spacy", NOTES)
    return folder


@pytest.fixture
def place(
    tmp_path: Path, marked_corpus: Path, base: Path, checkpoint: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> Place:
    """Offline, and with a cache of its own for bases made on first use."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(embedded, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("SPACY_QLORA_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SPACY_QLORA_BASE", raising=False)
    (folder := tmp_path / "case").mkdir()
    return Place(folder, marked_corpus, base, checkpoint, trained)


def change_json(name: str, **values: object) -> Callable[[Path], None]:
    return lambda folder: srsly.write_json(folder / name, {**srsly.read_json(folder / name), **values})


def cut(path: Path, count: int = 100) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


# train: what the config says. Each case gives the arguments, the code and what the line names.


def qlora_key(config: Config) -> None:
    config["qlora"]["batch_sise"] = 8


def component_key(config: Config) -> None:
    config["components"]["qlora_ner"]["rank"] = 8


def training_key(config: Config) -> None:
    config["training"]["max_epoch"] = 8


def no_component(config: Config) -> None:
    config["nlp"]["pipeline"] = []
    config["components"] = {}


def two_components(config: Config) -> None:
    config["nlp"]["pipeline"] = ["qlora_ner", "second"]
    config["components"]["second"] = dict(config["components"]["qlora_ner"])


def unknown_tokenizer(config: Config) -> None:
    config["nlp"]["tokenizer"]["@tokenizers"] = "spacy-qlora.NoTokenizer.v1"


def unknown_factory(config: Config) -> None:
    config["components"]["qlora_ner"]["factory"] = "qlora_nerr"


def adam(config: Config) -> None:
    config["training"]["optimizer"] = {"@optimizers": "Adam.v1"}


def labels_from(path: Path) -> Callable[[Config], None]:
    def change(config: Config) -> None:
        reader = {"@readers": "spacy.read_labels.v1", "path": str(path), "require": True}
        config["initialize"]["components"] = {"qlora_ner": {"labels": reader}}

    return change


def jsonl_from(path: Path) -> Callable[[Config], Any]:
    return lambda config: config["corpora"].update(train={"@readers": "spacy.JsonlCorpus.v1", "path": str(path)})


Case = Callable[[Place], tuple[list[object], str, object]]


def changed(change: Callable[[Config], Any], code: str, named: str) -> Case:
    return lambda place: (place.train(config=place.config(change)), code, named)


def overridden(name: str, value: object, code: str, named: str = "") -> Case:
    return lambda place: (place.train(f"--{name}", value), code, named or name.rpartition(".")[2])


def component(name: str, value: object, code: str = "Q210") -> Case:
    return overridden(f"components.qlora_ner.{name}", value, code)


CONFIGS: dict[str, Case] = {
    "missing": lambda place: (place.train(config=place.folder / "none.cfg"), "Q001", "none.cfg"),
    "a folder": lambda place: (place.train(config=place.folder), "Q001", place.folder),
    "no config": lambda place: (place.train(config=place.write("a.cfg", f"{MARK} has fever")), "Q401", "a.cfg"),
    "no config under a heading": lambda place: (
        place.train(config=place.write("a.cfg", f"[nlp]\n{MARK} has fever")), "Q401", "line 2"
    ),
    "bytes": lambda place: (place.train(config=place.write("a.cfg", b"\xff\xfe\x00" * 9)), "Q401", "a.cfg"),
    "an unknown key in [qlora]": changed(qlora_key, "Q401", "batch_sise"),
    "an unknown key in the component": changed(component_key, "Q401", "rank"),
    "an unknown key in [training]": changed(training_key, "Q401", "max_epoch"),
    "an unknown key in [nlp]": changed(lambda config: config["nlp"].update(batch_sise=8), "Q401", "batch_sise"),
    "an unknown key in [initialize]": changed(
        lambda config: config["initialize"].update(vectorz=None), "Q401", "vectorz"
    ),
    "a byte order mark": lambda place: (
        place.train(config=place.write("a.cfg", b"\xef\xbb\xbf" + DEFAULT.read_bytes())), "Q401", "byte order mark"
    ),
    "no such tokenizer": changed(unknown_tokenizer, "Q401", "changed.cfg"),
    "a broken line for a reader of spaCy's": lambda place: (
        place.train(config=place.config(jsonl_from(place.write("notes.jsonl", f'{{"text": "{MARK} has fever')))),
        "Q401", "ValueError",
    ),
    "no such factory": changed(unknown_factory, "Q401", "qlora_nerr"),
    "no qlora_ner": changed(no_component, "Q408", "has 0"),
    "two of them": changed(two_components, "Q408", "has 2"),
    "another optimizer": changed(adam, "Q406", "changed.cfg"),
    "no path of the train corpus": overridden("paths.train", "null", "Q401", "default.cfg"),
    "no path of the dev corpus": overridden("paths.dev", "null", "Q401", "default.cfg"),
    "no such language": overridden("nlp.lang", "klingon", "Q401", "klingon"),
    "no end": lambda place: (
        place.train("--training.max_steps", 0, "--training.max_epochs", 0, "--training.patience", 0),
        "Q407",
        DEFAULT,
    ),
    "an override that names nothing": overridden("components.qlora_ner.rank", 8, "Q401"),
    "an override of another section": overridden("trainin.max_steps", 8, "Q401", "trainin"),
    "a wrong type in [qlora]": overridden("qlora.batch_size", "many", "Q401"),
    "a wrong type in [training]": overridden("training.max_epochs", "many", "Q401"),
    "a wrong type in the component": component("r", "many", "Q401"),
    "a wrong type in the optimizer": overridden("training.optimizer.head_lr", "fast", "Q401"),
    "rank 0": component("r", 0),
    "alpha 0": component("alpha", 0),
    "dropout 1": component("dropout", 1.0),
    "an unknown linear": component("target_modules", '["query"]'),
    "no linear": component("target_modules", "[]"),
    "no layers": component("layers", 0),
    "too many layers": component("layers", 99),
    "attention from layer -1": component("bidirectional_from", -1),
    "attention from a layer above the last": component("bidirectional_from", 4),
    "float16": component("compute_dtype", "float16"),
    "a window of 2 pieces": component("max_pieces", 2),
    "batches of no piece": component("batch_pieces", 0),
    "an unknown device": component("device", "gpu", "Q306"),
    "a device that is not supported": component("device", "meta", "Q306"),
    "a rate below 0": overridden("training.optimizer.adapter_lr", -1.0, "Q210"),
    "an unknown decay": overridden("training.optimizer.decay", "sudden", "Q210"),
    "a batch size below 0": overridden("qlora.batch_size", -1, "Q210"),
    "a loss that is no number": overridden("training.optimizer.head_lr", 1e30, "Q402", "step 2"),
}  # fmt: skip


@pytest.mark.parametrize("case", CONFIGS.values(), ids=CONFIGS)
def test_train_with_a_wrong_config(place: Place, case: Case) -> None:
    arguments, code, named = case(place)
    assert_one_line(run(*arguments), code, named)
    assert not (place.output / "model-best").exists() or code == "Q402"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_train_on_a_gpu_that_is_not_there(place: Place) -> None:
    assert_one_line(run(*place.train("--components.qlora_ner.device", "cuda:0")), "Q306", "device = cuda:0")


# train: what the config names


def damaged(place: Place, split: str) -> Path:
    path = place.docs(f"{split}.spacy", NOTES)
    cut(path, 20)
    return path


def corpus(split: str, make: Callable[[Place], Path], code: str, named: str = "") -> Case:
    return lambda place: (place.train(f"--paths.{split}", make(place)), code, named or f"{split}.spacy")


def labels(make: Callable[[Place], Path], code: str, named: str) -> Case:
    return lambda place: (place.train(config=place.config(labels_from(make(place)))), code, named)


def broken_base(damage: Callable[[Path], object]) -> Callable[[Place], list[object]]:
    def make(place: Place) -> list[object]:
        damage(folder := place.copy(place.base))
        return place.train("--paths.base", folder)

    return make


def base_case(damage: Callable[[Path], object], code: str) -> Case:
    return lambda place: (broken_base(damage)(place), code, place.folder / "base")


SOURCES: dict[str, Case] = {
    **{f"no {split} corpus": corpus(split, lambda place: place.folder / "none.spacy", "Q411", "none.spacy")
       for split in ("train", "dev")},
    "a damaged train corpus": corpus("train", lambda place: damaged(place, "train"), "Q411", "the train corpus"),
    "a damaged dev corpus": corpus("dev", lambda place: damaged(place, "dev"), "Q411", "the dev corpus"),
    "a file of another kind": corpus("train", lambda place: place.write("notes.json", f'["{MARK}"]'), "Q411", "notes"),
    **{f"a text of a million characters in {split}": corpus(split, lambda place, name=split: place.docs(
        f"{name}.spacy", [*NOTES, (f"{MARK} has fever. " * 70_000, [])]), "Q417", f"the {split} corpus")
       for split in ("train", "dev")},
    "a corpus of another format": corpus("dev", lambda place: place.write("dev.spacy", f"{MARK} O"), "Q411", "dev"),
    "an empty train corpus": corpus("train", lambda place: place.docs("train.spacy", []), "Q303", "paths.train"),
    "an empty dev corpus": corpus("dev", lambda place: place.docs("dev.spacy", []), "Q409", "paths.dev"),
    "no entity": corpus("train", lambda place: place.docs("train.spacy", [(MARK, [])]), "Q303", "paths.train"),
    "no labels file": labels(lambda place: place.folder / "none.json", "Q401", "none.json"),
    "a broken labels file": labels(lambda place: place.write("labels.json", '["Drug"'), "Q401", "changed.cfg"),
    "a label not in the labels file": labels(lambda place: place.write("labels.json", '["Drug"]'), "Q302", "Symptom"),
    "no base folder": lambda place: (place.train("--paths.base", place.folder / "none"), "Q001", "none"),
    "a hub id that is not here": lambda place: (place.train("--paths.base", "no-such/base"), "Q211", "no-such/base"),
    "the embedded base offline": lambda place: (place.train("--paths.base", "smollm2-135m"), "Q216", "smollm2-135m"),
    "base.json broken": base_case(lambda folder: (folder / "base.json").write_text("{"), "Q201"),
    "base.json of another base": base_case(change_json("base.json", fingerprint="0" * 64), "Q203"),
    "base weights cut": base_case(lambda folder: cut(folder / "model.safetensors"), "Q202"),
    "base weights changed": base_case(lambda folder: flip(folder / "model.safetensors"), "Q203"),
    "base weights missing": base_case(lambda folder: (folder / "model.safetensors").unlink(), "Q202"),
    "base of another shape": base_case(change_json("config.json", hidden_size=32), "Q203"),
    "base tokenizer broken": base_case(lambda folder: (folder / "tokenizer.json").write_text("{}"), "Q202"),
}  # fmt: skip


@pytest.mark.parametrize("case", SOURCES.values(), ids=SOURCES)
def test_train_on_wrong_data(place: Place, case: Case) -> None:
    arguments, code, named = case(place)
    assert_one_line(run(*arguments), code, named)
    assert not (place.output / "model-best").exists()


def test_train_with_a_wrong_variable(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACY_QLORA_BASE", str(place.folder))
    assert_one_line(run(*place.train()), "Q218", place.folder)


# train: where it writes


def test_train_into_a_file(place: Place) -> None:
    place.output.write_text("")
    assert_one_line(run(*place.train()), "Q003", place.output)


def test_a_wrong_place_is_known_before_the_work(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spacy_qlora.training.run.prepare", lambda *_: pytest.fail("read the corpus"))
    place.output.mkdir()
    (place.output / "checkpoint").write_text("")
    assert_one_line(run(*place.train()), "Q003", place.output / "checkpoint")
    monkeypatch.setattr("spacy_qlora.engine.source.find_checkpoint", lambda *_: pytest.fail("fetched the weights"))
    (place.folder / "file").write_text("")
    assert_one_line(run("base", "org/some", place.folder / "file"), "Q004", place.folder / "file")


@pytest.mark.parametrize(
    ("notes", "told"),
    [([(MARK, [])], "holds no entity"), ([(MARK, [(0, len(MARK), "Other")])], "will not be found: Other")],
)
def test_a_dev_corpus_that_tells_nothing(place: Place, notes: list, told: str) -> None:
    result = run(*place.train("--paths.dev", place.docs("dev.spacy", notes), "--training.max_steps", 1))
    assert result.exit_code == 0, result.output
    assert told in " ".join(result.output.split())


def test_a_section_that_nothing_reads(place: Place) -> None:
    config = place.config(lambda config: config.update(qlorra={"memory_budget": "8GiB"}))
    result = run(*place.train("--training.max_steps", 1, config=config))
    assert "nothing reads the section [qlorra]" in " ".join(result.output.split())


def test_train_over_something_else(place: Place) -> None:
    (place.output / "model-last").mkdir(parents=True)
    (place.output / "model-last" / "thesis.txt").write_text("")
    assert_one_line(run(*place.train()), "Q004", "model-last")
    assert (place.output / "model-last" / "thesis.txt").exists()


@pytest.mark.parametrize("size", [100, 5_000, 60_000])
def test_train_with_no_space_left(place: Place, size: int) -> None:
    with file_size_limit(size):
        result = run(*place.train())
    assert_one_line(result, "Q002", place.output)
    assert not (place.output / "model-best").exists() or spacy.load(place.output / "model-best")
    assert not list(place.output.glob(".*")), "nothing half written is left behind"


def test_train_with_no_memory_left(place: Place) -> None:
    more_than_any_address = 10**12
    assert_one_line(run(*place.train("--components.qlora_ner.r", more_than_any_address)), "Q005", "plan")


def test_train_resumes_no_run_whose_best_pipeline_is_gone(place: Place) -> None:
    assert run(*place.train("--training.max_steps", 1)).exit_code == 0
    shutil.rmtree(place.output / "model-best")
    assert_one_line(run(*place.train("--training.max_steps", 1, "--resume")), "Q418", "model-best")


def test_train_resumes_only_its_own_run(place: Place) -> None:
    checkpoint = place.output / "checkpoint" / "checkpoint.safetensors"
    assert_one_line(run(*place.train("--resume")), "Q403", checkpoint)
    assert run(*place.train()).exit_code == 0
    assert_one_line(run(*place.train("--resume", "--components.qlora_ner.r", 4)), "Q405", "classifier")
    assert_one_line(run(*place.train("--resume", "--training.optimizer.head_lr", 0.1)), "Q405", "optimizer")
    cut(checkpoint)
    result = run(*place.train("--resume"))
    assert result.exit_code == 0, result.output
    assert "the last checkpoint is missing or damaged. Going on from the one before it." in result.output
    for path in checkpoint.parent.glob("*.safetensors"):
        cut(path)
    assert_one_line(run(*place.train("--resume")), "Q404", checkpoint)


@pytest.mark.parametrize("arguments", [[], ["a.cfg"], ["a.cfg", "--output"], ["a.cfg", "--resume"]])
def test_wrong_usage_of_train(arguments: list[str]) -> None:
    assert run("train", *arguments).exit_code == 2


@pytest.mark.parametrize("more", [["--learn_rate", "1"], ["training.max_steps", "1"]])
def test_an_override_that_is_none(place: Place, more: list[str]) -> None:
    result = run(*place.train(*more))
    assert result.exit_code == 2
    assert "Traceback" not in result.output


# base


def broken_checkpoint(damage: Callable[[Path], object], code: str, named: str = "") -> Case:
    def make(place: Place) -> tuple[list[object], str, object]:
        damage(folder := shutil.copytree(place.checkpoint, place.folder / "checkpoint"))
        return ["base", folder, place.output], code, named or folder

    return make


BASES: dict[str, Case] = {
    "no such folder": lambda place: (["base", place.folder / "none", place.output], "Q001", "none"),
    "a hub id that is not here": lambda place: (["base", "no-such/base", place.output], "Q211", "no-such/base"),
    "no hub id": lambda place: (["base", "no such base", place.output], "Q001", "no such base"),
    "the embedded base offline": lambda place: (["base", "smollm2-135m", place.output], "Q216", "smollm2-135m"),
    "an empty folder": lambda place: (["base", place.folder, place.output], "Q212", place.folder),
    "a 4-bit base": lambda place: (["base", place.base, place.output], "Q208", place.base),
    "another architecture": broken_checkpoint(change_json("config.json", model_type="gpt2"), "Q213"),
    "biases": broken_checkpoint(change_json("config.json", attention_bias=True), "Q213"),
    "another shape": broken_checkpoint(change_json("config.json", hidden_size=32), "Q204", "checkpoint: weight"),
    "too few layers": broken_checkpoint(change_json("config.json", num_hidden_layers=4), "Q204", "checkpoint: weight"),
    "config.json broken": broken_checkpoint(lambda folder: (folder / "config.json").write_text("{"), "Q212"),
    "config.json with sizes that cannot be": broken_checkpoint(
        change_json("config.json", num_attention_heads=0, head_dim=None), "Q212"
    ),
    "no tokenizer": broken_checkpoint(lambda folder: (folder / "tokenizer.json").unlink(), "Q212"),
    "no weights": broken_checkpoint(lambda folder: (folder / "model.safetensors").unlink(), "Q212"),
    "weights cut": broken_checkpoint(lambda folder: cut(folder / "model.safetensors"), "Q214"),
}


@pytest.mark.parametrize("case", BASES.values(), ids=BASES)
def test_a_wrong_base(place: Place, case: Case) -> None:
    arguments, code, named = case(place)
    assert_one_line(run(*arguments), code, named)
    assert not place.output.exists()


def test_a_base_over_something_else(place: Place) -> None:
    place.output.mkdir()
    (place.output / "thesis.txt").write_text("")
    assert_one_line(run("base", place.checkpoint, place.output), "Q004", place.output)
    assert (place.output / "thesis.txt").exists()


@pytest.mark.parametrize("size", [100, 5_000, 60_000])
def test_a_base_with_no_space_left(place: Place, size: int) -> None:
    with file_size_limit(size):
        result = run("base", place.checkpoint, place.output)
    assert_one_line(result, "Q002", place.folder)
    assert list(place.folder.iterdir()) == []


def test_wrong_usage_of_base() -> None:
    assert run("base", "smollm2-135m").exit_code == 2


# spacy.load, and the first text

NER, ADAPTER = "qlora_ner", "adapter/adapter_model.safetensors"


def change_classifier(folder: Path, lora: dict | None = None, **more: object) -> None:
    classifier = json.loads((folder / "cfg").read_text())["classifier"]
    change_json("cfg", classifier={**classifier, **more, "lora": {**classifier["lora"], **(lora or {})}})(folder)


def change_tensors(
    name: str,
    change: Callable[[torch.Tensor], torch.Tensor] = lambda tensor: tensor,
    rename: Callable[[str], str] = lambda name: name,
    more: dict[str, torch.Tensor] | None = None,
) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        tensors = {rename(name): change(tensor) for name, tensor in load_file(folder / name).items()}
        save_file({**tensors, **(more or {})}, folder / name)

    return damage


def link_out(path: Path) -> None:
    outside = path.rename(path.parents[2] / "outside.json")
    path.symlink_to(outside)


PIPELINES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no cfg": (lambda folder: (folder / "cfg").unlink(), "Q305"),
    "cfg broken": (lambda folder: (folder / "cfg").write_text(f'{{"labels": ["{MARK}'), "Q305"),
    "cfg without labels": (lambda folder: (folder / "cfg").write_text("{}"), "Q305"),
    "cfg of another version": (change_json("cfg", classifier={"lora": {"rank": 4}}), "Q305"),
    "no adapter": (lambda folder: shutil.rmtree(folder / "adapter"), "Q305"),
    "adapter cut": (lambda folder: cut(folder / "adapter" / "adapter_model.safetensors"), "Q305"),
    "no head": (lambda folder: (folder / "head.safetensors").unlink(), "Q305"),
    "head cut": (lambda folder: cut(folder / "head.safetensors"), "Q305"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "Q305"),
    "tokenizer broken": (lambda folder: (folder / "tokenizer.json").write_text("{}"), "Q305"),
    "no base.json": (lambda folder: (folder / "base.json").unlink(), "Q305"),
    "base.json broken": (lambda folder: (folder / "base.json").write_text("[]"), "Q305"),
    "base.json of another base": (change_json("base.json", fingerprint="0" * 64), "Q301"),
    "a label more": (change_json("cfg", labels=["Disease", "Dose", "Drug", "Symptom"]), "Q305"),
    "a label less": (change_json("cfg", labels=["Disease", "Drug"]), "Q305"),
    "a label twice": (change_json("cfg", labels=["Drug", "Drug", "Symptom"]), "Q305"),
    "labels that are no texts": (change_json("cfg", labels=[1, 2, 3]), "Q305"),
    "labels in one text": (change_json("cfg", labels="abc"), "Q305"),
    "no temperature": (change_json("cfg", temperature=0), "Q305"),
    "a threshold above 1": (change_json("cfg", threshold=1.5), "Q305"),
    "a temperature that is no number": (change_json("cfg", temperature="NaN"), "Q305"),
    "a seed that is no number": (change_json("cfg", seed="x"), "Q305"),
    "another rank": (lambda folder: change_classifier(folder, lora={"r": 10**9}), "Q305"),
    "an unknown module": (lambda folder: change_classifier(folder, lora={"target_modules": ["../x"]}), "Q210"),
    "more layers": (lambda folder: change_classifier(folder, layers=10**9), "Q210"),
    "adapter of other shapes": (change_tensors(ADAPTER, lambda tensor: tensor[:, :-1].contiguous()), "Q215"),
    "adapter of other types": (change_tensors(ADAPTER, lambda tensor: tensor.to(torch.int8)), "Q215"),
    "adapter without numbers": (change_tensors(ADAPTER, lambda tensor: tensor * math.nan), "Q215"),
    "adapter with more in it": (change_tensors(ADAPTER, more={"base_model.model.x": torch.zeros(1)}), "Q215"),
    "adapter with other names": (
        change_tensors(ADAPTER, rename=lambda name: name.replace("layers.0", "layers.9")),
        "Q215",
    ),
    "adapter empty": (change_tensors(ADAPTER, rename=lambda name: "x"), "Q305"),
    "adapter a pickle": (lambda folder: (folder / ADAPTER).write_bytes(pickle.dumps({"x": 1})), "Q305"),
    "head of other shapes": (change_tensors("head.safetensors", lambda tensor: tensor[:1].contiguous()), "Q305"),
    "head without numbers": (change_tensors("head.safetensors", lambda tensor: tensor * math.inf), "Q215"),
    "head a pickle": (lambda folder: (folder / "head.safetensors").write_bytes(pickle.dumps([1])), "Q305"),
    "a pickle more": (lambda folder: (folder / "adapter" / "adapter_model.bin").write_bytes(pickle.dumps(1)), "Q308"),
    "code beside it": (lambda folder: (folder / "modeling.py").write_text("raise SystemExit"), "Q308"),
    "a link out of it": (lambda folder: link_out(folder / "tokenizer.json"), "Q308"),
    "base.json leads elsewhere": (change_json("base.json", id="../../etc"), "Q305"),
    "base.json leads to the root": (change_json("base.json", id="/etc"), "Q305"),
    "base.json leads to a drive": (change_json("base.json", id="C:x"), "Q305"),
    "base.json leads elsewhere on Windows": (change_json("base.json", id="..\\..\\x"), "Q305"),
    "a revision that leads elsewhere": (change_json("base.json", revision="../../x"), "Q305"),
    "base.json knows more": (change_json("base.json", trust_remote_code=True), "Q305"),
    "cfg knows more": (lambda folder: change_classifier(folder, trust_remote_code=True), "Q305"),
    "the base is gone": (lambda folder: change_base(folder, "/no/such/base", "no-such/base"), "Q211"),
    "the base is broken": (lambda folder: change_base(folder, str(broken(folder)), ""), "Q202"),
    "the base is a component": (lambda folder: change_base(folder, str(folder), ""), "Q201"),
}


def broken(folder: Path) -> Path:
    """A folder beside a component's that has its base.json and nothing else of a base."""
    (folder.parent / "broken").mkdir()
    shutil.copy(folder / "base.json", folder.parent / "broken")
    return folder.parent / "broken"


def change_base(folder: Path, setting: str, source: str) -> None:
    """Names other bases: in the config, and as what the pipeline says of its base."""
    config = Config().from_disk(folder.parent / "config.cfg")
    config["components"][NER]["base"] = setting
    config.to_disk(folder.parent / "config.cfg")
    change_json("base.json", id=source)(folder)


@pytest.mark.parametrize(("damage", "code"), PIPELINES.values(), ids=PIPELINES)
def test_a_wrong_pipeline(place: Place, damage: Callable[[Path], object], code: str) -> None:
    damage((pipeline := place.copy(place.trained)) / NER)
    with pytest.raises(QLoRAError) as raised:
        spacy.load(pipeline)(NOTES[0][0])
    assert raised.value.code == code
    assert "\n" not in str(raised.value)
    assert MARK not in str(raised.value)
    arguments = ["evaluate", pipeline, place.corpus / "dev.spacy", "--output", place.folder / "metrics.json"]
    assert_one_line(run(*arguments), code, "")
    assert not (place.folder / "metrics.json").exists()


@pytest.mark.parametrize(("name", "value", "code"), [("max_pieces", 2, "Q210"), ("device", "gpu", "Q306")])
def test_a_wrong_setting_of_a_pipeline(place: Place, name: str, value: object, code: str) -> None:
    with pytest.raises(QLoRAError, match=name) as raised:
        spacy.load(place.trained, config={f"components.{NER}.{name}": value})(NOTES[0][0])
    assert raised.value.code == code


def test_evaluation_finds_what_training_wrote(place: Place) -> None:
    """The same arguments do their work where nothing is wrong."""
    result = run(*place.train())
    assert result.exit_code == 0, result.output
    assert MARK not in result.output
    metrics = place.folder / "metrics.json"
    result = run("evaluate", place.output / "model-best", place.corpus / "dev.spacy", "--output", metrics)
    assert result.exit_code == 0, result.output
    assert json.loads(metrics.read_text())["docs"] == len(NOTES)
