"""Every name under which users and saved pipelines find a part of the package. None may change once released."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points

NAMES = {
    "spacy_factories": {"qlora_ner"},
    "spacy_tokenizers": {"spacy-qlora.FineTokenizer.v1"},
    "thinc_optimizers": {"spacy-qlora.AdamW.v1"},
    "spacy_architectures": {"spacy-qlora.QLoRATransformer.v1"},
    "spacy_cli": {"qlora"},
}
COMMANDS = ["base", "calibrate", "convert", "evaluate", "inspect", "plan", "pull", "push", "report", "search", "train"]
LOOKUP = """
import sys
import spacy_qlora.bridge.architecture
heavy = {"peft", "transformers", "spacy_transformers"} & sys.modules.keys()
assert not heavy, heavy  # until the architecture is made
import spacy
nlp = spacy.blank("en")
assert nlp.has_factory("qlora_ner")
heavy = {"bitsandbytes", "datasets", "spacy_qlora.component", "spacy_qlora.engine.base"} & sys.modules.keys()
assert not heavy, heavy  # spacy.blank stays as fast as it was
assert spacy.registry.has("tokenizers", "spacy-qlora.FineTokenizer.v1")
assert spacy.registry.has("architectures", "spacy-qlora.QLoRATransformer.v1")
assert spacy.registry.get("optimizers", "spacy-qlora.AdamW.v1")().total_steps == 0
from spacy.cli._util import app
from typer.main import get_command
spacy.registry.cli.get_all()
print(*sorted(get_command(app).commands["qlora"].commands))
"""


def test_entry_points() -> None:
    found = {group: {point.name for point in entry_points(group=group)} for group in NAMES}
    ours = {group: {name for name in found[group] if "qlora" in name} for group in NAMES}
    assert ours == NAMES


def test_a_new_process_finds_all_by_entry_points_alone() -> None:
    done = subprocess.run([sys.executable, "-c", LOOKUP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == COMMANDS
