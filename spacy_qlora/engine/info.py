"""What a base is, in a few words, and the names of the files of bases and adapters."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

from spacy_qlora.errors import InputError

INFO = "base.json"
CONFIG, WEIGHTS, TOKENIZER = "config.json", "model.safetensors", "tokenizer.json"  # of bases and checkpoints
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"  # peft's
NF4: dict[str, Any] = {"type": "nf4", "double": True, "block": 64}


@dataclass(frozen=True)
class BaseInfo:
    """What a base is: written as base.json, and kept by each pipeline that was trained on it.

    id: Hub id, name or folder name that it was made from.  revision: Commit or release of that source, "" if unknown.
    quantisation: How the linears are stored.  fingerprint: SHA-256 over its shape and the stored tensors.
    """

    id: str
    revision: str = ""
    quantisation: dict[str, Any] = field(default_factory=lambda: dict(NF4))
    fingerprint: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError where id or revision could lead to another place than a hub repository or a folder here."""
        path = PureWindowsPath(self.id)  # knows drives, and both kinds of slashes
        if ".." in path.parts or path.anchor or "/" in self.revision or "\\" in self.revision:
            raise ValueError("id or revision")

    @classmethod
    def from_folder(cls, folder: Path) -> BaseInfo:
        """Raises InputError where `folder` is no base."""
        try:
            return cls(**json.loads((folder / INFO).read_text(encoding="utf8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError("Q201", path=folder) from error

    def to_folder(self, folder: Path) -> None:
        (folder / INFO).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf8")


def is_base(folder: Path) -> bool:
    """A component that was trained on a base holds that file, too, beside its head."""
    return (folder / INFO).exists() and not (folder / "head.safetensors").exists()
