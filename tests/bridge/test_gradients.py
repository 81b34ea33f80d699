"""What the adapter learns from its listeners, against plain autograd through transformers and peft."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from spacy.language import Language
from torch import Tensor

from spacy_qlora.engine.lora import save_adapter
from spacy_qlora.text.alignment import encode_docs
from tests.bridge.conftest import TEXTS, Make, examples
from tests.conftest import stock_4bit
from tests.text.test_alignment import pieces_by_definition

pytest.importorskip("spacy_transformers")


def set_adapter(nlp: Language) -> dict[str, Tensor]:
    """Takes the adapter away from zero. RETURNS: Its weights by peft's names."""
    encoder = nlp.get_pipe("transformer").model.shim.adapted.encoder
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in encoder.adapter.items():
            if "lora_B" in name:
                weight.normal_(std=0.1, generator=generator)
    return encoder.adapter


def through_a_listener(nlp: Language, weights: list[np.ndarray]) -> float:
    """The loss is the sum of a listener's outputs, each times its weight. RETURNS: It; its gradients stay."""
    given = examples(nlp)
    nlp.get_pipe("transformer").update(given)
    outputs, backprop = nlp.get_pipe("tagger").model.get_ref("tok2vec").begin_update([eg.predicted for eg in given])
    backprop([weight.copy() for weight in weights])
    return sum(float((output * weight).sum()) for output, weight in zip(outputs, weights, strict=True))


def by_autograd(nlp: Language, weights: list[np.ndarray], base: Path, folder: Path) -> tuple[float, dict[str, Tensor]]:
    """The same, text by text, with the mean over a token's pieces taken by definition."""
    adapted = nlp.get_pipe("transformer").model.shim.adapted
    save_adapter(folder, adapted.settings.classifier, adapted.trained[0], adapted.trained_on)
    model = PeftModel.from_pretrained(stock_4bit(base), folder, is_trainable=True)
    loss = torch.zeros(())
    for doc, weight in zip(map(nlp.make_doc, TEXTS), weights, strict=True):
        [encoding] = encode_docs(adapted.tokenizer, [doc])
        ids = torch.tensor([[0, *encoding.ids]])
        states = model(input_ids=ids, use_cache=False).last_hidden_state[0, 1:]
        for row, pieces in zip(torch.from_numpy(weight), pieces_by_definition(doc, encoding.offsets), strict=True):
            if pieces:
                loss = loss + (states[pieces].mean(0) * row).sum()
    loss.backward()
    named = {name.replace(".default.", "."): value.grad for name, value in model.named_parameters()}
    return float(loss.detach()), named


@pytest.mark.parametrize("settings", [{}, {"batch_pieces": 16}, {"checkpointing": True}], ids=str)
def test_gradients_are_those_of_autograd(make: Make, base: Path, tmp_path: Path, settings: dict) -> None:
    """To 1e-5 of each gradient's norm, in float32: in one batch, in several, and with each layer computed twice."""
    nlp = make(bidirectional_from=None, **settings)
    nlp.initialize(lambda: examples(nlp))
    adapter = set_adapter(nlp)
    random = np.random.default_rng(0)
    weights = [random.standard_normal((len(nlp.make_doc(text)), 64)).astype(np.float32) for text in TEXTS]
    found, (expected, gradients) = through_a_listener(nlp, weights), by_autograd(nlp, weights, base, tmp_path)
    assert found == pytest.approx(expected, rel=1e-5)
    assert len(adapter) == 2 * 3 * 7
    for name, weight in adapter.items():
        assert float((weight.grad - gradients[name]).norm() / gradients[name].norm()) < 1e-5, name


def test_a_text_of_several_windows(make: Make) -> None:
    """A step along the gradient changes the loss by as much as the gradient says."""
    nlp = make(max_pieces=8, overlap=4)
    nlp.initialize(lambda: examples(nlp))
    adapter = set_adapter(nlp)
    random = np.random.default_rng(0)
    weights = [random.standard_normal((len(nlp.make_doc(text)), 64)).astype(np.float32) for text in TEXTS]
    through_a_listener(nlp, weights)
    norm = torch.cat([weight.grad.flatten() for weight in adapter.values()]).norm()
    losses = []
    for sign in (1, -2):
        with torch.no_grad():
            for weight in adapter.values():
                weight.add_(weight.grad / norm, alpha=sign * 1e-3)
        before = {name: weight.grad.clone() for name, weight in adapter.items()}
        losses.append(through_a_listener(nlp, weights))
        for name, weight in adapter.items():
            weight.grad = before[name]
    assert (losses[0] - losses[1]) / 2e-3 == pytest.approx(float(norm), rel=1e-3)


def test_listeners_add_up(make: Make) -> None:
    from tests.bridge.conftest import add_tagger

    alone, both = make(), make()
    add_tagger(both, "other")
    gradients = []
    for nlp in (alone, both):
        torch.manual_seed(0)
        nlp.initialize(lambda nlp=nlp: examples(nlp))
        adapter = set_adapter(nlp)
        given = examples(nlp)
        nlp.get_pipe("transformer").update(given)
        for name in nlp.pipe_names[1:]:
            docs = [example.predicted for example in given]
            outputs, backprop = nlp.get_pipe(name).model.get_ref("tok2vec").begin_update(docs)
            backprop([np.ones_like(output) for output in outputs])
        gradients.append({name: weight.grad for name, weight in adapter.items()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], 2 * gradient)


def test_a_listener_with_a_factor_of_zero_leaves_the_adapter_as_it_is(make: Make) -> None:
    nlp = make(grad_factor=0.0)
    optimizer = nlp.initialize(lambda: examples(nlp))
    before = {name: weight.detach().clone() for name, weight in set_adapter(nlp).items()}
    optimizer.L2 = 0.0
    nlp.update(examples(nlp), sgd=optimizer)
    after = nlp.get_pipe("transformer").model.shim.adapted.encoder.adapter
    assert all(torch.equal(before[name], weight) for name, weight in after.items())
