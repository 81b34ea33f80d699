from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file

from spacy_qlora.engine.base import load_base
from spacy_qlora.engine.checkpoint import BEFORE, FILE
from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.loop import Loop
from spacy_qlora.engine.optimizer import AdapterOptimizer
from spacy_qlora.engine.progress import Hooks, Progress, Schedule, StopRun
from spacy_qlora.engine.settings import ClassifierSettings, LoopSettings, LoRASettings, OptimizerSettings
from spacy_qlora.engine.window import Window
from spacy_qlora.errors import InputError

LORA = LoRASettings(r=4, dropout=0.1)
EPOCHS = Schedule(max_epochs=3, seed=7)
BY_PIECES, BY_TEXTS = LoopSettings(batch_pieces=40, accumulate=2), LoopSettings(batch_size=3, batch_pieces=40)
RATES = OptimizerSettings(adapter_lr=3e-3, head_lr=1e-2)


def make_windows() -> list[Window]:
    random = np.random.default_rng(1)
    lengths = random.integers(3, 16, 12)
    return [Window(random.integers(2, 320, n), np.arange(n), np.arange(n), random.integers(0, 5, n)) for n in lengths]


def make_loop(
    base: Path,
    folder: Path,
    dtype: torch.dtype = torch.bfloat16,
    settings: LoopSettings = BY_PIECES,
    schedule: Schedule = EPOCHS,
    rates: OptimizerSettings = RATES,
    lora: LoRASettings = LORA,
    tags: int = 5,
) -> Loop:
    loaded = load_base(base, torch.device("cpu"), dtype)
    classifier = TokenClassifier(loaded, tags, ClassifierSettings(lora), seed=schedule.seed)
    return Loop(classifier, make_windows(), settings, rates, schedule, folder)


def interrupt() -> None:
    raise KeyboardInterrupt


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def run(loop: Loop, stop_at: int = 0, stop: Callable[[], None] = interrupt) -> Progress:
    """stop_at: The step after which the run is broken off."""

    def evaluate() -> float:
        scores = loop.classifier.predict(loop.windows, budget=64)
        right = [row.argmax(-1) == window.tags for row, window in zip(scores, loop.windows, strict=True)]
        return float(np.mean(np.concatenate(right)))

    def on_step(progress: Progress) -> None:
        if progress.step == stop_at:
            stop()

    return loop.run(Hooks(evaluate, on_step=on_step))


def trained(loop: Loop) -> bytes:
    adapter, head = loop.classifier.trained()
    return save(adapter) + save(head)


