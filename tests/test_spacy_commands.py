"""spaCy's own commands on the configs and pipelines of this package."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import spacy
from spacy.cli._util import app
from typer.testing import CliRunner

import spacy_qlora.cli  # noqa: F401

DEFAULT = Path(__file__).parent.parent / "configs" / "default.cfg"
TEXTS = ["Patient was diagnosed with type 2 diabetes and prescribed metformin.", "No complaints today.", "chest pain"]
SPANS = """
import json, sys
import spacy
nlp = spacy.load(sys.argv[1])
docs = nlp.pipe(json.loads(sys.argv[2]))
print(json.dumps([[(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents] for doc in docs]))
"""
ONE_THREAD = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def spacy_command(*arguments: object) -> str:
    """RETURNS: What the command printed."""
    result = CliRunner().invoke(app, list(map(str, arguments)), prog_name="spacy")
    assert result.exit_code == 0, result.output
    return result.stdout


def python(*arguments: object, cwd: Path | None = None, **environment: str) -> str:
    """Runs Python in a process of its own. RETURNS: What it printed."""
    given = {name: value for name, value in os.environ.items() if name != "SPACY_QLORA_BASE"}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(
        command, env={**given, **ONE_THREAD, **environment}, cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def paths(corpus: Path, base: Path) -> list[object]:
    return ["--paths.train", corpus / "train.spacy", "--paths.dev", corpus / "dev.spacy", "--paths.base", base]


def spans(pipeline: object) -> list[list[tuple[int, int, str]]]:
    nlp = spacy.load(pipeline)  # type: ignore[arg-type]
    return [[(ent.start_char, ent.end_char, ent.label_) for ent in doc.ents] for doc in nlp.pipe(TEXTS)]


# Training

STEPS = [
    "--training.max_steps", 60, "--training.max_epochs", 0, "--training.eval_frequency", 20,
    "--training.optimizer.total_steps", 60,
    "--training.optimizer.adapter_lr", 3e-3, "--training.optimizer.head_lr", 1e-2,
]  # fmt: skip


@pytest.fixture(scope="module")
def loops(corpus: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The output folders of both loops, on the same config and steps."""
    folder = tmp_path_factory.mktemp("loops")
    spacy_command("train", DEFAULT, "--output", folder / "spacy", *paths(corpus, base), *STEPS)
    spacy_command("qlora", "train", DEFAULT, "--output", folder / "qlora", *paths(corpus, base), *STEPS)
    return {name: folder / name for name in ("spacy", "qlora")}


def test_both_loops_learn_alike(loops: dict[str, Path]) -> None:
    scores = {}
    for name, output in loops.items():
        assert {"model-best", "model-last"} <= {path.name for path in output.iterdir()}
        scores[name] = json.loads((output / "model-best" / "meta.json").read_text())["performance"]["ents_f"]
    assert scores["qlora"] > 0.95
    assert scores["spacy"] == pytest.approx(scores["qlora"], abs=0.02)


def test_training_can_be_resumed_in_python(loops: dict[str, Path]) -> None:
    spacy.load(loops["qlora"] / "model-best").resume_training()


@pytest.mark.parametrize("loop", ["spacy", "qlora"])
def test_what_a_loop_saves_scores_what_the_loop_said(
    loop: str, loops: dict[str, Path], corpus: Path, tmp_path: Path
) -> None:
    best, output = loops[loop] / "model-best", tmp_path / "metrics.json"
    spacy_command("evaluate", best, corpus / "dev.spacy", "--output", output)
    scores = json.loads(output.read_text())
    performance = json.loads((best / "meta.json").read_text())["performance"]
    assert scores["ents_f"] == pytest.approx(performance["ents_f"], abs=1e-6)
    assert set(scores["ents_per_type"]) == {"Disease", "Drug", "Symptom"}


# Configs


def test_debug_config(corpus: Path, base: Path) -> None:
    assert "Config is valid" in spacy_command("debug", "config", DEFAULT, *paths(corpus, base))


def test_fill_config_keeps_our_section(tmp_path: Path) -> None:
    partial = spacy.util.load_config(DEFAULT)
    del partial["components"]["qlora_ner"]["r"]
    del partial["corpora"]
    partial["qlora"]["accumulate"] = 3
    partial.to_disk(tmp_path / "partial.cfg")
    spacy_command("init", "fill-config", tmp_path / "partial.cfg", tmp_path / "filled.cfg")
    filled = spacy.util.load_config(tmp_path / "filled.cfg")
    assert filled["qlora"] == partial["qlora"]
    assert filled["components"]["qlora_ner"]["r"] == 16
    assert "dev" in filled["corpora"]


def test_init_labels(corpus: Path, base: Path, tmp_path: Path) -> None:
    spacy_command("init", "labels", DEFAULT, tmp_path, *paths(corpus, base))
    assert json.loads((tmp_path / "qlora_ner.json").read_text()) == ["Disease", "Drug", "Symptom"]


def test_assemble_needs_no_base(trained: Path, tmp_path: Path) -> None:
    config = spacy.util.load_config(DEFAULT)
    config["components"] = {"qlora_ner": {"source": str(trained)}}
    config["paths"]["base"] = "no/such/base"
    config.to_disk(tmp_path / "assemble.cfg")
    spacy_command("assemble", tmp_path / "assemble.cfg", tmp_path / "assembled")
    assert spans(tmp_path / "assembled") == spans(trained)


# Wheels


def install(pipeline: Path, folder: Path, name: str) -> Path:
    """Packs a pipeline as a wheel, by spaCy and without the network, and installs it. RETURNS: Where."""
    offline = {"PIP_NO_INDEX": "1", "HF_HUB_OFFLINE": "1"}
    (packages := folder / "packages").mkdir()
    package = ["package", pipeline, packages, "--name", name, "--version", "1.2.3"]
    python("-m", "spacy", *package, "--build", "none", **offline)
    source = packages / f"en_{name}-1.2.3"
    python("-m", "build", "--wheel", "--no-isolation", "--outdir", packages, source, **offline)
    (wheel,) = packages.glob("*.whl")
    target = folder / "site"
    python("-m", "pip", "install", "--no-deps", "--no-index", "--target", target, wheel)
    return target


def spans_of_wheel(site: Path, name: str, folder: Path, **environment: str) -> list[list[list[object]]]:
    """What the installed package finds in a new process, offline and away from the checkout."""
    (empty := folder / "empty").mkdir()
    environment |= {"PYTHONPATH": str(site), "HF_HUB_OFFLINE": "1", "SPACY_QLORA_CACHE": str(folder / "cache")}
    return json.loads(python("-c", SPANS, name, json.dumps(TEXTS), cwd=empty, **environment))


def unhoused(pipeline: Path, folder: Path) -> Path:
    """A copy of the pipeline that names a base which this machine does not have."""
    copy = Path(shutil.copytree(pipeline, folder / "unhoused"))
    for path in (copy / "config.cfg", copy / "qlora_ner" / "base.json"):
        text = path.read_text()
        source = json.loads((pipeline / "qlora_ner" / "base.json").read_text())["id"]
        setting = spacy.util.load_config(pipeline / "config.cfg")["components"]["qlora_ner"]["base"]
        path.write_text(text.replace(source, "no-such/base").replace(setting, "no/such/base"))
    return copy


def as_json(found: list[list[tuple[int, int, str]]]) -> list[list[list[object]]]:
    return json.loads(json.dumps(found))


def test_a_wheel_finds_its_base_by_the_variable(trained: Path, base: Path, tmp_path: Path) -> None:
    site = install(unhoused(trained, tmp_path), tmp_path, "light")
    found = spans_of_wheel(site, "en_light", tmp_path, SPACY_QLORA_BASE=str(base))
    assert found == as_json(spans(trained))
    assert not list(site.rglob("base/model.safetensors"))


def test_a_wheel_carries_its_base(trained: Path, tmp_path: Path) -> None:
    carrier = spacy.load(trained, config={"components.qlora_ner.carry_base": True})
    carrier.to_disk(tmp_path / "carrier")
    site = install(unhoused(tmp_path / "carrier", tmp_path), tmp_path, "whole")
    assert spans_of_wheel(site, "en_whole", tmp_path) == as_json(spans(trained))


def test_package_builds_a_wheel_by_itself(trained: Path, tmp_path: Path) -> None:
    """As spaCy's documentation has it; the build may ask the network for setuptools, and does without it else."""
    python("-m", "spacy", "package", trained, tmp_path, "--name", "ner", "--version", "1.2.3", "--build", "wheel")
    assert list(tmp_path.rglob("en_ner-1.2.3-*.whl"))
