"""How many threads of PyTorch's work on one tensor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Within, no work is divided among threads, whose number would show in how results are rounded.

    Holds for the whole process: not for several of its threads at once.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
