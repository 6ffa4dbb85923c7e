"""Files and folders appear whole or not at all, readable like any other."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from ppl_fast._files import filling, is_stream, new_folder, readable, replacing, write_text


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


def test_two_writers_of_one_target_share_no_temporary_name(tmp_path):
    path = tmp_path / ("long" * 60)  # with anything long before or behind it, the name would not be one
    with replacing(path) as first, replacing(path) as second:
        first.write_text("first")
        second.write_text("second")
    assert path.read_text() == "first" and len(os.listdir(tmp_path)) == 1  # what ends last stays, whole


def test_many_threads_write_one_file(tmp_path):
    texts = [str(i) * 10_000 for i in range(10)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write_text, [tmp_path / "file"] * 40, texts * 4))
    assert (tmp_path / "file").read_text() in texts and os.listdir(tmp_path) == ["file"]


class TestNewFolder:
    @pytest.mark.parametrize("exists", [False, True])
    def test_it_takes_its_name_when_it_is_whole(self, tmp_path, exists):
        folder = tmp_path / "a" / "b"
        if exists:
            folder.mkdir(parents=True)
        with new_folder(folder, durable=True) as temporary:
            (temporary / "file").write_text("whole")
            assert not (folder / "file").exists()
        assert (folder / "file").read_text() == "whole" and os.listdir(folder.parent) == ["b"]

    def test_an_interrupted_one_leaves_nothing(self, tmp_path):
        with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "folder") as temporary:
            (temporary / "file").touch()
            raise KeyboardInterrupt
        assert not os.listdir(tmp_path)

    def test_what_holds_something_is_refused(self, tmp_path):
        (tmp_path / "file").touch()
        for taken in (tmp_path, tmp_path / "file"):
            with pytest.raises(FileExistsError, match=f"{taken} exists and is not an empty folder"), new_folder(taken):
                pass
        assert os.listdir(tmp_path) == ["file"]


class TestFilling:
    def test_files_join_those_that_are_there(self, tmp_path):
        (tmp_path / "a").mkdir()
        for name in ("a/old", "a/replaced"):
            (tmp_path / name).write_text("old")
        with filling(tmp_path) as temporary:
            for name in ("a/replaced", "a/new", "b/c/new"):
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).write_text("new")
            assert (tmp_path / "a/replaced").read_text() == "old" and not (tmp_path / "b").exists()
        found = {str(path.relative_to(tmp_path)): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
        assert found == {"a/old": "old", "a/replaced": "new", "a/new": "new", "b/c/new": "new"}

    def test_an_interrupted_one_changes_nothing(self, tmp_path):
        with pytest.raises(KeyboardInterrupt), filling(tmp_path / "folder") as temporary:
            (temporary / "file").touch()
            raise KeyboardInterrupt
        assert not (tmp_path / "folder").exists()
        (tmp_path / "folder").mkdir()
        with pytest.raises(KeyboardInterrupt), filling(tmp_path / "folder"):
            raise KeyboardInterrupt
        assert not os.listdir(tmp_path / "folder")


def test_links_stay_and_what_they_lead_to_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "here").symlink_to("middle")
    (tmp_path / "middle").symlink_to("there/file")
    for text in ("first", "second"):  # the file is not there yet, and then it is
        write_text(tmp_path / "here", text)
        assert (tmp_path / "here").is_symlink() and (tmp_path / "middle").is_symlink()
        assert (tmp_path / "there/file").read_text() == text
    (tmp_path / "lost").symlink_to("nowhere/file")
    with pytest.raises(FileNotFoundError, match="the folder .*nowhere is missing"):
        write_text(tmp_path / "lost", "x")
    (tmp_path / "run").symlink_to("there/run")
    with new_folder(tmp_path / "run") as folder:
        (folder / "a").touch()
    assert (tmp_path / "run").is_symlink() and (tmp_path / "there/run/a").is_file()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_are_written_to_and_stay(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        read = []
        reader = threading.Thread(target=lambda into=read: into.append((tmp_path / "pipe").read_text()))
        reader.start()
        write_text(tmp_path / name, "whole")
        reader.join(10)
        assert read == ["whole"] and (tmp_path / "pipe").is_fifo()
    assert sorted(os.listdir(tmp_path)) == ["link", "pipe"]


def test_devices_are_written_to_and_stay(tmp_path):
    if not Path("/dev/null").exists():
        pytest.skip("the system has no /dev/null")
    (tmp_path / "null").symlink_to("/dev/null")
    for path in (tmp_path / "null", Path("/dev/null")):
        write_text(path, "gone")
        assert is_stream(path) and path.is_char_device()
    assert is_stream("/dev/stdout") and not is_stream(tmp_path) and not is_stream(tmp_path / "new")
    code = "from ppl_fast._files import write_text; write_text('/dev/stdout', 'whole')"
    run = partial(subprocess.run, [sys.executable, "-c", code], check=True, text=True)
    assert run(stdout=subprocess.PIPE).stdout == "whole"
    with open(tmp_path / "out", "w") as file:  # also where it is directed to a file
        run(stdout=file)
    assert (tmp_path / "out").read_text() == "whole"
    with open(tmp_path / "out", "a") as file:  # what is there stays
        run(stdout=file)
    assert (tmp_path / "out").read_text() == "wholewhole"


@pytest.mark.parametrize(
    ("name", "shown"),
    [("café.png", "café.png"), (os.fsdecode(b"caf\xe9.png"), r"caf\xe9.png"), ("\ud800.png", r"\ud800.png")],
)
def test_names_that_are_no_text(name, shown):
    assert readable(name) == shown and shown.encode("utf-8")
