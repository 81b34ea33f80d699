"""What is kept in memory for the next use: freed memory by the C library and PyTorch, kernels by oneDNN."""

from __future__ import annotations

import ctypes
import os
import platform
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # mallopt's names for them
KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "64", "LRU_CACHE_CAPACITY": "64"}  # oneDNN's and PyTorch's own
SEGMENTS = "PYTORCH_CUDA_ALLOC_CONF"  # read by all versions of PyTorch, later ones prefer PYTORCH_ALLOC_CONF
MIB = 2**20


def keep_freed_memory() -> None:
    """Lets glibc keep up to 1 GiB of freed memory for the next use, unless the environment says otherwise.

    By default it gives the memory of each layer's activations back to the system, which clears every page again before
    the next layer may write to it: a third of the time of inference, and a tenth of training.
    """
    if sys.platform == "linux" and not any(name.startswith("MALLOC_") for name in os.environ):
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
        if mallopt is not None:
            mallopt(TRIM_THRESHOLD, 1024 * MIB)
            mallopt(MMAP_THRESHOLD, 32 * MIB)  # the most that it takes


def keep_few_kernels() -> None:
    """Lets oneDNN keep 64 kernels, unless the environment says otherwise. To be called before the first product.

    Each new shape of a batch takes kernels of its own. By default so many are kept that memory grows by several hundred
    MiB over tens of thousands of texts; those of a few batches are enough.
    """
    for name, count in KERNELS.items():
        os.environ.setdefault(name, count)


def let_segments_grow() -> None:
    """Lets PyTorch's segments of a GPU's memory grow, on Linux, unless the environment says otherwise.

    Micro-batches of many lengths leave gaps between fixed ones that no tensor fits into.
    To be called before CUDA starts. Not within Windows' Linux, where such segments may fail at the first tensor.
    """
    is_linux = sys.platform == "linux" and "microsoft" not in platform.release().lower()
    if is_linux and "PYTORCH_ALLOC_CONF" not in os.environ:
        os.environ.setdefault(SEGMENTS, "expandable_segments:True")


def give_back_memory() -> None:
    """Lets glibc give all that is freed back to the system, once."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # other C libraries have none
    if trim is not None:
        trim(0)
