"""What a folder holds of a pipeline, or of a component alone, that may go to the hub and come from there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath

from spacy import util

from spacy_qlora import saved
from spacy_qlora.errors import InputError
from spacy_qlora.model import NERModel
from spacy_qlora.settings import NERSettings

CONFIG, META = "config.cfg", "meta.json"
# Of spaCy itself. Those that are no JSON are msgpack and NumPy arrays, whose readers run no code.
OF_SPACY = {CONFIG, META, "tokenizer", "tokenizer/cfg"} | {
    f"vocab/{name}" for name in ("key2row", "lookups.bin", "strings.json", "vectors", "vectors.cfg")
}
OF_OTHERS = (".cfg", ".json", ".jsonl", ".safetensors")  # what components of other kinds may keep
# All names of either sort: what is fetched, and what a push puts in place of what was there before.
PATTERNS = [*sorted(OF_SPACY), "cfg", "*/cfg", *(f"*{suffix}" for suffix in OF_OTHERS)]


@dataclass(frozen=True)
class Contents:
    """folder (Path): Where it lies.
    models (Mapping[str, NERModel]): The trained qlora_ner by name; one named "" for a component without its pipeline.
    others (frozenset[str]): The names of the pipeline's other components.
    """

    folder: Path
    models: Mapping[str, NERModel]
    others: frozenset[str] = frozenset()

    @classmethod
    def read(cls, folder: Path) -> Contents:
        """Raises InputError where there is neither a pipeline with a trained qlora_ner nor such a component alone."""
        names, others = _components(folder)
        models = {}
        for name in names:
            model = saved.from_disk(NERModel(name or "qlora_ner", NERSettings(base="")), folder / name)
            if model.trained is None:
                raise InputError("Q800", path=folder)
            models[name] = model
        return cls(folder, models, others)

    def alone(self) -> Contents:
        """Its only qlora_ner, without the pipeline. Raises InputError where there are several."""
        if len(self.models) > 1:
            raise InputError("Q810", path=self.folder, count=len(self.models))
        ((name, model),) = self.models.items()
        return Contents(self.folder / name, {"": model})

    def require_known(self) -> None:
        """Raises InputError where one of the other components keeps a file that no one else may have."""
        known = set(list_files(self.folder))
        for path in self.folder.rglob("*"):
            name = path.relative_to(self.folder)
            if path.is_file() and name.parts[0] in self.others and name.as_posix() not in known:
                raise InputError("Q801", path=path)


def list_files(folder: Path) -> list[str]:
    """The names of the files that belong to what `folder` holds, sorted; whatever else lies there is left out."""
    names, others = _components(folder)
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(name.as_posix() for name in found if _belongs(name, names, others))


def _components(folder: Path) -> tuple[list[str], frozenset[str]]:
    """The names of a pipeline's qlora_ner and of its other components; just "" for a component without its pipeline."""
    if (folder / saved.HEAD).exists():
        return [""], frozenset()
    try:
        config = util.load_config(folder / CONFIG)
        factories = {name: config["components"][name]["factory"] for name in config["nlp"]["pipeline"]}
    except Exception as error:  # configparser, confection and spaCy each raise their own
        raise InputError("Q800", path=folder) from error
    names = [name for name, factory in factories.items() if factory == "qlora_ner"]
    if not names or any(name in ("", "..") or PurePath(name).name != name for name in factories):
        raise InputError("Q800", path=folder)
    return names, frozenset(factories) - set(names)


def _belongs(name: PurePath, names: list[str], others: frozenset[str]) -> bool:
    first, rest = name.parts[0], PurePath(*name.parts[1:])
    if names == [""]:
        return saved.is_part(name) and first != saved.BASE
    if first in names:
        return saved.is_part(rest)
    if first in others or (name.name == first and name.stem in others):  # a folder, or a single file
        return name.suffix in OF_OTHERS or name.name == saved.CFG
    return name.as_posix() in OF_SPACY
