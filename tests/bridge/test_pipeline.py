"""spaCy's own components on the adapted base: what they see, how they learn, and the company they keep."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import spacy
import torch
from spacy.language import Language
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import Adam, Optimizer

from spacy_qlora.errors import RunError
from tests.bridge.conftest import TEXTS, Make, add_tagger, examples

pytest.importorskip("spacy_transformers")
from spacy_qlora.bridge.model import QLoRATransformer

ODD = [*TEXTS, "", " \n\t ", "\u200b"]


def model_of(nlp: Language) -> QLoRATransformer:
    model = nlp.get_pipe("transformer").model
    assert isinstance(model, QLoRATransformer)
    return model


def tags(docs: list[Doc]) -> list[list[str]]:
    return [[token.tag_ for token in doc] for doc in docs]


def adamw(**settings: float) -> Optimizer:
    return spacy.registry.optimizers.get("spacy-qlora.AdamW.v1")(**settings)


def riddles(nlp: Language, seed: int, count: int) -> list[Example]:
    """Texts in which the tag of a word is told by the one before it alone."""
    chance, found = random.Random(seed), []
    for _ in range(count):
        words = chance.choices(["pain", "cough", "fever", "aspirin", "metformin", "lisinopril"], k=6)
        tags = ["START", *("DRUG" if len(word) > 6 or word == "aspirin" else "SYMPTOM" for word in words)]
        found.append(Example.from_dict(nlp.make_doc(" ".join(words)), {"tags": tags[:6]}))
    return found


def accuracy(nlp: Language, optimizer: Optimizer) -> float:
    """After 48 steps, on texts that were not trained on."""
    torch.manual_seed(0)
    np.random.seed(0)
    train = riddles(nlp, 1, 48)
    nlp.initialize(lambda: train)
    for i in range(48):
        nlp.update(train[i % 3 :: 3], sgd=optimizer)
    return nlp.evaluate(riddles(nlp, 2, 24))["tag_acc"]


# What they see


def states(nlp: Language, text: str) -> np.ndarray:
    return nlp(text)._.trf_data.tensors[0]


def test_batches_and_company_change_no_state(make: Make) -> None:
    nlp = make()
    nlp.initialize(lambda: examples(nlp))
    for batch_pieces in (1, 20, 2048):
        object.__setattr__(model_of(nlp).shim.adapted.settings, "batch_pieces", batch_pieces)
        for doc in nlp.pipe(TEXTS, batch_size=3):
            alone, data = states(nlp, doc.text), doc._.trf_data
            count = data.wordpieces.lengths[0]
            assert alone.shape[:2] == (1, count)
            np.testing.assert_allclose(data.tensors[0][:, :count], alone, atol=1e-5)
            assert not data.tensors[0][:, count:].any()


def test_a_text_of_any_length_is_read_to_its_end(make: Make) -> None:
    nlp = make(max_pieces=16, overlap=8)
    nlp.initialize(lambda: examples(nlp))
    doc = nlp(" ".join(TEXTS) * 50)
    data = doc._.trf_data
    assert data.wordpieces.lengths[0] > 1000
    assert [count > 0 for count in data.align.lengths] == [not token.is_space for token in doc]
    assert (np.abs(data.tensors[0][0]).sum(1) > 0).all()
    assert all(tag for tag in tags([doc])[0])


def test_odd_docs(make: Make) -> None:
    """Empty ones and blanks, alone, together and in training."""
    nlp = make()
    optimizer = nlp.initialize(lambda: examples(nlp))
    found = list(nlp.pipe(ODD))
    assert [len(row) for row in tags(found)] == [len(nlp.make_doc(text)) for text in ODD]
    assert tags([nlp(text) for text in ODD]) == tags(found)
    blank = [Example.from_dict(nlp.make_doc(text), {}) for text in ("", " \n ")]
    nlp.update(blank, sgd=optimizer)
    nlp.update([*examples(nlp), *blank], sgd=optimizer)
    nlp.update(blank[:1], sgd=optimizer)


def test_two_processes_find_the_same(make: Make) -> None:
    nlp = make()
    nlp.initialize(lambda: examples(nlp))
    assert tags(list(nlp.pipe(TEXTS, n_process=2, batch_size=2))) == tags(list(nlp.pipe(TEXTS)))


# How they learn


@pytest.mark.parametrize(
    "optimizer", [lambda: adamw(adapter_lr=3e-3, learn_rate=1e-2), lambda: Adam(3e-3)], ids=["adamw", "adam"]
)
def test_the_adapter_learns_what_a_frozen_base_does_not_tell(make: Make, optimizer: Callable[[], Optimizer]) -> None:
    adapted, frozen = accuracy(make(r=16, alpha=32.0), optimizer()), accuracy(make(grad_factor=0.0), optimizer())
    assert adapted > 0.9
    assert frozen < 0.8


def test_a_step_waits_for_the_listeners_and_takes_their_gradients(make: Make) -> None:
    """`nlp.update` asks for it before they have learned; `spacy train` after."""
    found = []
    for at_once in (True, False):
        nlp, optimizer = make(), adamw(adapter_lr=1e-3)
        torch.manual_seed(0)
        np.random.seed(0)
        nlp.initialize(lambda nlp=nlp: examples(nlp))
        for _ in range(3):
            nlp.update(examples(nlp), sgd=optimizer if at_once else False)
            if not at_once:
                for _, pipe in nlp.pipeline:
                    pipe.finish_update(optimizer)
        found.append(model_of(nlp).shim.adapted.encoder.trained()[0])
    assert any(weight.any() for name, weight in found[0].items() if "lora_B" in name)
    for name, weight in found[0].items():
        torch.testing.assert_close(found[1][name], weight)


def test_states_that_bring_no_gradients_lose_no_step(make: Make) -> None:
    """As from a batch in which no text has what the listeners learn."""
    nlp, optimizer = make(), adamw(adapter_lr=1e-3)
    nlp.initialize(lambda: examples(nlp))
    shim = model_of(nlp).shim
    encodings = shim.adapted.encode([nlp.make_doc(TEXTS[0])])
    states, backward = shim.read(encodings, train=True)
    backward(torch.ones_like(states))
    before = shim.adapted.encoder.trained()[0]
    shim.read(encodings, train=True)
    shim.finish_update(optimizer)
    shim.read(encodings, train=True)
    after = shim.adapted.encoder.trained()[0]
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_an_optimizers_averages(make: Make) -> None:
    nlp, optimizer = make(), Adam(0.01, use_averages=True)
    nlp.initialize(lambda: examples(nlp))
    for _ in range(3):
        nlp.update(examples(nlp), sgd=optimizer)
    before = model_of(nlp).shim.adapted.encoder.trained()[0]
    assert optimizer.averages is not None
    with nlp.use_params(optimizer.averages):
        within = model_of(nlp).shim.adapted.encoder.trained()[0]
    for name, weight in before.items():
        assert torch.equal(model_of(nlp).shim.adapted.encoder.adapter[name], weight)
        average = optimizer.averages[model_of(nlp).shim.id, name]
        assert torch.equal(within[name], torch.from_numpy(average))
        assert not torch.equal(within[name], weight)


def test_a_frozen_transformer_serves_from_the_docs(make: Make) -> None:
    nlp, optimizer = make(), adamw(learn_rate=1e-2)
    nlp.initialize(lambda: examples(nlp))
    before = model_of(nlp).shim.adapted.encoder.trained()[0]
    losses: list[float] = []
    for _ in range(5):
        given = examples(nlp)
        for example in given:
            example.predicted = nlp.get_pipe("transformer")(example.predicted)
        losses.append(nlp.update(given, sgd=optimizer, exclude=["transformer"])["tagger"])
    assert losses[-1] < losses[0]
    after = model_of(nlp).shim.adapted.encoder.adapter
    assert all(torch.equal(after[name], weight) for name, weight in before.items())


# The company they keep


def test_the_base_is_one_with_that_of_qlora_ner(make: Make, trained: Path) -> None:
    nlp = make(compute_dtype="bfloat16")
    nlp.initialize(lambda: examples(nlp))
    config = {"components.qlora_ner.compute_dtype": "bfloat16"}
    nlp.add_pipe("qlora_ner", source=spacy.load(trained, config=config), first=True)
    doc = nlp("History of asthma.")
    assert [ent.text for ent in doc.ents] == ["asthma"]
    assert doc[0].tag_
    assert nlp.get_pipe("qlora_ner").model.classifier.base is model_of(nlp).shim.adapted.encoder.base


def test_a_listener_that_joins_a_loaded_pipeline(make: Make, tmp_path: Path) -> None:
    nlp = make()
    nlp.initialize(lambda: examples(nlp))
    nlp.to_disk(tmp_path)
    loaded = spacy.load(tmp_path)
    add_tagger(loaded, "other")
    with loaded.select_pipes(enable="other"):
        loaded.initialize(lambda: examples(loaded))
    assert loaded(TEXTS[0])[0].tag_


def test_listeners_cannot_be_replaced_by_copies(make: Make) -> None:
    nlp = make()
    nlp.initialize(lambda: examples(nlp))
    with pytest.raises(RunError, match=r"Q701.*replace_listeners"):
        nlp.replace_listeners("transformer", "tagger", ["model.tok2vec"])
