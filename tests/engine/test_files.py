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


def test_what_a_killed_run_set_aside_comes_back(tmp_path: Path) -> None:
    (tmp_path / ".pipeline.old").mkdir()
    (tmp_path / ".pipeline.old" / "text").write_text("the only one")
    with pytest.raises(KeyError), new_folder(tmp_path / "pipeline", is_ours=lambda path: True):
        raise KeyError
    assert (tmp_path / "pipeline" / "text").read_text() == "the only one"
    assert [path.name for path in tmp_path.iterdir()] == ["pipeline"]


def test_a_folder_comes_back_where_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pipeline").mkdir()
    (tmp_path / "pipeline" / "text").write_text("old")

    def refuse(folder: Path, target: Path) -> None:
        if folder.name.startswith(".pipeline-"):
            raise PermissionError
        folder.rename(target)

    monkeypatch.setattr("spacy_qlora.engine.files.rename", refuse)
    with pytest.raises(PermissionError), new_folder(tmp_path / "pipeline", is_ours=lambda path: True) as folder:
        (folder / "text").write_text("new")
    assert (tmp_path / "pipeline" / "text").read_text() == "old"
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
