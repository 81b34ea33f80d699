"""Where the values come from that a search tries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from spacy_qlora.errors import InputError
from spacy_qlora.search.search import filled
from spacy_qlora.search.space import Space, distribution, make_space, read_space
from spacy_qlora.training.config import load_config
from spacy_qlora.training.run import prepare

DEFAULT = Path(__file__).parents[2] / "configs" / "default.cfg"
FILE = """
[components.qlora_ner]
r = [4, 8]
bidirectional_from = [1, null]

[training.optimizer]
adapter_lr = {"low": 1e-5, "high": 2e-4, "log": true}
"""


def space(name: str, corpus: Path, base: Path, **more: Any) -> Space:
    """more: Overrides, with __ for the dots."""
    paths = {"train": corpus / "train.spacy", "dev": corpus / "dev.spacy", "base": base}
    overrides = {f"paths.{name}": str(path) for name, path in paths.items()}
    run = prepare(
        DEFAULT, load_config(DEFAULT, overrides | {key.replace("__", "."): value for key, value in more.items()})
    )
    return make_space(name, run, filled(run))


def choices(found: Space, name: str) -> tuple[object, ...]:
    each = found.distributions[name]
    assert isinstance(each, CategoricalDistribution)
    return each.choices


def test_the_default_space(corpus: Path, base: Path) -> None:
    found = space("default", corpus, base, training__max_epochs=5)
    assert found.own == {
        "components.qlora_ner.r": 16, "components.qlora_ner.alpha": 32, "components.qlora_ner.adapted_layers": None,
        "components.qlora_ner.bidirectional_from": "auto", "training.optimizer.adapter_lr": 4e-4,
        "training.optimizer.head_lr": 2e-3, "qlora.batch_pieces": 768, "training.max_epochs": 5,
    }  # fmt: skip
    assert choices(found, "qlora.batch_pieces") == (384, 768)
    assert choices(found, "training.max_epochs") == (3, 5)
    assert choices(found, "components.qlora_ner.adapted_layers") == (None, 2), "the base has 3"
    assert found.distributions["training.optimizer.head_lr"] == FloatDistribution(5e-4, 5e-3, log=True)
    assert "components.qlora_ner.bidirectional_from  auto, 0\n" in str(found)


def test_it_follows_the_config(corpus: Path, base: Path) -> None:
    more = {"components__qlora_ner__bidirectional_from": None, "training__optimizer__adapter_lr": 2e-5}
    found = space("default", corpus, base, training__max_epochs=0, training__max_steps=9, qlora__batch_size=8, **more)
    assert "training.max_epochs" not in found.own
    assert choices(found, "qlora.batch_size") == (4, 8)
    assert "qlora.batch_pieces" not in found.own
    assert choices(found, "components.qlora_ner.bidirectional_from") == ("auto", 0, None), "its own is added"
    assert found.distributions["training.optimizer.adapter_lr"] == FloatDistribution(2e-5, 1e-3, log=True)


def test_the_grid_of_the_notes(corpus: Path, base: Path) -> None:
    own = {"components__qlora_ner__r": 8, "components__qlora_ner__alpha": 16, "qlora__batch_size": 8}
    found = space("notes", corpus, base, training__optimizer__adapter_lr=2e-4, **own)
    assert [choices(found, name) for name in found.own] == [
        (4, 8, 16, 32), (8, 16, 32), (1e-5, 2e-5, 3e-5, 1e-4, 2e-4), (8, 16),
    ]  # fmt: skip


def test_a_file(tmp_path: Path, corpus: Path, base: Path) -> None:
    (tmp_path / "space.cfg").write_text(FILE)
    found = space(str(tmp_path / "space.cfg"), corpus, base)
    assert choices(found, "components.qlora_ner.r") == (4, 8, 16)
    assert choices(found, "components.qlora_ner.bidirectional_from") == (1, None, "auto")
    assert found.distributions["training.optimizer.adapter_lr"] == FloatDistribution(1e-5, 4e-4, log=True)


@pytest.mark.parametrize(
    ("values", "own", "expected"),
    [
        ([1, 2], 2.0, CategoricalDistribution([1, 2])),
        (["cosine"], "linear", CategoricalDistribution(["cosine", "linear"])),
        ({"low": 1, "high": 4}, 9, IntDistribution(1, 9)),
        ({"low": 0.0, "high": 0.3}, 0.1, FloatDistribution(0.0, 0.3)),
        ({"low": 0, "high": 1}, 0.05, FloatDistribution(0.0, 1.0)),
        ({"low": 8, "high": 64, "log": True}, 4, IntDistribution(4, 64, log=True)),
    ],
)
def test_values(values: Any, own: Any, expected: object) -> None:
    assert distribution("a.cfg", "qlora.x", values, own) == expected


@pytest.mark.parametrize(
    ("values", "own"),
    [
        ([], 1),
        (8, 1),
        ([[1]], 1),
        ([1], ["q_proj"]),
        ({"low": 1}, 1),
        ({"low": 2, "high": 1}, 1),
        ({"low": 1, "high": 2, "step": 1}, 1),
        ({"low": 1, "high": "x"}, 1),
        ({"low": 1, "high": 2}, None),
        ({"low": 1e-5, "high": 1e-3, "log": True}, 0.0),
    ],
)
def test_wrong_values(values: Any, own: Any) -> None:
    with pytest.raises(InputError, match=r"a\.cfg: qlora\.x has to be choices") as raised:
        distribution("a.cfg", "qlora.x", values, own)
    assert raised.value.code == "Q602"


@pytest.mark.parametrize(
    ("text", "named"),
    [("", "no setting"), ("r = [4]", "no sections"), ("[a]\nr = [4,", "a.r is no JSON"), (b"\xff\xfe", "no sections")],
)
def test_a_wrong_file(tmp_path: Path, text: str | bytes, named: str) -> None:
    path = tmp_path / "space.cfg"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=named) as raised:
        read_space(path)
    assert raised.value.code == "Q602"


def test_a_setting_that_the_config_has_not(tmp_path: Path, corpus: Path, base: Path) -> None:
    (tmp_path / "space.cfg").write_text("[components.qlora_ner]\nrank = [4]")
    with pytest.raises(InputError, match=r"the config has no components\.qlora_ner\.rank"):
        space(str(tmp_path / "space.cfg"), corpus, base)
    with pytest.raises(InputError, match="Q001"):
        space("none.cfg", corpus, base)
