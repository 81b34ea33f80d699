"""The training loop: epochs of token-budget batches, an evaluation each epoch, the best kept."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch

from spacy_qlora.engine.batching import by_budget, shuffled
from spacy_qlora.engine.checkpoint import load_checkpoint, save_checkpoint
from spacy_qlora.engine.classifier import TokenClassifier
from spacy_qlora.engine.functions import can_compile, compiled
from spacy_qlora.engine.memory import is_out_of_memory, peak_memory
from spacy_qlora.engine.optimizer import AdapterOptimizer
from spacy_qlora.engine.plan import fit, usual_job
from spacy_qlora.engine.prefix import mapped
from spacy_qlora.engine.progress import Hooks, Progress, Schedule, StopRun
from spacy_qlora.engine.settings import LoopSettings, OptimizerSettings, read_size
from spacy_qlora.engine.window import Window
from spacy_qlora.errors import RunError

Step = list[list[int]]  # the windows' numbers, by micro-batch


@dataclass
class Loop:
    """One run over `windows`. Call `run`.

    checkpoints (Path): Folder of the state to resume from; None keeps none.
    made_of (Mapping): What else the run is made of, by name, in the types of JSON; compared when it goes on.
    job (Job): What its memory depends on, as configured or as planned for the budget.
    compiles (bool): Whether its kernels are compiled, as configured, if they can be here.
    """

    classifier: TokenClassifier
    windows: Sequence[Window]
    settings: LoopSettings
    optimizer_settings: OptimizerSettings
    schedule: Schedule
    checkpoints: Path | None
    made_of: Mapping[str, object] = field(default_factory=dict)
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        self.job = usual_job(self.classifier, self.windows, self.settings)
        self.budget = read_size(self.settings.memory_budget) if self.settings.memory_budget else 0
        if self.budget:
            self.job, accumulate = fit(self.job, self.settings.accumulate, self.budget)
            pieces = min(self.settings.batch_pieces, self.job.pieces)  # a single window may have more
            self.settings = replace(self.settings, batch_pieces=pieces, accumulate=accumulate)
            self.classifier.base.keep_resident(self.job.resident)
        self.classifier.checkpointed = self.job.checkpointed
        self.compiles = self.settings.compile and can_compile(self.classifier.device)
        self.total_steps = self._total_steps()
        self.optimizer = AdapterOptimizer(
            self.classifier, self.optimizer_settings, self.total_steps, self.job.eight_bit
        )
        self._aside = 0  # highest use of memory before training and in its evaluations, in bytes
        torch.manual_seed(self.schedule.seed)

    def resume(self, may_differ: Collection[str] = ()) -> bool:
        """Goes on where the last checkpoint was written. Raises InputError without one, or if it is another run's.

        may_differ: Names in `made_of` that are not compared.
        RETURNS: Whether that checkpoint was whole; if not, the one before it was taken.
        """
        assert self.checkpoints is not None
        fixed = {name: value for name, value in self._fixed().items() if name not in may_differ}
        state, is_latest = load_checkpoint(self.checkpoints, self.classifier, self.optimizer, fixed)
        self.progress = Progress(**state)
        if self.progress.backed_off:
            self._back_off()
        return is_latest

    def run(self, hooks: Hooks) -> Progress:
        """Trains to the end of the schedule. Raises RunError once the loss is no number; what was best is kept.

        A StopRun from a hook comes through once the state is saved.
        """
        try:
            return self._run(hooks)
        except StopRun:
            self._save()
            raise

    def _run(self, hooks: Hooks) -> Progress:
        progress = self.progress
        start = time.perf_counter() - progress.seconds
        saved, every = time.perf_counter(), 60 * self.settings.checkpoint_minutes
        self._aside = peak_memory(self.classifier.device)
        if progress.due:
            self._evaluate(hooks)
        for step in self._steps():
            with compiled(self.compiles):
                self._train(step)
            progress.seconds = time.perf_counter() - start
            progress.due = self._is_due()
            hooks.on_step(progress)
            if progress.due:
                self._evaluate(hooks)
                progress.seconds = time.perf_counter() - start
                if self._is_over():
                    break
            elif every and time.perf_counter() - saved > every:
                self._save()
            else:
                continue
            saved = time.perf_counter()
        return progress

    def _steps(self) -> Iterator[Step]:
        progress = self.progress
        while not self._is_over():
            steps = self._plan(progress.epoch)
            while progress.position < len(steps):
                step = steps[progress.position]
                progress.position += 1
                progress.step += 1
                if last := progress.position == len(steps):
                    progress.epoch += 1
                    progress.position = 0
                yield step
                if last:
                    break

    def _plan(self, epoch: int) -> list[Step]:
        """The steps of one epoch, the same for the same seed."""
        generator = torch.Generator().manual_seed(self.schedule.seed * 1_000_003 + epoch)
        lengths = self.classifier.lengths(self.windows)
        settings = self.settings
        if not settings.batch_size:
            batches = shuffled(lengths, settings.batch_pieces, generator)
            return [batches[i : i + settings.accumulate] for i in range(0, len(batches), settings.accumulate)]
        order = torch.randperm(len(lengths), generator=generator).tolist()
        groups = (order[i : i + settings.batch_size] for i in range(0, len(order), settings.batch_size))
        return [
            list(by_budget(lengths, settings.batch_pieces, sorted(group, key=lambda i: lengths[i]))) for group in groups
        ]

    def _total_steps(self) -> int:
        """Steps of the whole run, 0 if it has no end."""
        limit = self.schedule.max_steps or math.inf
        if self.schedule.max_epochs:
            limit = min(limit, sum(len(self._plan(epoch)) for epoch in range(self.schedule.max_epochs)))
        return 0 if math.isinf(limit) else int(limit)

    def _train(self, step: Step) -> None:
        start = time.perf_counter()
        progress = self.progress
        while True:
            try:
                loss, words = self._add_up(step)
                break
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if progress.backed_off:
                    raise RunError("Q415", step=progress.step) from error
            self._back_off()  # after the handler: the error keeps the tensors of the failed attempt
        self.optimizer.step(words)
        if self.budget and not progress.backed_off and self._exceeds_budget():
            self._back_off()
        progress.loss = (progress.loss * progress.words + loss) / (progress.words + words)
        progress.words += words
        pieces = sum(len(self.windows[i]) for batch in step for i in batch)
        progress.pieces += pieces
        progress.rate = pieces / (time.perf_counter() - start)

    def _add_up(self, step: Step) -> tuple[float, int]:
        """The gradients of one step. RETURNS: The summed loss in nats, and over how many words."""
        loss, words = 0.0, 0
        pieces = self.settings.batch_pieces // 2 if self.progress.backed_off else self.settings.batch_pieces
        for batch in step:
            part, counted = self.classifier.accumulate([self.windows[i] for i in batch], pieces)
            loss, words = loss + part, words + counted
        return loss, words

    def _exceeds_budget(self) -> bool:
        """Whether training did. What came before it, or an evaluation, took does not count: smaller micro-batches would
        not lower it.
        """
        device = self.classifier.device
        return peak_memory(device) > max(self.budget + mapped(self.windows, device), self._aside)

    def _back_off(self) -> None:
        """From now on each micro-batch in two halves, and every layer checkpointed."""
        self.progress.backed_off = True
        self.classifier.checkpointed = self.job.adapted
        self.optimizer.adamw.zero_grad()
        if self.classifier.device.type == "cuda":
            torch.cuda.empty_cache()

    def _is_due(self) -> bool:
        every, progress = self.schedule.eval_frequency, self.progress
        return progress.position == 0 or progress.step == self.total_steps or bool(every and progress.step % every == 0)

    def _is_over(self) -> bool:
        progress, patience = self.progress, self.schedule.patience
        stale = patience and progress.step - progress.best_step >= patience and progress.best >= 0
        return bool((self.total_steps and progress.step >= self.total_steps) or stale)

    def _evaluate(self, hooks: Hooks) -> None:
        progress = self.progress
        progress.score = hooks.evaluate()
        is_best = progress.score > progress.best
        if is_best:
            progress.best, progress.best_step = progress.score, progress.step
        hooks.on_evaluation(progress, is_best)
        progress.loss, progress.words, progress.due = 0.0, 0, False
        self._aside = peak_memory(self.classifier.device)
        self._save()

    def _save(self) -> None:
        if self.checkpoints is not None:
            save_checkpoint(self.checkpoints, self.classifier, self.optimizer, self._fixed(), asdict(self.progress))

    def _fixed(self) -> dict[str, object]:
        """What must not change between a run and its resumption."""
        classifier = self.classifier
        return {
            "base": classifier.base.info.fingerprint,
            "classifier": asdict(classifier.settings),
            "tags": classifier.head.out_features,
            "loop": {key: value for key, value in asdict(self.settings).items() if key != "checkpoint_minutes"},
            "optimizer": asdict(self.optimizer_settings),
            "seed": self.schedule.seed,
            "compute_dtype": str(classifier.base.dtype),
            "corpus": _digest(self.windows),
            "total_steps": self.total_steps,
            **self.made_of,
        }


def _digest(windows: Sequence[Window]) -> str:
    """SHA-256 over the pieces and tags of all windows."""
    digest = hashlib.sha256()
    for window in windows:
        digest.update(window.pieces.tobytes())
        digest.update(b"" if window.tags is None else window.tags.tobytes())
    return digest.hexdigest()