@pytest.mark.parametrize("settings", [BY_PIECES, BY_TEXTS], ids=["pieces", "texts"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_resumed_run_ends_as_if_nothing_had_happened(
    base: Path, tmp_path: Path, dtype: torch.dtype, settings: LoopSettings
) -> None:
    undisturbed = make_loop(base, tmp_path / "one", dtype, settings)
    expected = run(undisturbed)
    per_epoch = undisturbed.total_steps // 3
    stopped = make_loop(base, tmp_path / "two", dtype, settings)
    with pytest.raises(KeyboardInterrupt):
        run(stopped, stop_at=per_epoch + 2)  # the second step after an evaluation, so one is done twice
    torch.manual_seed(99)
    resumed = make_loop(base, tmp_path / "two", dtype, settings)
    resumed.resume()
    assert (resumed.progress.epoch, resumed.progress.step) == (1, per_epoch)
    found = run(resumed)
    assert trained(resumed) == trained(undisturbed)
    assert replace(found, seconds=0, rate=0) == replace(expected, seconds=0, rate=0)


def test_moments_of_8_bits_are_resumed_too(base: Path, tmp_path: Path) -> None:
    settings, lora = replace(BY_PIECES, memory_budget="64GiB"), replace(LORA, r=64)

    def make(folder: str) -> Loop:
        loop = make_loop(base, tmp_path / folder, settings=settings, lora=lora)
        loop.optimizer = AdapterOptimizer(loop.classifier, RATES, loop.total_steps, eight_bit=True)
        return loop

    undisturbed = make("one")
    run(undisturbed)
    moments = undisturbed.optimizer.adamw.state.values()
    assert {state["state1"].dtype for state in moments} == {torch.uint8, torch.float32}  # small ones stay as they were
    stopped = make("two")
    with pytest.raises(KeyboardInterrupt):
        run(stopped, stop_at=stopped.total_steps - 1)
    resumed = make("two")
    resumed.resume()
    run(resumed)
    assert trained(resumed) == trained(undisturbed)


def test_resuming_within_an_epoch(base: Path, tmp_path: Path) -> None:
    schedule = replace(EPOCHS, eval_frequency=2)
    undisturbed = make_loop(base, tmp_path / "one", settings=BY_TEXTS, schedule=schedule)
    run(undisturbed)
    with pytest.raises(KeyboardInterrupt):
        run(make_loop(base, tmp_path / "two", settings=BY_TEXTS, schedule=schedule), stop_at=7)
    resumed = make_loop(base, tmp_path / "two", settings=BY_TEXTS, schedule=schedule)
    resumed.resume()
    assert (resumed.progress.epoch, resumed.progress.position, resumed.progress.step) == (1, 2, 6)
    run(resumed)
    assert trained(resumed) == trained(undisturbed)


def stop() -> None:
    raise StopRun


@pytest.mark.parametrize("step", [1, 4, 6])  # the last of an epoch among them
def test_a_run_stopped_at_a_step_goes_on_from_it(base: Path, tmp_path: Path, step: int) -> None:
    undisturbed = make_loop(base, tmp_path / "one")
    expected = run(undisturbed)
    with pytest.raises(StopRun):
        run(make_loop(base, tmp_path / "two"), stop_at=step, stop=stop)
    resumed = make_loop(base, tmp_path / "two")
    assert resumed.resume()
    assert resumed.progress.step == step
    assert replace(run(resumed), seconds=0, rate=0) == replace(expected, seconds=0, rate=0)
    assert trained(resumed) == trained(undisturbed)


def test_a_run_stopped_in_an_evaluation_makes_it_again(base: Path, tmp_path: Path) -> None:
    loop = make_loop(base, tmp_path)
    with pytest.raises(StopRun):
        loop.run(Hooks(evaluate=stop))  # type: ignore[arg-type]
    resumed = make_loop(base, tmp_path)
    resumed.resume()
    assert resumed.progress.due
    steps: list[int] = []
    resumed.run(Hooks(lambda: 0.5, lambda progress, best: steps.append(progress.step)))
    per_epoch = loop.total_steps // 3
    assert steps == [per_epoch, 2 * per_epoch, 3 * per_epoch]


def test_the_state_is_saved_by_the_clock_too(base: Path, tmp_path: Path) -> None:
    settings = replace(BY_PIECES, checkpoint_minutes=1e-9)
    undisturbed = make_loop(base, tmp_path / "one", settings=settings)
    run(undisturbed)
    with pytest.raises(KeyboardInterrupt):
        run(make_loop(base, tmp_path / "two", settings=settings), stop_at=2)
    resumed = make_loop(base, tmp_path / "two")  # how often it is saved may change
    resumed.resume()
    assert resumed.progress.step == 1
    run(resumed)
    assert trained(resumed) == trained(undisturbed)


@pytest.mark.parametrize("left", [None, 0, 1000])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(base: Path, tmp_path: Path, left: int | None) -> None:
    """left: Bytes of the latest; None where the run was killed between two renames."""
    undisturbed = make_loop(base, tmp_path)
    run(undisturbed)
    if left is None:
        (tmp_path / FILE).unlink()
    else:
        (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:left])
    resumed = make_loop(base, tmp_path)
    assert not resumed.resume()
    assert resumed.progress.epoch == 2
    run(resumed)
    assert trained(resumed) == trained(undisturbed)


def test_the_seed_decides_everything(base: Path, tmp_path: Path) -> None:
    found = []
    for seed in (7, 7, 8):
        torch.manual_seed(len(found))
        loop = make_loop(base, tmp_path, schedule=replace(EPOCHS, seed=seed))
        run(loop)
        found.append(trained(loop))
    assert found[0] == found[1] != found[2]


def test_a_finished_run_is_not_trained_further(base: Path, tmp_path: Path) -> None:
    loop = make_loop(base, tmp_path)
    run(loop)
    resumed = make_loop(base, tmp_path)
    resumed.resume()
    assert run(resumed, stop_at=loop.total_steps + 1).step == loop.total_steps
    assert trained(resumed) == trained(loop)


def test_the_schedule_of_rates_goes_on(base: Path, tmp_path: Path) -> None:
    stopped = make_loop(base, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run(stopped, stop_at=stopped.total_steps // 3 + 1)
    resumed = make_loop(base, tmp_path)
    resumed.resume()
    factor = RATES.factor(resumed.progress.step, resumed.total_steps)
    rates = [group["lr"] for group in resumed.optimizer.adamw.param_groups]
    assert rates == pytest.approx([3e-3 * factor, 1e-2 * factor])


def killed_run(base: str, folder: str, threads: str) -> None:
    """For the process that the next test starts."""
    torch.set_num_threads(int(threads))
    loop = make_loop(Path(base), Path(folder))
    run(loop, stop_at=loop.total_steps // 3 + 2, stop=kill)


def test_a_killed_run_resumes_to_the_same_bytes(base: Path, tmp_path: Path) -> None:
    undisturbed = make_loop(base, tmp_path / "one")
    run(undisturbed)
    program = "import runpy, sys; runpy.run_path(sys.argv[1])['killed_run'](*sys.argv[2:])"
    arguments = [__file__, str(base), str(tmp_path / "two"), str(torch.get_num_threads())]
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    resumed = make_loop(base, tmp_path / "two")
    resumed.resume()
    assert 0 < resumed.progress.step < resumed.total_steps
    run(resumed)
    assert trained(resumed) == trained(undisturbed)


# What is not a checkpoint of this run.


@pytest.fixture(scope="module")
def finished(base: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("finished")
    run(make_loop(base, folder))
    assert sorted(path.name for path in folder.iterdir()) == sorted([BEFORE, FILE])
    return (folder / FILE).read_bytes()


def test_no_checkpoint(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Q403"):
        make_loop(base, tmp_path / "nothing").resume()


def test_half_a_checkpoint_is_none(base: Path, tmp_path: Path, finished: bytes) -> None:
    """A run that was killed while it wrote its first one."""
    (tmp_path / f"{FILE}.part").write_bytes(finished[:1000])
    with pytest.raises(InputError, match="Q403"):
        make_loop(base, tmp_path).resume()


@pytest.mark.parametrize("size", [0, 5, 1000, -1])
def test_a_cut_checkpoint_is_refused(base: Path, tmp_path: Path, finished: bytes, size: int) -> None:
    (tmp_path / FILE).write_bytes(finished[:size])
    with pytest.raises(InputError, match="Q404"):
        make_loop(base, tmp_path).resume()


@pytest.mark.parametrize("metadata", [None, {"fixed": "{}"}, {"fixed": "{", "progress": "{}"}], ids=str)
def test_another_safetensors_file_is_refused(base: Path, tmp_path: Path, metadata: dict[str, str] | None) -> None:
    save_file({"x": torch.zeros(1)}, tmp_path / FILE, metadata=metadata)
    with pytest.raises(InputError, match="Q404"):
        make_loop(base, tmp_path).resume()


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"rates": replace(RATES, adapter_lr=1e-3)}, "optimizer.adapter_lr"),
        ({"settings": BY_TEXTS}, "loop.batch_size"),
        ({"lora": replace(LORA, r=8)}, "classifier.lora.r"),
        ({"lora": replace(LORA, dropout=0.2)}, "classifier.lora.dropout"),
        ({"tags": 7}, "tags"),
        ({"dtype": torch.float32}, "compute_dtype"),
        ({"schedule": replace(EPOCHS, seed=8)}, "seed"),
        ({"schedule": replace(EPOCHS, max_epochs=4)}, "total_steps"),
    ],
    ids=str,
)
def test_a_checkpoint_of_other_settings_is_refused(
    base: Path, tmp_path: Path, finished: bytes, change: dict, name: str
) -> None:
    (tmp_path / FILE).write_bytes(finished)
    loop = make_loop(base, tmp_path, **change)
    before = trained(loop)
    with pytest.raises(InputError, match="Q405") as caught:
        loop.resume()
    assert name in str(caught.value.where["changed"]).split(", ")
    assert trained(loop) == before


def test_a_checkpoint_of_another_corpus_is_refused(base: Path, tmp_path: Path, finished: bytes) -> None:
    (tmp_path / FILE).write_bytes(finished)
    loop = make_loop(base, tmp_path)
    first = loop.windows[0]
    loop.windows = [replace(first, tags=first.tags[::-1]), *loop.windows[1:]]
    with pytest.raises(InputError, match=r"Q405.*corpus"):
        loop.resume()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_checkpoint_is_not_kept_open(base: Path, tmp_path: Path) -> None:
    """Windows would not let the next but one take its place."""
    with pytest.raises(KeyboardInterrupt):
        run(make_loop(base, tmp_path, schedule=replace(EPOCHS, eval_frequency=1)), stop_at=2)
    loop = make_loop(base, tmp_path, schedule=replace(EPOCHS, eval_frequency=1))
    loop.resume()
    assert str(tmp_path) not in Path("/proc/self/maps").read_text()


def test_a_full_disk_keeps_the_checkpoint_and_nothing_half_written(
    base: Path, tmp_path: Path, finished: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(finished[:1000])
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / FILE).write_bytes(finished)
    monkeypatch.setattr("spacy_qlora.engine.checkpoint.save_tensors", write_half)
    with pytest.raises(OSError, match="No space left"):
        run(make_loop(base, tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [FILE]
    assert (tmp_path / FILE).read_bytes() == finished
