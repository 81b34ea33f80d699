"""The component in a pipeline: what it sets, how it learns, and the company it keeps."""

from __future__ import annotations

import copy
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Adam

from spacy_qlora.adapted import find_dtype
from spacy_qlora.component import QLoRANER
from spacy_qlora.engine.lora import LoRALinears
from spacy_qlora.errors import InputError, RunError
from spacy_qlora.text.spans import without_smoothing

TEXTS = [
    "Patient was diagnosed with type 2 diabetes and prescribed metformin.",
    "No complaints today.",
    "",
    "Started lisinopril; cough and chest pain resolved.",
    "  \n\t ",
    "History of asthma.",
]
EXPECTED = [
    [("type 2 diabetes", "Disease"), ("metformin", "Drug")],
    [],
    [],
    [("lisinopril", "Drug"), ("cough", "Symptom"), ("chest pain", "Symptom")],
    [],
    [("asthma", "Disease")],
]
Entities = list[tuple[str, str]]


def entities(doc: Doc) -> Entities:
    return [(ent.text, ent.label_) for ent in doc.ents]


def component(nlp: Language, name: str = "qlora_ner") -> QLoRANER:
    pipe = nlp.get_pipe(name)
    assert isinstance(pipe, QLoRANER)
    return pipe


@pytest.fixture
def learned(trained: Path) -> Language:
    return spacy.load(trained)


# Predicting


def test_entities_are_set(learned: Language) -> None:
    assert [entities(learned(text)) for text in TEXTS] == EXPECTED


@pytest.mark.parametrize("fold", [True, False])
def test_folded_weights_are_kept_if_asked(trained: Path, fold: bool) -> None:
    nlp = spacy.load(trained, config={"components.qlora_ner.fold": fold})
    assert [entities(nlp(text)) for text in TEXTS] == EXPECTED
    groups = [module for module in component(nlp).model.classifier.modules() if isinstance(module, LoRALinears)]
    assert all((group.folded is not None) == fold for group in groups)


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_a_stream_keeps_its_order_and_equals_single_calls(learned: Language, batch_size: int) -> None:
    found = list(learned.pipe(TEXTS * 3, batch_size=batch_size))
    assert [doc.text for doc in found] == TEXTS * 3
    assert [entities(doc) for doc in found] == EXPECTED * 3


def test_a_stream_is_read_no_further_than_asked(learned: Language) -> None:
    read = []

    def stream() -> Iterator[str]:
        for text in TEXTS * 10:
            read.append(text)
            yield text

    next(learned.pipe(stream(), batch_size=2))
    assert len(read) <= 4


def test_docs_without_entities_are_annotated(learned: Language) -> None:
    for text in ("No complaints today.", "   "):
        assert learned.make_doc(text).has_annotation("ENT_IOB") is False
        assert learned(text).has_annotation("ENT_IOB")


@pytest.mark.parametrize("bidirectional_from", [0, None])
def test_a_long_text_is_read_to_its_end(learned: Language, bidirectional_from: int | None) -> None:
    text = " ".join(TEXTS[i] for i in (0, 1, 3, 5)) + "\n"
    many = learned(text * 40)
    assert len(component(learned).model.windows([many])) > 10
    # Near a window's edge the sense may change, but no part of the text goes unread.
    found = [ent.label_ for ent in many.ents if ent.text == "metformin"]
    assert len(found) >= 30
    assert many.ents[-1].end_char > len(text) * 39


def test_small_windows_score_every_token_once(trained: Path) -> None:
    nlp = spacy.load(trained, config={"components.qlora_ner.max_pieces": 16})
    doc = nlp(" ".join(TEXTS) * 5)
    windows = component(nlp).model.windows([doc])
    assert max(map(len, windows)) == 16
    scored = sorted(word for window in windows for word in window.words)
    assert scored == [token.i for token in doc if not token.is_space]


def test_tags_of_other_components_are_overwritten(learned: Language) -> None:
    ruler = learned.add_pipe("entity_ruler", first=True)
    ruler.add_patterns([{"label": "Other", "pattern": "complaints"}])  # type: ignore[attr-defined]
    assert entities(learned(TEXTS[1])) == []


