"""What is searched: settings of the config by their dotted names, and the values that each may take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from configparser import ConfigParser
from configparser import Error as ConfigError
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import srsly
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from thinc.api import Config

from spacy_qlora.errors import InputError
from spacy_qlora.search.rows import shown
from spacy_qlora.training.run import Run


@dataclass(frozen=True)
class Space:
    """Both by dotted names.  distributions: What each setting may be.  own: What it is in the config as given, which
    always belongs to the space: that is the first trial.
    """

    distributions: dict[str, BaseDistribution]
    own: dict[str, Any]

    def __str__(self) -> str:
        width = max(map(len, self.distributions))
        return "\n".join(f"{name:{width}}  {_described(each)}" for name, each in self.distributions.items())


def make_space(name: str, run: Run, config: Config) -> Space:
    """name: "default", "notes", or the path of a file, see `read_space`.  run, config: As given.

    Raises InputError where the file, a name or a value in it is wrong.
    """
    presets = {"default": default_space, "notes": notes_space}
    values = presets[name](run) if name in presets else read_space(Path(name))
    interpolated = config.interpolate()
    own = {key: own_value(name, key, interpolated) for key in values}
    return Space({key: distribution(name, key, each, own[key]) for key, each in values.items()}, own)


def default_space(run: Run) -> dict[str, Any]:
    """Around what has served well. No trial takes more epochs or fewer steps in each than the config's own."""
    loop, settings, epochs = run.config.loop, run.ner.settings.classifier, run.config.schedule.max_epochs
    layers = settings.layers or run.ner.model.classifier.base.config.num_hidden_layers
    third = layers // 3
    component, batch = f"components.{run.ner.name}", "batch_size" if loop.batch_size else "batch_pieces"
    size = getattr(loop, batch)
    space: dict[str, Any] = {
        f"{component}.r": [8, 16, 32],
        f"{component}.alpha": [16, 32, 64],
        f"{component}.adapted_layers": [None, layers - third],
        f"{component}.bidirectional_from": ["auto", 0],
        "training.optimizer.adapter_lr": {"low": 1e-4, "high": 1e-3, "log": True},
        "training.optimizer.head_lr": {"low": 5e-4, "high": 5e-3, "log": True},
        f"qlora.{batch}": [math.ceil(size / 2), size],
    }
    if epochs:
        space["training.max_epochs"] = [math.ceil(epochs / 2), epochs]
    return space


def notes_space(run: Run) -> dict[str, Any]:
    """The grid of the widespread recipe, see configs/user_notes.cfg."""
    return {
        f"components.{run.ner.name}.r": [4, 8, 16, 32],
        f"components.{run.ner.name}.alpha": [8, 16, 32],
        "training.optimizer.adapter_lr": [1e-5, 2e-5, 3e-5, 1e-4, 2e-4],
        "qlora.batch_size": [8, 16],
    }


def read_space(path: Path) -> dict[str, Any]:
    """Values by dotted names from a file that looks like a config, with choices or a range for a value:

    [components.qlora_ner]
    r = [4, 8, 16, 32]
    bidirectional_from = ["auto", 0, null]

    [training.optimizer]
    adapter_lr = {"low": 1e-5, "high": 2e-4, "log": true}
    """
    if not path.is_file():
        raise InputError("Q001", path=path, kind="file, nor a space called default or notes")
    parser = ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # or names become lower case
    try:
        parser.read_string(path.read_text(encoding="utf-8-sig"))
    except (ConfigError, UnicodeDecodeError) as error:
        raise InputError("Q602", path=path, problem="no sections with keys and values") from error
    names = [(section, key) for section in parser.sections() for key in parser[section]]
    if not names:
        raise InputError("Q602", path=path, problem="no setting in it")
    return {f"{section}.{key}": read_value(path, f"{section}.{key}", parser[section][key]) for section, key in names}


def read_value(path: Path, name: str, text: str) -> Any:
    try:
        return srsly.json_loads(text)
    except ValueError as error:
        raise InputError("Q602", path=path, problem=f"{name} is no JSON") from error


def own_value(source: str, name: str, config: Config) -> Any:
    """source: Of the names, for errors.  name: A dotted one.  config: Interpolated."""
    value: Any = config
    try:
        for part in name.split("."):
            value = value[part]
    except (KeyError, TypeError) as error:
        raise InputError("Q602", path=source, problem=f"the config has no {name}") from error
    return value


def distribution(source: str, name: str, values: Any, own: Any) -> BaseDistribution:
    """source, name: Of the values, for errors.  own: Added to them. Raises InputError where it cannot be."""
    if isinstance(values, list) and values and all(map(_is_choice, [*values, own])):
        return CategoricalDistribution(list(dict.fromkeys([*values, own])))
    if isinstance(values, dict) and {"low", "high"} <= set(values) <= {"low", "high", "log"}:
        low, high, log = values["low"], values["high"], values.get("log") is True
        if all(map(_is_number, (low, high, own))) and low <= high and (min(low, own) > 0 or not log):
            whole = all(isinstance(value, int) for value in (low, high, own))
            low, high = min(low, own), max(high, own)
            return IntDistribution(low, high, log) if whole else FloatDistribution(low, high, log)
    rule = 'choices such as [4, 8, null], or for numbers a range such as {"low": 1e-5, "high": 1e-3, "log": true}'
    raise InputError("Q602", path=source, problem=f"{name} has to be {rule}")


def _is_choice(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def ends(values: BaseDistribution) -> Sequence[Any]:
    """All choices, or the lowest and the highest number."""
    if isinstance(values, CategoricalDistribution):
        return values.choices
    assert isinstance(values, (IntDistribution, FloatDistribution))
    return values.low, values.high


def _described(values: BaseDistribution) -> str:
    return (", " if isinstance(values, CategoricalDistribution) else " to ").join(map(shown, ends(values)))
