"""What `spacy qlora train` reads of a spaCy config."""

from __future__ import annotations

import dataclasses
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable
from configparser import ParsingError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from spacy import util
from spacy.language import Language
from spacy.schemas import ConfigSchemaInit, ConfigSchemaNlp, ConfigSchemaTraining
from spacy.training import Example
from spacy.util import registry
from thinc.api import Config
from wasabi import msg

from spacy_qlora.engine.progress import Schedule
from spacy_qlora.engine.settings import LoopSettings
from spacy_qlora.errors import InputError
from spacy_qlora.optimizer import AdamW

SCHEMAS = {"training": ConfigSchemaTraining, "nlp": ConfigSchemaNlp, "initialize": ConfigSchemaInit}
SECTIONS = {*SCHEMAS, "paths", "system", "components", "corpora", "pretraining", "qlora"}
BOM_FOUND = "line 1: a byte order mark before it; save the file as UTF-8 without one"
CorpusReader = Callable[[Language], Iterable[Example]]


@dataclass(frozen=True)
class TrainingConfig:
    """training: The resolved [training] block.  loop: From [qlora].  schedule: When to evaluate and to stop.
    train, dev: The corpora.
    """

    training: dict[str, Any]
    loop: LoopSettings
    schedule: Schedule
    train: CorpusReader
    dev: CorpusReader


def load_config(path: Path, overrides: dict[str, Any]) -> Config:
    """Raises InputError where the file is missing or no config, or a key of [training] or an override names nothing."""
    try:
        config = util.load_config(path, overrides=overrides, interpolate=False)
    except OSError as error:
        raise InputError("Q001", path=path, kind="config file") from error
    except Exception as error:  # configparser, confection and srsly each raise their own
        what = BOM_FOUND if path.read_bytes().startswith(BOM_UTF8) else problem(error)
        raise InputError("Q401", path=path, problem=what) from error
    # spaCy leaves out a misspelled one without a word when it fills the config.
    for section, schema in SCHEMAS.items():
        check_keys(path, section, config.get(section, {}), schema.__annotations__)
    if unknown := [name for name in config if name not in SECTIONS and f"${{{name}." not in config.to_str()]:
        msg.warn(f"{path}: nothing reads the section [{unknown[0]}]. Check its name.")
    return config


def resolve(path: Path, nlp: Language) -> TrainingConfig:
    """path: Of the config, for errors.  nlp: Made from it. Raises InputError where a setting is wrong."""
    config = nlp.config.interpolate()
    loop = read_loop_settings(path, config.get("qlora", {}))
    try:
        training = registry.resolve(config["training"], schema=ConfigSchemaTraining)
        train, dev = util.resolve_dot_names(config, [training["train_corpus"], training["dev_corpus"]])
    except ValueError as error:  # confection's and spaCy's own, for one a missing path
        raise InputError("Q401", path=path, problem=problem(error)) from error
    if not isinstance(training["optimizer"], AdamW):
        raise InputError("Q406", path=path)
    names = ("max_epochs", "max_steps", "eval_frequency", "patience")
    limits = {name: max(0, training[name]) for name in names}
    if not (limits["max_epochs"] or limits["max_steps"] or limits["patience"]):
        raise InputError("Q407", path=path)
    return TrainingConfig(training, loop, Schedule(**limits, seed=training["seed"] or 0), train, dev)


def read_loop_settings(path: Path, section: dict[str, Any]) -> LoopSettings:
    """The [qlora] section. Raises InputError where a key is unknown or a value has the wrong type."""
    check_keys(path, "qlora", section, {field.name for field in dataclasses.fields(LoopSettings)})
    try:
        return TypeAdapter(LoopSettings).validate_python(section)
    except ValidationError as error:
        cause = error.errors()[0].get("ctx", {}).get("error")
        if isinstance(cause, InputError):  # the settings' own checks
            raise cause from error
        raise InputError("Q401", path=path, problem=problem(error)) from error


def check_keys(path: Path, section: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises InputError where a key is unknown."""
    if unknown := set(given) - set(known):
        what = f"unknown key {min(unknown)} in [{section}], which knows {', '.join(sorted(known))}"
        raise InputError("Q401", path=path, problem=what)


def problem(error: Exception) -> str:
    """What is wrong, without the values: by setting and rule where the error tells."""
    if isinstance(broken := error.__context__, ParsingError):  # its message quotes the line
        line = getattr(broken, "lineno", None) or broken.errors[0][0]
        return f"line {line} is no section, key or value"
    details: Any = getattr(error, "errors", None)
    if details := details() if callable(details) else details:
        first = details[0]
        where = ".".join(str(part) for part in first.get("loc", ()))
        return f"{where}: {first.get('msg', type(error).__name__)}"
    hint = " One of your own is registered by the file that --code names." if str(error).startswith("[E002]") else ""
    return f"{str(error) or type(error).__name__}{hint}"
