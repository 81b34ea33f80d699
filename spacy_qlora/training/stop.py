"""SIGTERM and Ctrl-C: a run saves its state before it ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from spacy_qlora.engine.progress import StopRun

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Stop:
    """Turns the first signal into a StopRun with its number: at the next `check`, or at once within `at_once`.

    A second Ctrl-C breaks off. signal: The one that came, if any.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._at_once = False

    def check(self) -> None:
        if self.signal is not None:
            raise StopRun(self.signal)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        self.check()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = number
        if self._at_once:
            raise StopRun(number)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within, signals go to the Stop; only the main thread can have it so, elsewhere nothing changes."""
    stop = Stop()
    before: dict[int, Callable | int | None] = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, stop._on_signal) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)  # None: set by other than Python
