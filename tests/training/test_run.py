"""Whole runs of the engine's loop on a small corpus."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import spacy
import torch
from spacy.tokens import Doc, DocBin, Span
from spacy.training import Example

from spacy_qlora.engine.functions import can_compile
from spacy_qlora.engine.progress import Progress
from spacy_qlora.training.config import load_config
from spacy_qlora.training.history import Evaluation, read_history
from spacy_qlora.training.run import told, train

DEFAULT = Path(__file__).parents[2] / "configs" / "default.cfg"
SWIGLU = "spacy_qlora.engine.functions.swiglu.kernel"
WEIGHTS = ("adapter/adapter_model.safetensors", "head.safetensors")


def run(corpus: Path, base: Path, output: Path, *, resume: bool = False, **more: Any) -> Progress:
    """`more`: Overrides, with __ for the dots."""
    paths = {"train": corpus / "train.spacy", "dev": corpus / "dev.spacy", "base": base}
    overrides = {f"paths.{name}": str(path) for name, path in paths.items()}
    overrides |= {name.replace("__", "."): value for name, value in more.items()}
    return train(DEFAULT, load_config(DEFAULT, overrides), output, resume)


def weights(pipeline: Path) -> list[bytes]:
    return [(pipeline / "qlora_ner" / name).read_bytes() for name in WEIGHTS]


@pytest.fixture(scope="module")
def finished(corpus: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Progress]:
    """A run over four epochs of three steps, with dropout."""
    output = tmp_path_factory.mktemp("finished")
    return output, run(corpus, base, output, **SETTINGS)


SETTINGS: dict[str, Any] = {
    "training__max_epochs": 4,
    "training__optimizer__adapter_lr": 3e-3,
    "training__optimizer__head_lr": 1e-2,
    "components__qlora_ner__dropout": 0.1,
    "qlora__batch_size": 2,
}


def test_best_and_last_are_kept_and_load(finished: tuple[Path, Progress]) -> None:
    output, progress = finished
    assert sorted(path.name for path in output.iterdir()) == ["checkpoint", "history.jsonl", "model-best", "model-last"]
    assert (progress.epoch, progress.step) == (4, 12)
    for name in ("model-best", "model-last"):
        nlp = spacy.load(output / name)
        assert nlp.get_pipe("qlora_ner").labels == ("Disease", "Drug", "Symptom")  # type: ignore[attr-defined]
        assert nlp("Denies chest pain.").has_annotation("ENT_IOB")
    performance = json.loads((output / "model-best" / "meta.json").read_text())["performance"]
    assert performance["ents_f"] == pytest.approx(progress.best)
    assert set(performance) >= {"ents_p", "ents_r", "ents_f", "ents_per_type", "qlora_ner_loss"}


def test_every_evaluation_is_kept(finished: tuple[Path, Progress]) -> None:
    output, progress = finished
    history = read_history(output / "history.jsonl")
    assert [(each.epoch, each.step) for each in history] == [(1, 3), (2, 6), (3, 9), (4, 12)]
    assert max(each.score for each in history) == progress.best
    assert all(each.scores["ents_f"] == each.score for each in history)
    assert all(each.memory > 0 and each.words > 0 and each.loss > 0 for each in history)
    assert [each.pieces for each in history] == sorted(each.pieces for each in history)


def curve(output: Path) -> list[Evaluation]:
    """The history, without what the machine makes of it."""
    return [replace(each, seconds=0, memory=0) for each in read_history(output / "history.jsonl")]


def test_pipelines_hold_no_word_of_the_texts(finished: tuple[Path, Progress], corpus: Path) -> None:
    output, _ = finished
    texts = [doc.text for doc in DocBin().from_disk(corpus / "train.spacy").get_docs(spacy.blank("en").vocab)]
    names = ["diabetes", "metformin", "lisinopril", "asthma", "coronary", "Aspirin"]
    assert all(any(name in text for text in texts) for name in names)
    for pipeline in (output / "model-best", output / "model-last"):
        strings = json.loads((pipeline / "vocab" / "strings.json").read_text())
        assert set(strings) <= {"Disease", "Drug", "Symptom"}
        for path in pipeline.rglob("*"):
            if path.is_file() and path.name != "tokenizer.json":  # that of the base, made of these texts in conftest.py
                assert not any(name.encode() in path.read_bytes() for name in names), path


def test_nor_does_one_with_a_frozen_component(corpus: Path, base: Path, tmp_path: Path) -> None:
    """It may need what the vocabulary held before: here the tagger's own words."""
    other = spacy.blank("en")
    other.add_pipe("tagger").add_label("NN")  # type: ignore[attr-defined]
    other.initialize(lambda: [Example.from_dict(other.make_doc("ward"), {"tags": ["NN"]})])
    other.to_disk(tmp_path / "other")
    frozen = {
        "nlp__pipeline": ["tagger", "qlora_ner"],
        "components__tagger": {"source": str(tmp_path / "other")},
        "training__frozen_components": ["tagger"],
        "training__annotating_components": [],
    }
    run(corpus, base, tmp_path / "out", **SETTINGS | {"training__max_epochs": 1} | frozen)
    for name in ("model-best", "model-last"):
        strings = set(json.loads((tmp_path / "out" / name / "vocab" / "strings.json").read_text()))
        assert {"ward", "NN", "Disease", "Drug", "Symptom"} <= strings
        assert not strings & {"diabetes", "metformin", "lisinopril", "asthma", "coronary", "Aspirin"}
        assert [word.tag_ for word in spacy.load(tmp_path / "out" / name)("ward")] == ["NN"]


