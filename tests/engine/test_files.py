from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from spacy_qlora.engine.files import new_folder, write_whole


def test_a_folder_that_cannot_be_removed_is_not_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, where a program has a file of it mapped."""

    def write(text: str) -> None:
        with new_folder(tmp_path / "pipeline", is_ours=lambda path: True) as folder:
            (folder / "text").write_text(text)

    with monkeypatch.context() as windows:
        windows.setattr(shutil, "rmtree", lambda path, ignore_errors: None)
        for text in ("first", "second", "third", "fourth"):
            write(text)
            assert (tmp_path / "pipeline" / "text").read_text() == text
    write("fifth")
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_what_is_no_file_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """Such as /dev/null, which root could replace."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with ThreadPoolExecutor() as pool:
        read = pool.submit(path.read_text)
        write_whole(path, "scores")
        assert read.result(timeout=60) == "scores"
    assert path.is_fifo()
