from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spacy_qlora.engine.base import load_base
from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.loop import Loop
from spacy_qlora.engine.memory import Job, Shape
from spacy_qlora.engine.plan import fit
from spacy_qlora.engine.progress import Hooks, Progress, Schedule, StopRun
from spacy_qlora.engine.settings import ClassifierSettings, LoopSettings, LoRASettings, OptimizerSettings, read_size
from spacy_qlora.engine.window import Window
from spacy_qlora.errors import InputError, RunError

CPU = torch.device("cpu")
GIB = 2**30
SMALL = Job(Shape(30, 576, 9, 576, 192, 1536, 49152), ClassifierSettings(LoRASettings(dropout=0.1)), 9, 1536, 128, 1000)
LARGE = Job(Shape(32, 4096, 32, 4096, 1024, 14336, 32768), SMALL.settings, 9, 2048, 512, 1500, device="cuda")


@pytest.mark.parametrize(
    ("job", "budget"), [(SMALL, 1.1), (SMALL, 1.5), (SMALL, 4), (LARGE, 5.5), (LARGE, 8), (LARGE, 40)]
)
def test_a_plan_fits_and_does_the_whole_step(job: Job, budget: float) -> None:
    planned, micro = fit(job, 2, int(budget * GIB))
    assert planned.total() <= budget * GIB
    assert planned.pieces >= job.length
    assert planned.pieces * micro >= job.pieces * 2
    assert (planned.settings, planned.shape, planned.tags) == (job.settings, job.shape, job.tags)


def test_more_memory_costs_less_time() -> None:
    plans = [fit(LARGE, 1, size * GIB)[0] for size in (6, 8, 12, 24, 80)]
    assert plans == sorted(plans, key=lambda job: (-job.checkpointed, job.resident))
    assert (plans[-1].checkpointed, plans[-1].resident, plans[-1].eight_bit) == (0, 32, False)
    assert plans[0].checkpointed > 0


def test_eight_bits_where_nothing_else_fits() -> None:
    least = min(fit(LARGE, 1, size * 2**20)[0].total() for size in range(5200, 6000, 100) if _fits(size * 2**20))
    assert fit(LARGE, 1, least)[0].eight_bit


def _fits(budget: int) -> bool:
    try:
        return bool(fit(LARGE, 1, budget))
    except InputError:
        return False


def test_the_least_that_is_named_is_enough() -> None:
    with pytest.raises(InputError, match=r"\[Q414\] 1,024 MiB: too little memory") as raised:
        fit(LARGE, 1, GIB)
    least = int(str(raised.value.where["least"]).split()[0].replace(",", ""))
    fit(LARGE, 1, (least + 1) * 2**20)


@pytest.mark.parametrize(
    ("text", "size"), [("8GiB", 8 * GIB), ("7.5 GiB", 7.5 * GIB), ("900MB", 9e8), (" 512MiB", 2**29), ("1GB", 1e9)]
)
def test_sizes(text: str, size: float) -> None:
    assert read_size(text) == size


