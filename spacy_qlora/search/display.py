"""What a search shows: a live table on a terminal; elsewhere a bar for a trial's steps and a line at its end."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from optuna.trial import FrozenTrial
from rich.console import Console
from rich.live import Live
from rich.table import Table

from spacy_qlora.engine.loop import Loop
from spacy_qlora.engine.progress import Progress
from spacy_qlora.search.rows import changes, row
from spacy_qlora.search.study import SharedStudy, is_run
from spacy_qlora.training.display import Bar

ROWS = 20  # trials in the table, the last ones
PAUSE = 1.0  # seconds between two tables
WIDTH = 120  # characters, where there is no terminal


class Display:
    """A context manager.  most: How many trials there shall be."""

    def __init__(self, shared: SharedStudy, most: float) -> None:
        self._shared, self._most = shared, most
        self._console = Console(highlight=False)
        self._live: Live | None = None
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
        else:
            self._console.width = WIDTH
        self._shown = 0.0

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live:
            self._refresh()
            self._live.stop()
        else:
            self._console.print(self._table({}))

    @contextmanager
    def steps(self, number: int, loop: Loop) -> Iterator[Callable[[Progress], None]]:
        """Yields what shows each step of a trial."""
        if self._live is None:
            with Bar(loop) as bar:
                yield bar.on_step
            return

        def show(progress: Progress) -> None:
            if time.monotonic() - self._shown > PAUSE:
                limit = f" of {loop.total_steps:,}" if loop.total_steps else ""
                self._refresh({number: f"step {progress.step:,}{limit}"})

        yield show

    def finished(self, number: int) -> None:
        """Shows how a trial ended."""
        if self._live:
            self._refresh()
            return
        trials = self._shared.trials()
        _, *cells = next(self._cells(trial) for trial in trials if trial.number == number)
        self._console.print(f"Trial {number}: {', '.join(filter(None, cells))}. {self._title(trials)}", soft_wrap=True)

    def _refresh(self, running: dict[int, str] | None = None) -> None:
        """running: What to show as the state of trials, by their numbers."""
        if self._live:
            self._live.update(self._table(running or {}), refresh=True)
            self._shown = time.monotonic()

    def _table(self, running: dict[int, str]) -> Table:
        trials = self._shared.trials()
        table = Table(title=self._title(trials), title_justify="left")
        for name in ("trial", "state", "score", "time"):
            table.add_column(name, justify="left" if name == "state" else "right", no_wrap=True)
        table.add_column("settings")
        for trial in trials[-ROWS:]:
            number, state, *others = self._cells(trial)
            table.add_row(number, running.get(trial.number, state), *others)
        return table

    def _title(self, trials: list[FrozenTrial]) -> str:
        limit = "" if math.isinf(self._most) else f" of {self._most}"
        title = f"{sum(map(is_run, trials))}{limit} trials"
        best = self._shared.best()
        return title if best is None else f"{title}, best {best.value:.4f} (trial {best.number})"

    def _cells(self, trial: FrozenTrial) -> tuple[str, ...]:
        words = row(trial)
        score = "" if words["score"] is None else f"{words['score']:.4f}"
        seconds = "" if words["seconds"] is None else f"{words['seconds']:,} s"
        state = f"{words['state']} {words['reason']}".strip()
        return str(words["trial"]), state, score, seconds, changes(trial, self._shared.space.own)