# Errors in the stream


def fail_at(nlp: Language, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the component fail at one doc, as it would without memory for it."""
    ner = component(nlp)
    predict = ner.predict

    def fail(docs: list[Doc]) -> Any:
        if any(doc.text == text for doc in docs):
            raise RuntimeError("out of memory")
        return predict(docs)

    monkeypatch.setattr(ner, "predict", fail)


def test_an_error_is_raised(learned: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_at(learned, TEXTS[3], monkeypatch)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(learned.pipe(TEXTS))
    with pytest.raises(RuntimeError, match="out of memory"):
        learned(TEXTS[3])


@pytest.mark.parametrize("batch_size", [1, 4, 256])
@pytest.mark.parametrize("on_nlp", [True, False])
def test_an_error_handler_keeps_the_other_docs(
    learned: Language, monkeypatch: pytest.MonkeyPatch, on_nlp: bool, batch_size: int
) -> None:
    fail_at(learned, TEXTS[3], monkeypatch)
    failed: list[tuple[str, list[str], str]] = []

    def handler(name: str, proc: object, docs: list[Doc], error: Exception) -> None:
        failed.append((name, [doc.text for doc in docs], str(error)))

    (learned if on_nlp else component(learned)).set_error_handler(handler)
    found = list(learned.pipe(TEXTS, batch_size=batch_size))
    assert [doc.text for doc in found] == [text for text in TEXTS if text != TEXTS[3]]
    assert [entities(doc) for doc in found] == [ents for ents in EXPECTED if ents != EXPECTED[3]]
    assert failed == [("qlora_ner", [TEXTS[3]], "out of memory")]


def test_too_large_a_batch_is_halved(learned: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    list(learned.pipe(TEXTS))
    classifier = component(learned).model.classifier
    collate, sizes = classifier.collate, []

    def too_much(windows: list) -> Any:
        sizes.append(len(windows))
        if len(windows) > 2:
            raise torch.OutOfMemoryError
        return collate(windows)

    monkeypatch.setattr(classifier, "collate", too_much)
    assert [entities(doc) for doc in learned.pipe(TEXTS)] == EXPECTED
    assert sizes == [4, 2, 2]


def test_a_window_that_memory_is_too_small_for(learned: Language, monkeypatch: pytest.MonkeyPatch) -> None:
    learned(TEXTS[0])

    def too_much(windows: list) -> Any:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:128] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(component(learned).model.classifier, "collate", too_much)
    with pytest.raises(RunError, match=r"Q416.*single window of \d+ pieces"):
        learned(TEXTS[0])


# Beside what is there, and with probabilities


def scored(trained: Path, **settings: object) -> Language:
    return spacy.load(trained, config={f"components.qlora_ner.{name}": value for name, value in settings.items()})


def test_spans_have_their_probabilities(trained: Path) -> None:
    nlp = scored(trained, spans_key="found")
    doc = nlp(TEXTS[0])
    group = doc.spans["found"]
    assert [(span.text, span.label_) for span in group] == EXPECTED[0]
    assert group.attrs["scores"].shape == (2,)
    assert (group.attrs["scores"] > 0.5).all()
    assert (group.attrs["scores"] <= 1).all()
    assert len(nlp(TEXTS[1]).spans["found"]) == 0
    copied = Doc(nlp.vocab).from_bytes(doc.to_bytes())
    assert copied.spans["found"].attrs["scores"].tolist() == group.attrs["scores"].tolist()


def test_scores_are_without_the_effect_of_label_smoothing(trained: Path) -> None:
    nlp = scored(trained, spans_key="found")
    model = component(nlp).model
    assert model.settings.classifier.label_smoothing == 0.1
    doc = nlp.make_doc(TEXTS[0])
    [logits] = model.classifier.predict(model.windows([doc]), 512)
    [scores] = model.scores([doc])
    assert np.array_equal(scores, without_smoothing(logits, 0.1))
    head, disease = model.classifier.head, model.bio.tags.index("B-Disease")
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor(smoothed(disease, len(model.bio.tags))).log())
    assert all(score > 0.99 for score in nlp(TEXTS[0]).spans["found"].attrs["scores"])


def smoothed(tag: int, tags: int) -> list[float]:
    """The target of a word with label smoothing of 0.1."""
    return [0.1 / tags + 0.9 * (i == tag) for i in range(tags)]


def test_a_threshold_leaves_out_what_is_less_probable(trained: Path) -> None:
    doc = scored(trained, spans_key="found", threshold=1.0)(TEXTS[0])
    assert len(doc.spans["found"]) == 2
    assert entities(doc) == []


def test_the_threshold_of_the_calibration_holds_where_the_settings_name_none(trained: Path, tmp_path: Path) -> None:
    nlp = scored(trained, spans_key="found")
    component(nlp).model.threshold = 1.0
    nlp.to_disk(tmp_path)
    for threshold, expected in ((None, []), (0.0, EXPECTED[0])):
        doc = spacy.load(tmp_path, config={"components.qlora_ner.threshold": threshold})(TEXTS[0])
        assert entities(doc) == expected
        assert len(doc.spans["found"]) == 2


def test_a_higher_temperature_makes_probabilities_less_extreme(trained: Path, tmp_path: Path) -> None:
    nlp = scored(trained, spans_key="found")
    before = nlp(TEXTS[0]).spans["found"].attrs["scores"]
    component(nlp).model.temperature = 3.0
    nlp.to_disk(tmp_path)
    after = spacy.load(tmp_path)(TEXTS[0])
    assert entities(after) == EXPECTED[0]
    assert (after.spans["found"].attrs["scores"] < before).all()


@pytest.mark.parametrize(
    ("earlier_ents", "expected"),
    [
        ("overwrite", EXPECTED[0]),
        ("keep", [("Patient", "Person"), ("diabetes and prescribed", "Odd"), ("metformin", "Drug")]),
        ("merge", [("Patient", "Person"), ("diabetes and prescribed", "Odd"), ("metformin", "Drug")]),
    ],
)
def test_entities_of_an_earlier_component(trained: Path, earlier_ents: str, expected: Entities) -> None:
    nlp = scored(trained, earlier_ents=earlier_ents)
    ruler = nlp.add_pipe("entity_ruler", first=True)
    patterns = [{"label": "Person", "pattern": "Patient"}, {"label": "Odd", "pattern": "diabetes and prescribed"}]
    ruler.add_patterns(patterns)  # type: ignore[attr-defined]
    assert entities(nlp(TEXTS[0])) == expected


@pytest.mark.parametrize(("earlier_ents", "blocks"), [("overwrite", False), ("keep", True), ("merge", True)])
def test_blocked_tokens_get_no_entity_and_stay_so(trained: Path, earlier_ents: str, blocks: bool) -> None:
    nlp = scored(trained, earlier_ents=earlier_ents)
    doc = nlp.make_doc(TEXTS[0])
    drug = next(token for token in doc if token.text == "metformin")
    doc.set_ents([], blocked=[doc[drug.i : drug.i + 1]], default="unmodified")
    doc = nlp(doc)
    assert (("metformin", "Drug") not in entities(doc)) == blocks
    assert len(entities(doc)) == 2 - blocks
    assert (doc[drug.i].ent_iob == 3 and not doc[drug.i].ent_type) == blocks


def test_the_more_probable_of_two_is_kept(trained: Path) -> None:
    """Two of the same: the first hands its scores on, less sure by its temperature."""
    nlp = scored(trained, spans_key="first")
    config = {"base": str(component(nlp).settings.base), "earlier_ents": "merge"}
    nlp.add_pipe("qlora_ner", "other", config=config).from_disk(trained / "qlora_ner")  # type: ignore[attr-defined]
    first, second = component(nlp), component(nlp, "other")
    first.model.temperature = 5.0
    second.model.labels = tuple(f"New{label}" for label in second.labels)
    second.model.bio = type(second.model.bio)(second.labels)
    assert entities(nlp(TEXTS[0])) == [(text, f"New{label}") for text, label in EXPECTED[0]]
    first.model.temperature, second.model.temperature = 1.0, 5.0
    assert entities(nlp(TEXTS[0])) == EXPECTED[0]


def test_without_labels_there_is_nothing_to_find(nlp: Language) -> None:
    with pytest.raises(RunError, match="qlora_ner: not initialised") as raised:
        nlp("Denies chest pain.")
    assert raised.value.code == "Q304"


# Labels


def test_labels_come_from_the_examples(nlp: Language, examples: list[Example]) -> None:
    assert component(nlp).labels == ()
    nlp.initialize(lambda: examples)
    assert component(nlp).labels == component(nlp).label_data == ("Disease", "Drug", "Symptom")
    assert nlp.pipe_labels["qlora_ner"] == ["Disease", "Drug", "Symptom"]


def test_labels_come_from_a_file_in_its_order(nlp: Language, examples: list[Example], tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text('["Symptom", "Drug", "Disease", "Dose"]')
    reader = {"@readers": "spacy.read_labels.v1", "path": str(tmp_path / "labels.json")}
    nlp.config["initialize"]["components"]["qlora_ner"] = {"labels": reader}
    nlp.initialize(lambda: examples)
    assert component(nlp).labels == ("Symptom", "Drug", "Disease", "Dose")
    assert "qlora_ner" in nlp.update(examples, sgd=Adam(0.001))


def test_a_corpus_without_entities(nlp: Language) -> None:
    empty = [Example.from_dict(nlp.make_doc("No complaints."), {"entities": []})]
    with pytest.raises(InputError, match="holds no entity") as raised:
        nlp.initialize(lambda: empty)
    assert raised.value.code == "Q303"


def test_a_label_that_it_does_not_have(nlp: Language, examples: list[Example]) -> None:
    component(nlp).initialize(lambda: examples, labels=["Drug", "Disease"])
    with pytest.raises(InputError, match="label Symptom") as raised:
        component(nlp).update(examples)
    assert raised.value.code == "Q302"


def test_a_new_initialisation_starts_anew(nlp: Language, examples: list[Example]) -> None:
    def first_loss(seed: int) -> float:
        spacy.util.fix_random_seed(seed)
        nlp.initialize(lambda: examples)
        return component(nlp).update(examples, sgd=Adam(0.01))["qlora_ner"]

    one, same, other = first_loss(0), first_loss(0), first_loss(1)
    assert one == same != other


# Learning

OPTIMIZERS = {
    "ours": lambda: spacy.registry.optimizers.get("spacy-qlora.AdamW.v1")(adapter_lr=3e-3, head_lr=1e-2),
    "thinc's Adam": lambda: Adam(3e-3, L2=0.0),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_it_learns(nlp: Language, examples: list[Example], make: Any) -> None:
    nlp.initialize(lambda: examples)
    optimizer = make()
    losses = [nlp.update(examples, sgd=optimizer)["qlora_ner"] for _ in range(25)]
    assert losses[-1] < losses[0] / 4
    assert nlp.evaluate(examples)["ents_f"] > 0.5


def weights(nlp: Language) -> list[torch.Tensor]:
    return [tensor.detach().clone() for _, tensor in component(nlp).model.classifier.named_trained()]


@pytest.mark.parametrize("sgd", [None, False])
def test_gradients_wait_for_the_step(nlp: Language, examples: list[Example], sgd: Any) -> None:
    nlp.initialize(lambda: examples)
    ner, before = component(nlp), weights(nlp)
    losses = {"qlora_ner": 1.0}
    ner.update(examples[:3], sgd=sgd, losses=losses)
    assert ner.update(examples[3:], sgd=sgd, losses=losses) is losses
    assert losses["qlora_ner"] > 1.0
    assert all(torch.equal(one, other) for one, other in zip(before, weights(nlp), strict=True))
    ner.finish_update(OPTIMIZERS["ours"]())
    after = weights(nlp)
    assert not all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    ner.finish_update(OPTIMIZERS["ours"]())
    assert all(torch.equal(one, other) for one, other in zip(after, weights(nlp), strict=True)), "nothing is left over"


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_parts_of_a_batch_make_the_same_step(base: Path, nlp: Language, examples: list[Example], make: Any) -> None:
    nlp.replace_pipe("qlora_ner", "qlora_ner", config={"base": str(base), "dropout": 0.0, "compute_dtype": "float32"})

    def step(parts: list[list[Example]]) -> list[torch.Tensor]:
        spacy.util.fix_random_seed(0)
        nlp.initialize(lambda: examples)
        for part in parts:
            component(nlp).update(part)
        component(nlp).finish_update(make())
        return weights(nlp)

    whole, parts = step([examples]), step([examples[:1], examples[1:4], examples[4:]])
    for one, other in zip(whole, parts, strict=True):
        # Adam makes a step of any gradient, be it rounding: of single weights nothing can be said.
        assert (one - other).abs().mean() < 1e-5, "where a step is 3e-3 or more"


def test_an_empty_update_changes_nothing(nlp: Language, examples: list[Example]) -> None:
    nlp.initialize(lambda: examples)
    before = weights(nlp)
    blank = Example.from_dict(nlp.make_doc("  "), {"entities": []})
    assert component(nlp).update([], sgd=Adam(0.1)) == {"qlora_ner": 0.0}
    assert component(nlp).update([blank], sgd=Adam(0.1)) == {"qlora_ner": 0.0}
    assert all(torch.equal(one, other) for one, other in zip(before, weights(nlp), strict=True))


def test_it_learns_after_it_predicted(nlp: Language, examples: list[Example]) -> None:
    nlp.initialize(lambda: examples)
    optimizer = OPTIMIZERS["ours"]()
    losses = []
    for _ in range(25):
        losses.append(nlp.update(examples, sgd=optimizer)["qlora_ner"])
        list(nlp.pipe(example.text for example in examples))
    assert losses[-1] < losses[0] / 4


def test_it_learns_after_it_was_opened_in_inference_mode(nlp: Language, examples: list[Example]) -> None:
    nlp.initialize(lambda: examples)
    with torch.inference_mode():
        list(nlp.pipe(example.text for example in examples))
    assert nlp.update(examples, sgd=OPTIMIZERS["ours"]())["qlora_ner"] > 0


def test_a_step_ends_what_the_calibration_found(learned: Language) -> None:
    model = component(learned).model
    model.temperature, model.threshold = 2.0, 0.9
    optimizer = learned.resume_training()
    assert (model.temperature, model.threshold) == (2.0, 0.9)
    learned.update([Example.from_dict(learned.make_doc("Took aspirin."), {"entities": []})], sgd=optimizer)
    assert (model.temperature, model.threshold) == (1.0, 0.0)


def test_averages_take_the_place_of_the_weights_for_a_while(nlp: Language, examples: list[Example]) -> None:
    nlp.initialize(lambda: examples)
    optimizer = Adam(0.01, use_averages=True)
    for _ in range(3):
        nlp.update(examples, sgd=optimizer)
    before, named = weights(nlp), component(nlp).model.classifier.named_trained()
    with nlp.use_params(optimizer.averages):
        for (name, _), weight in zip(named, weights(nlp), strict=True):
            assert np.array_equal(weight.numpy(), optimizer.averages["qlora_ner", name])
    assert not np.array_equal(before[0].numpy(), optimizer.averages["qlora_ner", named[0][0]])
    assert all(torch.equal(one, other) for one, other in zip(before, weights(nlp), strict=True))


def test_labels_outlast_a_memory_zone(trained: Path) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("qlora_ner").from_disk(trained / "qlora_ner")
    assert component(nlp).labels
    assert all(label in nlp.vocab.strings for label in component(nlp).labels)


# Copies, processes, company


def test_bytes_hold_all_but_the_base(learned: Language, base: Path) -> None:
    nlp = spacy.blank("en", config={"nlp": {"tokenizer": {"@tokenizers": "spacy-qlora.FineTokenizer.v1"}}})
    nlp.add_pipe("qlora_ner", config={"base": str(base), "r": 4})
    nlp.from_bytes(learned.to_bytes())
    assert component(nlp).labels == component(learned).labels
    assert component(nlp).settings.classifier == component(learned).settings.classifier
    assert [entities(doc) for doc in nlp.pipe(TEXTS)] == EXPECTED
    assert component(nlp).to_bytes() == component(learned).to_bytes()


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda pipe: pickle.loads(pickle.dumps(pipe))])
def test_copies_are_independent(learned: Language, duplicate: Any, opened: bool) -> None:
    if opened:
        learned(TEXTS[0])
    ner = component(learned)
    other = duplicate(ner)
    assert entities(other(learned.make_doc(TEXTS[0]))) == EXPECTED[0]
    other.model.classifier.head.weight.data.zero_()
    assert entities(ner(learned.make_doc(TEXTS[0]))) == EXPECTED[0]


def test_a_copy_spells_out_what_looks_like_a_special_piece(learned: Language) -> None:
    docs = [learned.make_doc("Stop <s> aspirin </s>.")]
    one, other = component(learned).model, pickle.loads(pickle.dumps(component(learned))).model
    [found], [expected] = other.encode(docs), one.encode(docs)
    assert found.ids == expected.ids
    assert "<s>" not in found.tokens


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_worker_does_not_wait_for_its_parents_threads(trained: Path) -> None:
    program = """
import multiprocessing, sys
import spacy, torch
torch.set_num_threads(2)
spacy.language.mp = multiprocessing.get_context("fork")
nlp = spacy.load(sys.argv[1])
nlp("No complaints today. " * 200)  # starts the threads
print([len(doc.ents) for doc in nlp.pipe(["History of asthma. " * 200] * 4, n_process=2, batch_size=2)])
"""
    command = [sys.executable, "-c", program, str(trained)]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)
    assert len(counts) == 4
    assert counts[0] > 100


@pytest.mark.parametrize("opened", [True, False], ids=["base opened before", "base opened by the workers"])
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_two_processes_find_the_same(
    learned: Language, opened: bool, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spacy.language.mp", multiprocessing.get_context(method))
    if opened:
        learned(TEXTS[0])
    found = list(learned.pipe(TEXTS * 2, n_process=2, batch_size=3))
    assert [doc.text for doc in found] == TEXTS * 2
    assert [entities(doc) for doc in found] == EXPECTED * 2


def test_a_worker_is_refused_the_gpu(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nlp = spacy.load(trained, config={"components.qlora_ner.device": "auto"})
    model = component(nlp).model
    monkeypatch.setattr(model, "_process", -1)  # as if it had been copied into another process
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: pytest.fail("CUDA cannot be started in a fork"))
    with pytest.raises(RunError, match=r"Q307.*n_process=1"):
        nlp(TEXTS[0])


def test_a_pickle_that_another_program_opens_leaves_its_threads_alone(learned: Language, tmp_path: Path) -> None:
    (tmp_path / "pickle").write_bytes(pickle.dumps(component(learned)))
    program = "import pickle, spacy, sys, torch; torch.set_num_threads(2); from pathlib import Path; "
    program += "ner = pickle.loads(Path(sys.argv[1]).read_bytes()); ner(spacy.blank('en')('Denies chest pain.')); "
    program += "print(torch.get_num_threads())"
    command = [sys.executable, "-c", program, str(tmp_path / "pickle")]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == ["2"]


@pytest.mark.parametrize(
    ("setting", "known", "expected"),
    [
        ("auto", {"avx2": True, "avx512_f": True}, torch.float32),
        ("auto", {"avx2": True, "avx512_bf16": True, "cpu_name": "AMD EPYC"}, torch.bfloat16),
        ("auto", {"avx2": True, "avx512_bf16": True, "cpu_name": "Intel Xeon"}, torch.float32),
        ("auto", {"avx512_bf16": True, "amx_bf16": True, "cpu_name": "Intel Xeon"}, torch.bfloat16),
        ("auto", {"neon": True, "bf16": True}, torch.bfloat16),
        ("bfloat16", {"avx2": True}, torch.bfloat16),
    ],
)
def test_computes_in_what_the_cpu_is_fast_in(
    learned: Language, monkeypatch: pytest.MonkeyPatch, setting: str, known: dict[str, Any], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    ner = component(learned)
    config = {"base": ner.settings.base, "compute_dtype": setting, "device": "cpu"}
    other = learned.add_pipe("qlora_ner", name="other", config=config).from_bytes(ner.to_bytes())
    assert other.model.classifier.base.dtype == expected
    assert entities(other(learned.make_doc(TEXTS[0]))) == EXPECTED[0]


@pytest.mark.parametrize(("capability", "expected"), [("AVX2", torch.float32), ("AVX512", torch.bfloat16)])
def test_an_older_pytorch_tells_less_of_the_cpu(
    monkeypatch: pytest.MonkeyPatch, capability: str, expected: torch.dtype
) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert find_dtype("auto", "cpu") == expected


def test_without_onednn_a_cpu_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a Mac."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert find_dtype("auto", "cpu") == torch.float32


@pytest.mark.parametrize(("able", "expected"), [(False, torch.float32), (True, torch.bfloat16)])
def test_a_gpu_without_bfloat16_computes_in_float32(
    monkeypatch: pytest.MonkeyPatch, able: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: able)
    assert find_dtype("auto", "cuda") == expected


def test_a_plan_for_a_gpu_elsewhere_takes_one_with_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_dtype("auto", "cuda") == torch.bfloat16


def test_two_components_share_one_base(learned: Language, trained: Path) -> None:
    learned.add_pipe("qlora_ner", name="second", source=spacy.load(trained))
    assert entities(learned(TEXTS[0])) == EXPECTED[0]
    one, two = component(learned).model.classifier, component(learned, "second").model.classifier
    assert one.base is two.base
    assert one.head.weight.data_ptr() != two.head.weight.data_ptr()


def test_two_components_learn_apart(nlp: Language, base: Path, examples: list[Example]) -> None:
    nlp.add_pipe("qlora_ner", name="second", config={"base": str(base), "r": 8})
    optimizer = nlp.initialize(lambda: examples)
    losses = nlp.update(examples, sgd=optimizer)
    assert losses["qlora_ner"] > 0
    assert losses["second"] > 0
    classifiers = [component(nlp, name).model.classifier for name in ("qlora_ner", "second")]
    assert [classifier.settings.lora.r for classifier in classifiers] == [4, 8]


def test_pipes_are_selected_disabled_renamed_and_removed(learned: Language) -> None:
    with learned.select_pipes(disable="qlora_ner"):
        assert not learned(TEXTS[0]).has_annotation("ENT_IOB")
    assert entities(learned(TEXTS[0])) == EXPECTED[0]
    learned.rename_pipe("qlora_ner", "clinical")
    assert entities(learned(TEXTS[0])) == EXPECTED[0]
    assert entities(next(learned.pipe(TEXTS[:1], component_cfg={"clinical": {"batch_size": 1}}))) == EXPECTED[0]
    name, removed = learned.remove_pipe("clinical")
    assert (name, entities(removed(learned.make_doc(TEXTS[0])))) == ("clinical", EXPECTED[0])  # type: ignore[operator]


def test_beside_a_sentencizer_and_a_ruler(learned: Language) -> None:
    learned.add_pipe("sentencizer", first=True)
    ruler = learned.add_pipe("entity_ruler", last=True)
    ruler.add_patterns([{"label": "Time", "pattern": "today"}])  # type: ignore[attr-defined]
    docs = list(learned.pipe(TEXTS))
    assert entities(docs[1]) == [("today", "Time")]
    assert entities(docs[0]) == EXPECTED[0]
    assert len(list(docs[3].sents)) == 1


def test_it_scores(learned: Language, examples: list[Example]) -> None:
    scores = learned.evaluate(examples)
    assert scores["ents_f"] == 1.0
    assert set(scores["ents_per_type"]) == {"Disease", "Drug", "Symptom"}