def test_the_same_run_gives_the_same_weights(
    finished: tuple[Path, Progress], corpus: Path, base: Path, tmp_path: Path
) -> None:
    run(corpus, base, tmp_path, **SETTINGS)
    assert weights(tmp_path / "model-last") == weights(finished[0] / "model-last")


def test_gold_entities_that_cut_tokens_are_counted(
    corpus: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    nlp = spacy.blank("en")
    words, spaces = ["T", "2", "DM", "and", "fever"], [False, False, True, True, False]
    docs = [*DocBin().from_disk(corpus / "train.spacy").get_docs(nlp.vocab), Doc(nlp.vocab, words, spaces)]
    docs[-1].set_ents([Span(docs[-1], 2, 3, "Disease"), Span(docs[-1], 4, 5, "Symptom")])
    DocBin(docs=docs).to_disk(tmp_path / "train.spacy")
    more = SETTINGS | {"training__max_steps": 1, "paths__train": str(tmp_path / "train.spacy")}
    run(corpus, base, tmp_path / "fine", **more)
    total = sum(len(doc.ents) for doc in docs)
    warning = f"1 of {total} gold entities of the train corpus begin or end inside a token"
    shown = " ".join(capsys.readouterr().out.split())
    assert warning in shown
    assert "FineTokenizer" not in shown
    run(corpus, base, tmp_path / "other", **more, nlp__tokenizer={"@tokenizers": "spacy.Tokenizer.v1"})
    shown = " ".join(capsys.readouterr().out.split())
    assert warning in shown
    assert "FineTokenizer" in shown


def test_a_dev_corpus_of_training_texts_is_warned_of(
    corpus: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    more = SETTINGS | {"training__max_steps": 1}
    other = Doc(spacy.blank("en").vocab, ["Denies", "fever"])
    other.set_ents([Span(other, 1, 2, "Symptom")])
    DocBin(docs=[other]).to_disk(tmp_path / "dev.spacy")
    run(corpus, base, tmp_path / "one", **more, paths__dev=str(tmp_path / "dev.spacy"))
    assert "are in the train corpus" not in capsys.readouterr().out
    run(corpus, base, tmp_path / "two", **more)
    assert "6 of 6 docs of the dev corpus are in the train corpus" in " ".join(capsys.readouterr().out.split())


class Stopped(Exception):
    pass


@pytest.mark.parametrize("step", [4, 6])
def test_a_run_that_was_stopped_goes_on_to_the_same_weights(
    finished: tuple[Path, Progress],
    corpus: Path,
    base: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
) -> None:
    from spacy_qlora.training.display import Bar

    shown = Bar.on_step

    def stop(bar: Bar, progress: Progress) -> None:
        shown(bar, progress)
        if progress.step == step:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Bar, "on_step", stop)
        with pytest.raises(Stopped):
            run(corpus, base, tmp_path, **SETTINGS)
    progress = run(corpus, base, tmp_path, resume=True, **SETTINGS)
    assert (progress.epoch, progress.step) == (4, 12)
    assert weights(tmp_path / "model-last") == weights(finished[0] / "model-last")
    assert weights(tmp_path / "model-best") == weights(finished[0] / "model-best")
    assert curve(tmp_path) == curve(finished[0])


def test_a_finished_run_has_nothing_to_resume(finished: tuple[Path, Progress], corpus: Path, base: Path) -> None:
    output, progress = finished
    before = weights(output / "model-last")
    assert run(corpus, base, output, resume=True, **SETTINGS).step == progress.step
    assert weights(output / "model-last") == before


@pytest.mark.parametrize("code", ["[E194]", "[E949]"])
def test_errors_of_spacy_that_quote_texts_are_told_by_their_kind(code: str) -> None:
    assert told(ValueError(f"{code} Unable to align: 'John', 'Doe'")) == "ValueError"
    assert "[E002]" in told(ValueError("[E002] Can't find factory for 'none'"))


def test_patience_ends_a_run(corpus: Path, base: Path, tmp_path: Path) -> None:
    still = {"training__optimizer__adapter_lr": 0.0, "training__optimizer__head_lr": 0.0}
    progress = run(corpus, base, tmp_path, training__max_epochs=50, training__patience=3, **still)
    assert progress.step == 4, "the first evaluation is the best, and three steps bring nothing better"


def test_a_logger_sees_the_evaluations_and_the_end(corpus: Path, base: Path, tmp_path: Path) -> None:
    seen: list[Any] = []

    def make() -> Callable:
        def log(info: dict[str, Any]) -> None:
            seen.append((info["checkpoints"], Path(info["output_path"]).name))
            if len(seen) == 2:
                raise RuntimeError("a logger that fails")

        return lambda nlp, stdout, stderr: (log, lambda: seen.append("end"))

    name = "test_run.Logger.v1"
    spacy.registry.loggers.register(name, func=make)
    logger = {"training__logger": {"@loggers": name}, "training__max_epochs": 3, "qlora__batch_size": 2}
    with pytest.raises(RuntimeError, match="a logger that fails"):
        run(corpus, base, tmp_path, **logger)
    [(first, folder), (second, _), end] = seen
    assert [step for _, step in second] == [3, 6]
    assert (first, folder, end) == (second[:1], "model-last", "end")


def test_other_components_stay_as_they_are(corpus: Path, base: Path, tmp_path: Path) -> None:
    config = load_config(DEFAULT, {})
    config["nlp"]["pipeline"] = ["sentencizer", "qlora_ner"]
    config["components"]["sentencizer"] = {"factory": "sentencizer"}
    config["paths"] = {"train": str(corpus / "train.spacy"), "dev": str(corpus / "dev.spacy"), "base": str(base)}
    config["training"]["max_steps"] = 1
    train(DEFAULT, config, tmp_path)
    nlp = spacy.load(tmp_path / "model-last")
    assert nlp.pipe_names == ["sentencizer", "qlora_ner"]
    assert len(list(nlp("Denies pain. No fever.").sents)) == 2


@pytest.mark.parametrize("works", [True, False])
def test_kernels_are_compiled_where_that_works(
    works: bool,
    corpus: Path,
    base: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not works:
        monkeypatch.setattr(SWIGLU, "no function")
    elif not can_compile(torch.device("cpu")):
        pytest.skip("no C++ compiler")
    progress = run(corpus, base, tmp_path, training__max_steps=2, qlora__compile=True)
    assert progress.step == 2
    assert ("compiled by torch.compile" if works else "finds no compiler here") in capsys.readouterr().out
