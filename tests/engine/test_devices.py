"""What holds on a GPU too, besides the exactness that test_exact.py holds on both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch

from spacy_qlora.engine.base import load_base
from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.loop import Loop
from spacy_qlora.engine.memory import SLACK, forget_peak
from spacy_qlora.engine.progress import Hooks, Progress, Schedule, StopRun
from spacy_qlora.engine.settings import ClassifierSettings, LoopSettings, LoRASettings, OptimizerSettings
from spacy_qlora.engine.window import Window

TAGS = 5


def make(base: Path, device: torch.device) -> TokenClassifier:
    loaded = load_base(base, device, torch.bfloat16)
    return TokenClassifier(loaded, TAGS, ClassifierSettings(LoRASettings(r=8, dropout=0.1)), seed=3)


def make_loop(classifier: TokenClassifier, folder: Path) -> Loop:
    random, windows = np.random.default_rng(0), []
    for length in (20, 7, 310, 12, 300, 25):
        places = np.arange(0, length, 2)
        tags = random.integers(0, TAGS, len(places))
        windows.append(Window(random.integers(2, 320, length), places, np.arange(len(places)), tags))
    return Loop(
        classifier, windows, LoopSettings(batch_pieces=350), OptimizerSettings(), Schedule(max_epochs=2), folder
    )


@pytest.fixture
def in_fixed_order(device: torch.device) -> Iterator[None]:
    """On a GPU, the gradients of fused attention are added up in any order otherwise; a CPU needs no telling."""
    torch.use_deterministic_algorithms(device.type == "cuda")
    yield
    torch.use_deterministic_algorithms(False)


def test_first_weights_are_those_of_a_cpu(base: Path, device: torch.device) -> None:
    own, other = (make(base, place).trained() for place in (device, torch.device("cpu")))
    torch.testing.assert_close(own, other, atol=0, rtol=0)


def test_windows_are_predicted_as_on_a_cpu(base: Path, device: torch.device) -> None:
    own, other = (make(base, place) for place in (device, torch.device("cpu")))
    windows = make_loop(own, Path()).windows
    for row, wanted in zip(own.predict(windows, 350), other.predict(windows, 350), strict=True):
        assert np.linalg.norm(row - wanted) <= 2e-2 * np.linalg.norm(wanted)


@pytest.mark.parametrize("checkpointed", [0, 1])
@pytest.mark.parametrize("changed", [{}, {"bidirectional_from": None}, {"adapted_layers": 1}])
def test_nothing_stays_on_the_cpu(
    base: Path, checkpointed: int, changed: dict[str, int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By "meta", which works out shapes alone: most operations refuse a CPU's tensors beside it, as on a GPU."""
    # transformers 4 turns autocast off around the rotary embedding; "meta" has none.
    monkeypatch.setattr(torch, "autocast", lambda **_: nullcontext())
    meta = torch.device("meta")
    settings = ClassifierSettings(LoRASettings(r=8, dropout=0.1), **changed)
    classifier = TokenClassifier(load_base(base, meta, torch.bfloat16), TAGS, settings)
    batch = classifier.collate(make_loop(make(base, torch.device("cpu")), Path()).windows)
    classifier.checkpointed = checkpointed
    classifier.train().loss(batch).backward()
    assert all(parameter.grad.device == meta for _, parameter in classifier.named_trained())
    with torch.no_grad():
        assert classifier.eval()(batch).device == meta


@pytest.mark.usefixtures("in_fixed_order")
def test_a_run_that_was_stopped_ends_as_one_that_was_not(base: Path, device: torch.device, tmp_path: Path) -> None:
    def stop(progress: Progress) -> None:
        raise StopRun

    whole = make_loop(make(base, device), tmp_path / "whole")
    whole.run(Hooks(lambda: 0.0))
    with pytest.raises(StopRun):
        make_loop(make(base, device), tmp_path / "stopped").run(Hooks(lambda: 0.0, on_step=stop))
    resumed = make_loop(make(base, device), tmp_path / "stopped")
    resumed.resume()
    resumed.run(Hooks(lambda: 0.0))
    torch.testing.assert_close(resumed.classifier.trained(), whole.classifier.trained(), atol=0, rtol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_holds_no_more_than_planned(base: Path, tmp_path: Path) -> None:
    """Beside what is loaded, and the workspaces that the first products take."""
    loop = make_loop(make(base, torch.device("cuda")), tmp_path)
    device, items = loop.classifier.device, loop.job.items()
    loop.classifier.accumulate(loop.windows, 350)
    loop.optimizer.adamw.zero_grad()
    forget_peak(device)
    loaded = torch.cuda.memory_allocated(device)
    loop.run(Hooks(lambda: 0.0))
    names = (
        "their gradients", "the optimizer's moments", "activations", "checkpoints", "one layer at a time",
        "dequantised for one product",
    )  # fmt: skip
    assert 0 < torch.cuda.max_memory_allocated(device) - loaded <= sum(items[name] for name in names) * (1 + SLACK)
