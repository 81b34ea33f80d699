"""What is read of a config, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from spacy.cli.debug_config import debug_config

from spacy_qlora.engine.progress import Schedule
from spacy_qlora.engine.settings import LoopSettings
from spacy_qlora.errors import InputError
from spacy_qlora.training.config import load_config, read_loop_settings, resolve
from spacy_qlora.training.run import make_pipeline

ALL = sorted((Path(__file__).parents[2] / "configs").glob("*.cfg"))
CONFIGS = [path for path in ALL if "[qlora]" in path.read_text(encoding="utf8")]  # the others are for `spacy train`
DEFAULT = next(path for path in CONFIGS if path.name == "default.cfg")
HERE = Path("a.cfg")


def overrides(corpus: Path, base: Path, **more: Any) -> dict[str, Any]:
    paths = {"train": corpus / "train.spacy", "dev": corpus / "dev.spacy", "base": base}
    return {**{f"paths.{name}": str(path) for name, path in paths.items()}, **more}


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_that_we_ship(path: Path, corpus: Path, base: Path, capsys: pytest.CaptureFixture) -> None:
    given = overrides(corpus, base)
    debug_config(path, overrides=given)
    assert "Config is valid" in " ".join(capsys.readouterr().out.split())
    config = load_config(path, given)
    settings = read_loop_settings(path, config["qlora"])
    run = resolve(path, make_pipeline(path, config))
    assert run.loop == settings
    assert run.schedule.max_epochs == config["training"]["max_epochs"]
    assert run.training["optimizer"].settings.adapter_lr == config["training"]["optimizer"]["adapter_lr"]


def test_the_settings_of_the_notes() -> None:
    config = load_config(DEFAULT.with_name("user_notes.cfg"), {})
    component = config["components"]["qlora_ner"]
    assert [component[name] for name in ("r", "alpha", "dropout", "target_modules", "bidirectional_from")] == [
        8, 16, 0.1, ["q_proj", "k_proj", "v_proj", "o_proj"], None,
    ]  # fmt: skip
    assert read_loop_settings(HERE, config["qlora"]).batch_size == 8
    assert config["training"]["max_epochs"] == 5


def test_what_a_run_takes_from_a_config(corpus: Path, base: Path) -> None:
    more = {
        "training.max_steps": 7, "training.patience": -1, "training.eval_frequency": 3, "system.seed": 5,
        "qlora.batch_size": 4, "qlora.checkpointing": True,
    }  # fmt: skip
    nlp = make_pipeline(DEFAULT, load_config(DEFAULT, overrides(corpus, base, **more)))
    run = resolve(DEFAULT, nlp)
    assert run.schedule == Schedule(max_epochs=3, max_steps=7, eval_frequency=3, patience=0, seed=5)
    assert run.loop == LoopSettings(batch_size=4, batch_pieces=768, accumulate=1, checkpointing=True)
    assert len(list(run.train(nlp))) == len(list(run.dev(nlp))) == 6


def test_settings_of_the_loop_have_defaults() -> None:
    assert read_loop_settings(HERE, {}) == LoopSettings()


@pytest.mark.parametrize(
    ("section", "code", "named"),
    [
        ({"batch_sise": 8}, "Q401", "unknown key batch_sise in [qlora], which knows accumulate, batch_pieces"),
        ({"batch_size": "many"}, "Q401", "batch_size"),
        ({"batch_size": None}, "Q401", "batch_size"),
        ({"checkpointing": 3}, "Q401", "checkpointing"),
        ({"batch_size": -1}, "Q210", "batch_size = -1"),
        ({"batch_pieces": 0}, "Q210", "batch_pieces = 0"),
        ({"accumulate": 0}, "Q210", "accumulate = 0"),
    ],
)
def test_wrong_settings_of_the_loop(section: dict[str, Any], code: str, named: str) -> None:
    with pytest.raises(InputError) as raised:
        read_loop_settings(HERE, section)
    assert raised.value.code == code
    assert named in str(raised.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ZQXPATIENT has fever", "line 1 is no section"),
        ("[training]\nseed = 0\nZQXPATIENT has fever", "line 3 is no section"),
        ("[training]\nseed = 0\nseed = 1", "seed"),
        ("[training]\nmax_epoch = 5", "unknown key max_epoch in [training]"),
        ("[training.optimizer\n", "line 1"),
        ("[paths]\nbase = ${paths.none}", "paths.none"),
    ],
)
def test_a_broken_config(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "a.cfg").write_text(text)
    with pytest.raises(InputError) as raised:
        resolve(HERE, make_pipeline(HERE, load_config(tmp_path / "a.cfg", {})))
    assert raised.value.code == "Q401"
    assert named in str(raised.value)
    assert "ZQXPATIENT" not in str(raised.value)
