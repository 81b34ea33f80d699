"""Pieces in, tag scores out: the 4-bit base, its adapters and the training loop. Imports no spaCy."""

import logging

from spacy_qlora.engine.heap import let_segments_grow

# On some CPUs bitsandbytes advises at import to install a kernel that would repack weights in place (see base.py).
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
let_segments_grow()  # before bitsandbytes is imported, which starts CUDA
