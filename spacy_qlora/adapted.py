"""An adapter on a base that is opened when it is first needed."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import torch
from safetensors.torch import load, save
from spacy.tokens import Doc
from tokenizers import Encoding, Tokenizer
from torch import Tensor

from spacy_qlora.engine.info import BaseInfo
from spacy_qlora.errors import InputError, RunError
from spacy_qlora.settings import ModelSettings
from spacy_qlora.text.alignment import encode_docs

if TYPE_CHECKING:
    from spacy_qlora.engine.base import Base
    from spacy_qlora.engine.encoder import Encoder

Tensors = Mapping[str, Tensor]
Settings = TypeVar("Settings", bound=ModelSettings)
Module = TypeVar("Module", bound="Encoder")


class Adapted(Generic[Settings, Module]):
    """What a component holds of a model: loads, saves and travels between processes without the base.

    name (str): The component's, for errors.  seed (int): Of the first weights.
    trained (Optional[Tuple[Tensors, Tensors]]): Adapter and head as saved; fresh ones if None.
    trained_on (Optional[BaseInfo]): The only base that `trained` fits.
    carried (Optional[Path]): The base in the pipeline's own folder.
    """

    def __init__(
        self,
        name: str,
        settings: Settings,
        seed: int = 0,
        trained: tuple[Tensors, Tensors] | None = None,
        trained_on: BaseInfo | None = None,
        tokenizer: Tokenizer | None = None,
        carried: Path | None = None,
    ) -> None:
        self.name, self.settings, self.seed = name, settings, seed
        self.trained_on, self.tokenizer, self.carried = trained_on, tokenizer, carried
        self._trained = trained
        self._encoder: Module | None = None
        self._opening = threading.RLock()
        self._process = os.getpid()

    @property
    def trained(self) -> tuple[Tensors, Tensors] | None:
        """Adapter and head as they are now; None where nothing is trained yet."""
        with self._opening:
            return self._trained if self._encoder is None else self._encoder.trained()

    @property
    def encoder(self) -> Module:
        """Opens the base if need be. Raises RunError if the weights were trained on another."""
        # A worker of nlp.pipe: forked, it would wait for its parent's threads for ever.
        if self._process != os.getpid():
            if self._is_on_gpu():
                raise RunError("Q307", name=self.name)
            torch.set_num_threads(1)
            self._process = os.getpid()
        with self._opening:
            if self._encoder is None:
                with torch.inference_mode(False):  # what is made in inference mode can never be trained
                    self._encoder, self._trained = self._open(), None
            return self._encoder

    def build(self, base: Base) -> Module:
        """RETURNS: What lies on the base, with first weights."""
        raise NotImplementedError

    def _is_on_gpu(self) -> bool:
        """Asks nothing that would start CUDA: in a forked process it cannot be started again."""
        if self._encoder is not None:
            return self._encoder.device.type == "cuda"
        setting = self.settings.device
        return torch.cuda.is_available() if setting == "auto" else setting.startswith("cuda")

    def _open(self) -> Module:
        from spacy_qlora.engine.base import load_base

        folder = self.base_folder()
        device = find_device(self.settings.device)
        with torch.cuda.device(device.index if device.type == "cuda" else -1):  # of several cards, the one to ask
            dtype = find_dtype(self.settings.compute_dtype, device.type)
        base = load_base(folder, device, dtype)
        encoder = self.build(base)
        encoder.set_fold(self.settings.fold)
        classifier = replace(self.settings.classifier, bidirectional_from=encoder.unmasked_from)
        self.settings = replace(self.settings, classifier=classifier)
        if self._trained is not None:
            encoder.load_trained(*self._trained)
        self.trained_on, self.tokenizer = base.info, self.tokenizer or base.tokenizer
        return encoder

    def encode(self, docs: Sequence[Doc]) -> list[Encoding]:
        """Each doc's text in pieces, by the tokenizer that the adapter was trained with. Opens the base if need be."""
        _, tokenizer = self.encoder, self.tokenizer  # which opening sets
        assert tokenizer is not None
        return encode_docs(tokenizer, docs)

    def base_folder(self) -> Path:
        """Where the base lies. Raises InputError or RunError where it cannot be had, or is not the one trained on."""
        from spacy_qlora.engine.source import find_base

        folder = find_base(self.settings.base, self.carried, self.trained_on)
        expected, found = self.trained_on, BaseInfo.from_folder(folder)
        if expected is not None and expected.fingerprint != found.fingerprint:
            one, other = (f"{info.id} ({info.fingerprint[:12]})" for info in (expected, found))
            raise RunError("Q301", name=self.name, expected=one, found=other, path=folder)
        return folder

    def __getstate__(self) -> dict[str, Any]:
        # As bytes: tensors travel to spawned processes by file descriptors, of which there may be too many.
        trained = (given := self.trained) and tuple(save(dict(part)) for part in given)
        return {**self.__dict__, "_encoder": None, "_trained": trained, "_opening": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        trained = state["_trained"] and tuple(load(part) for part in state["_trained"])
        self.__dict__.update(state, _trained=trained, _opening=threading.RLock())
        if self.tokenizer is not None:
            self.tokenizer.encode_special_tokens = True  # as made; a pickle does not keep it
        if multiprocessing.parent_process() is None:  # no worker, but a pickle that was kept
            self._process = os.getpid()


def find_device(setting: str) -> torch.device:
    """setting: "auto" takes a CUDA device where there is one. Raises InputError where it cannot be had."""
    if setting == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        device = torch.device(setting)
    except RuntimeError as error:
        raise InputError("Q306", name="device", value=setting, reason="no such device") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError("Q306", name="device", value=setting, reason="not supported")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        reason = f"this machine has {torch.cuda.device_count()} CUDA devices"
        raise InputError("Q306", name="device", value=setting, reason=reason)
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def find_dtype(setting: str, device: str) -> torch.dtype:
    """What is computed in.  device: "cpu" or "cuda".

    setting: "auto" takes float32 on a processor that has no instructions for bfloat16, or slow ones, where products in
    it take twice to ten times as long, and bfloat16 everywhere else; a GPU that is not in this machine is taken to be
    fast.
    """
    if setting != "auto":
        return getattr(torch, setting)
    return torch.bfloat16 if is_bfloat16_fast(device) else torch.float32


def is_bfloat16_fast(device: str) -> bool:
    """Whether this machine's CPU or GPU multiplies in bfloat16 at least as fast as in float32; GPUs do since NVIDIA's
    Ampere.
    """
    if device == "cuda":
        return not torch.cuda.is_available() or torch.cuda.is_bf16_supported(including_emulation=False)
    if not torch.backends.mkldnn.is_available():  # as on a Mac: its instructions are of no use without oneDNN
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # in older versions of PyTorch
        return torch.backends.cpu.get_cpu_capability() != "AVX2"
    known = torch.cpu.get_capabilities()
    # Intel's do it in AMX; where a virtual machine hides that, AVX512-BF16 takes twice as long as float32.
    names = ("amx_bf16",) if known.get("cpu_name", "").startswith("Intel") else ("amx_bf16", "avx512_bf16", "bf16")
    return any(known.get(name) for name in names)
