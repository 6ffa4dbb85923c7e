"""Files and folders that appear under their final name whole or not at all.

Each is written beside its place under a name that no other process or thread takes, and renamed when it is whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAME_SHOWN = 50  # characters of a target in its temporary name: file systems end at 255 bytes


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside `path` to write a file to; it takes the place of `path` when the block ends well.

    When the block raises, or is interrupted, the temporary file is removed and `path` stays as it was.

    Raises:
        FileNotFoundError: the folder of `path` is missing.
        OSError: it cannot be written.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path} cannot be written: the folder {path.parent} is missing")
    temporary = _beside(path)
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode
        yield temporary
        os.chmod(temporary, mode)  # some writers make files that nobody else may read
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a text file in UTF-8 that takes the place of `path` whole or not at all. Raises as `replacing` does."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def new_folder(path: str | os.PathLike[str], *, durable: bool = False) -> Iterator[Path]:
    """A temporary folder beside `path` to fill; it becomes `path` when the block ends well, and else is removed.

    Missing folders above `path` are made.

    Args:
        path: new, or an empty folder.
        durable: have its files on the disk before it gets its name, so that a power cut leaves no empty ones there.

    Raises:
        FileExistsError: `path` is a file, or a folder that holds something.
        OSError: it cannot be written.
    """
    path = Path(path)
    if is_taken(path):
        raise FileExistsError(f"{path} exists and is not an empty folder")
    temporary = _beside(path)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if durable:
            for file in temporary.iterdir():
                with open(file, "rb") as opened:
                    os.fsync(opened.fileno())
        if path.exists():
            path.rmdir()  # empty, as checked; not every system renames over a folder
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def filling(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary folder within `folder`, whose files move to the same places in `folder` when the block ends well.

    What `folder` already holds stays, but for files of the same names. Missing folders are made.

    Raises:
        OSError: it cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    temporary = _beside(folder / "part")
    temporary.mkdir()
    try:
        yield temporary
        for file in sorted(path for path in temporary.rglob("*") if path.is_file()):
            place = folder / file.relative_to(temporary)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_taken(path: Path) -> bool:
    """Whether a new folder cannot have this name: it is a file, or a folder that holds something."""
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def _beside(path: Path) -> Path:
    """A hidden name in the same folder, for one writer alone: processes on other machines may have the same number."""
    return path.with_name(f".{path.name[:NAME_SHOWN]}.{secrets.token_hex(6)}.tmp")
