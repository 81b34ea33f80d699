from __future__ import annotations

import os
import subprocess
import sys

import pytest

from spacy_qlora.engine.heap import SEGMENTS, let_segments_grow

GROWING = "expandable_segments:True"


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch knows them on Linux alone")
@pytest.mark.parametrize(
    ("release", "given", "expected"),
    [
        ("6.8.0-generic", {}, {SEGMENTS: GROWING}),
        ("5.15.153.1-microsoft-standard-WSL2", {}, {}),
        ("6.8.0-generic", {SEGMENTS: "backend:native"}, {SEGMENTS: "backend:native"}),
        ("6.8.0-generic", {"PYTORCH_ALLOC_CONF": "backend:native"}, {"PYTORCH_ALLOC_CONF": "backend:native"}),
    ],
)
def test_segments_grow_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, release: str, given: dict[str, str], expected: dict[str, str]
) -> None:
    monkeypatch.setattr("platform.release", lambda: release)
    monkeypatch.setattr("spacy_qlora.engine.heap.os.environ", dict(given))
    let_segments_grow()
    assert os.environ == expected


WATCH = f"""
import os, sys

class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "bitsandbytes":
            print(os.environ.get("{SEGMENTS}"))

sys.meta_path.insert(0, Watch())
import spacy_qlora.{{module}}
import bitsandbytes
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch knows them on Linux alone")
@pytest.mark.parametrize("module", ["component", "training.run", "engine.loop", "engine.quantize", "saved"])
def test_segments_grow_before_bitsandbytes_starts_cuda(module: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in (SEGMENTS, "PYTORCH_ALLOC_CONF")}
    command = [sys.executable, "-c", WATCH.format(module=module)]
    found = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.split()[:1] == [GROWING]
