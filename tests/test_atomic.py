"""Files appear whole or not at all, readable like any other."""

import os

import pytest

from ppl_fast.data.atomic import replacing


def test_a_file_takes_its_name_when_it_is_whole(tmp_path):
    path = tmp_path / "file"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["file"]


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_private_file_becomes_an_ordinary_one(tmp_path):
    ordinary, path = tmp_path / "ordinary", tmp_path / "file"
    ordinary.touch()
    with replacing(path) as temporary:
        temporary.unlink()
        os.close(os.open(temporary, os.O_CREAT, 0o600))
    assert path.stat().st_mode == ordinary.stat().st_mode


def test_missing_folder_is_named(tmp_path):
    with (
        pytest.raises(FileNotFoundError, match="nowhere is missing"),
        replacing(tmp_path / "nowhere/file"),
    ):
        pass