@pytest.mark.parametrize("text", ["", "8", "0GiB", "8 gigabytes", "-8GiB", "8KiB", "GiB", "8GiB or so"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(InputError, match=r"\[Q210\] memory"):
        read_size(text)


def windows() -> list[Window]:
    random, places = np.random.default_rng(0), np.arange(7)
    return [Window(random.integers(2, 320, 7), places, places, random.integers(0, 5, 7)) for _ in range(12)]


def make_loop(base: Path, folder: Path, **settings: object) -> Loop:
    classifier = TokenClassifier(load_base(base, CPU, torch.float32), 5, ClassifierSettings(LoRASettings(r=4)))
    settings = {"batch_pieces": 32, **settings}
    return Loop(classifier, windows(), LoopSettings(**settings), OptimizerSettings(), Schedule(max_epochs=2), folder)


def trained(loop: Loop) -> list[torch.Tensor]:
    loop.run(Hooks(evaluate=lambda: 0.0))
    return [parameter.detach() for _, parameter in loop.classifier.named_trained()]


def test_a_loop_keeps_to_its_budget(base: Path, tmp_path: Path) -> None:
    expected = trained(make_loop(base, tmp_path / "one"))
    whole = make_loop(base, tmp_path / "two", memory_budget="64GiB")
    assert (whole.settings.batch_pieces, whole.settings.accumulate, whole.classifier.checkpointed) == (32, 1, 0)
    assert not whole.job.eight_bit
    for one, other in zip(trained(whole), expected, strict=True):
        torch.testing.assert_close(one, other)
    least = replace(whole.job, pieces=8, checkpointed=3, resident=0, words=7, eight_bit=True)
    small = make_loop(base, tmp_path / "three", memory_budget=f"{least.total() / 1e6 + 0.001:.3f}MB")
    try:
        assert (small.settings.batch_pieces, small.settings.accumulate) == (8, 4)
        assert small.job == least
        assert small.classifier.checkpointed == 3
        assert not any(hasattr(leaf, "resident") for leaf in small.classifier.base.leaves.values())
        trained(small)
    finally:
        small.classifier.base.keep_resident(3)


@pytest.mark.parametrize(("over", "backs_off"), [(0, False), (1, True)])
def test_cached_states_are_no_memory_of_the_run(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over: int, backs_off: bool
) -> None:
    """The system can take their pages back, but counts them in a process's peak."""
    loop = make_loop(base, tmp_path, memory_budget="64GiB")
    states = [torch.zeros(length, 64) for length in loop.classifier.lengths(loop.windows)]
    loop.windows = [replace(window, states=part) for window, part in zip(loop.windows, states, strict=True)]
    peak = loop.budget + 4 * 64 * sum(map(len, states)) + over
    before = iter([loop.budget])
    monkeypatch.setattr("spacy_qlora.engine.loop.peak_memory", lambda device: next(before, peak))
    trained(loop)
    assert loop.progress.backed_off == backs_off


def test_what_came_before_training_halves_no_steps(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as quantising the base, which only the first run does."""
    loop = make_loop(base, tmp_path, memory_budget="64GiB")
    monkeypatch.setattr("spacy_qlora.engine.loop.peak_memory", lambda device: loop.budget + 1)
    trained(loop)
    assert not loop.progress.backed_off


def test_a_budget_with_room_changes_no_step(base: Path, tmp_path: Path) -> None:
    """Also where a window is longer than a micro-batch."""
    loops = [make_loop(base, tmp_path / str(budget), batch_pieces=5, memory_budget=budget) for budget in (None, "9GiB")]
    assert loops[0].job.pieces > 5
    assert loops[0]._plan(0) == loops[1]._plan(0)


def test_what_an_evaluation_takes_halves_no_steps(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = make_loop(base, tmp_path, memory_budget="64GiB")
    peak = loop.budget
    monkeypatch.setattr("spacy_qlora.engine.loop.peak_memory", lambda device: peak)

    def evaluate() -> float:
        nonlocal peak
        peak += 1
        return 0.0

    def on_step(progress: Progress) -> None:
        nonlocal peak
        peak += progress.step == 5

    loop.run(Hooks(evaluate, on_step=lambda progress: None))
    assert not loop.progress.backed_off
    other = make_loop(base, tmp_path / "other", memory_budget="64GiB")
    other.run(Hooks(evaluate, on_step=on_step))
    assert other.progress.backed_off


def test_a_loop_that_runs_out_of_memory_once_goes_on_in_halves(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = trained(make_loop(base, tmp_path / "one"))
    loop = make_loop(base, tmp_path / "two")
    budgets: list[int] = []
    whole = loop.classifier.accumulate

    def too_much(texts: list[Window], budget: int) -> tuple[float, int]:
        budgets.append(budget)
        if budget > 16:
            whole(texts[:1], budget)
            raise torch.OutOfMemoryError
        return whole(texts, budget)

    monkeypatch.setattr(loop.classifier, "accumulate", too_much)
    for one, other in zip(trained(loop), expected, strict=True):
        torch.testing.assert_close(one, other)
    assert budgets == [32] + [16] * (len(budgets) - 1)
    assert loop.progress.backed_off
    assert loop.classifier.checkpointed == 3


LIMITED = """
import resource, sys
from pathlib import Path
from tests.engine.test_plan import make_loop, trained, windows

base, folder, limit = sys.argv[1:]
loop = make_loop(Path(base), Path(folder), batch_pieces=60_000)
loop.windows = windows() * 500
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(limit) * 2**20, resource.RLIM_INFINITY))
weights = trained(loop)
print(loop.progress.backed_off, float(sum(weight.abs().sum() for weight in weights)))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_system_runs_out_of_memory(base: Path, tmp_path: Path) -> None:
    """Nothing simulated: within 400 MiB the steps are done in halves, within 60 they are not, and it says so."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}

    def run(limit: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", LIMITED, base, tmp_path / str(limit), str(limit)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    done = [run(limit).stdout.split() for limit in (2000, 400)]
    assert [backed_off for backed_off, _ in done] == ["False", "True"]
    assert float(done[0][1]) == pytest.approx(float(done[1][1]), rel=1e-5)
    assert "[Q415] step 1" in run(60).stderr


def test_a_run_that_backed_off_goes_on_in_halves(base: Path, tmp_path: Path) -> None:
    loop = make_loop(base, tmp_path)
    loop._back_off()

    def stop(progress: Progress) -> None:
        raise StopRun

    with pytest.raises(StopRun):
        loop.run(Hooks(lambda: 0.0, on_step=stop))
    again, budgets = make_loop(base, tmp_path), []
    assert again.classifier.checkpointed == 0
    assert again.resume()
    assert again.classifier.checkpointed == 3
    whole = again.classifier.accumulate
    again.classifier.accumulate = lambda texts, budget: (budgets.append(budget), whole(texts, budget))[1]  # type: ignore
    for one, other in zip(trained(again), trained(make_loop(base, tmp_path / "one")), strict=True):
        torch.testing.assert_close(one, other)
    assert set(budgets) == {16}


def test_a_loop_that_runs_out_of_memory_twice_says_so(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_loop(base, tmp_path)

    def too_much(texts: list[Window], budget: int) -> tuple[float, int]:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(loop.classifier, "accumulate", too_much)
    with pytest.raises(RunError, match=r"\[Q415\] step 1"):
        trained(loop)
