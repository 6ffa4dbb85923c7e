"""Files and folders that appear under their final name whole or not at all.

Each is written beside its place under a name that no other process or thread takes, and renamed when it is whole.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")  # are never replaced, nor are devices and pipes
MOST_LINKS = 40  # that lead to one another
OVERLAY = "drawn by ppl_fast"  # is written into pictures and videos of poses, which are no originals
NAME_SHOWN = 50  # characters of a target in its temporary name: file systems end at 255 bytes


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A temporary name beside `path` to write a file to; it takes the place of `path` when the block ends well.

    When the block raises, or is interrupted, the temporary file is removed and `path` stays as it was. A link stays:
    what it leads to is replaced. What is no regular file, such as /dev/stdout or a pipe, is written to at the end.

    Raises:
        FileNotFoundError: the folder of `path` is missing.
        OSError: it cannot be written.
    """
    path, stream = _end_of_links(Path(path))
    if stream:
        with _written_through(path) as temporary:
            yield temporary
        return
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


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether an output is written through rather than replaced: a device, a pipe, a socket, or a link to one."""
    return _end_of_links(Path(path))[1]


def readable(name: str) -> str:
    r"""A file's name as text that every file and console takes: bytes of it that are no UTF-8 as `\xe9`."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # halves of characters, as Windows has them
        return name.encode("utf-8", "backslashreplace").decode()


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
    path = _end_of_links(Path(path))[0]
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


def _end_of_links(path: Path) -> tuple[Path, bool]:
    """What a path leads to, link by link, and whether that is a stream; it need not exist."""
    for _ in range(MOST_LINKS):
        if str(path).startswith(STREAMS):
            return path, True  # whatever it happens to be directed to
        if not path.is_symlink():
            break
        path = path.parent / os.readlink(path)
    return path, path.exists() and not (path.is_file() or path.is_dir())


@contextmanager
def _written_through(path: Path) -> Iterator[Path]:
    """A temporary file whose bytes go to a stream when the block ends well."""
    with tempfile.TemporaryDirectory(prefix="ppl_fast_") as folder:
        temporary = Path(folder, f"part{path.suffix}")
        temporary.touch()
        yield temporary
        with open(temporary, "rb") as source, open(path, "wb") as sink:
            shutil.copyfileobj(source, sink)


def _beside(path: Path) -> Path:
    """A hidden name in the same folder, for one writer alone: processes on other machines may have the same number."""
    return path.with_name(f".{path.name[:NAME_SHOWN]}.{secrets.token_hex(6)}.tmp")
