"""Files and folders that appear under their final name whole or not at all.

Each is written beside its place under a name that no other process or thread takes, and renamed when it is whole.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

TAKEN = (errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)  # what a held lock raises, system by system
STREAMS = ("/dev/stdout", "/dev/stderr", "/dev/fd/", "/proc/")  # are never replaced, nor are devices and pipes
MOST_LINKS = 40  # that lead to one another
OVERLAY = "drawn by ppl_fast"  # is written into pictures and videos of poses, which are no originals
ATTEMPTS = 10  # at a lock whose file is another one by the time that it is held
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


@contextmanager
def locked(path: str | os.PathLike[str], sentence: str) -> Iterator[None]:
    """Hold a file that one process alone may hold; when the process ends, however it does, the system lets go of it.

    Args:
        path: of the file, which is made, and removed when the block ends. Where the file system has no locks, none is
            held.
        sentence: of the error.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be written.
    """
    path = Path(path)
    for attempt in range(ATTEMPTS):
        with open(path, "a", encoding="utf-8") as file:
            try:
                _lock(file)
            except OSError as error:
                if error.errno in TAKEN:
                    raise BlockingIOError(sentence) from error
            removed = not path.exists() or os.fstat(file.fileno()).st_ino != path.stat().st_ino
            if removed and attempt + 1 < ATTEMPTS:
                continue  # who held it has just ended
            _held.add(file)
            try:
                yield
            finally:
                _held.remove(file)
                with suppress(OSError):  # Windows removes no open file
                    path.unlink(missing_ok=True)
            return


def lead_nowhere(descriptor: int) -> None:
    """Let go of an open file without its number, which whoever has it may still write to and close."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


_held: set[TextIO] = set()


def _let_go() -> None:
    """In a process that was forked: it has the locks too, and would keep them when the one that took them is killed."""
    for file in _held:
        lead_nowhere(file.fileno())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def is_stream(path: str | os.PathLike[str]) -> bool:
    """Whether an output is written through rather than replaced: a device, a pipe, a socket, or a link to one."""
    return _end_of_links(Path(path))[1]


def stamp(path: Path) -> tuple[int, int]:
    """Bytes and date (ns) of a file, by which it is taken for the same as before; -1 where it is not there."""
    try:
        state = path.stat()
    except OSError:
        return -1, -1
    return state.st_size, state.st_mtime_ns


def cache_folder(kind: str) -> Path:
    """Where what can be made again is kept between runs: a folder in $PPL_FAST_CACHE, or in the user's cache."""
    own, general = (os.environ.get(name) for name in ("PPL_FAST_CACHE", "XDG_CACHE_HOME"))
    return Path(own or Path(general or Path.home() / ".cache", "ppl_fast"), kind)


def readable(name: str) -> str:
    r"""A file's name as text that every file and console takes: bytes of it that are no UTF-8 as `\xe9`."""
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # halves of characters, as Windows has them
        return name.encode("utf-8", "backslashreplace").decode()


def meant(name: str) -> str:
    """The name of a file that is there, given as it is or as `readable` writes it; else `name`."""
    raw = re.sub(rb"\\x([0-9a-f]{2})", lambda found: bytes.fromhex(found[1].decode()), os.fsencode(name))
    return os.fsdecode(raw) if not os.path.exists(name) and os.path.exists(raw) else name


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

    What `folder` already holds stays, but for files of the same names. Missing folders are made; a new one that stays
    empty goes again.

    Raises:
        OSError: it cannot be written.
    """
    folder = Path(folder)
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = _beside(folder / "part")
    temporary.mkdir()
    try:
        yield temporary
        new = False
        for file in sorted(path for path in temporary.rglob("*") if path.is_file()):
            place = folder / file.relative_to(temporary)
            place.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, place)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if new:
            with suppress(OSError):  # somebody has put something there
                folder.rmdir()


def check_writable(folder: str | os.PathLike[str]) -> None:
    """Raise a PermissionError where a folder, or what is to hold it, cannot be written in; nothing is made."""
    wanted = Path(folder).absolute()
    place = next(place for place in (wanted, *wanted.parents) if place.exists())
    if not os.access(place, os.W_OK):
        raise PermissionError(f"output folder {readable(str(place))} is not writable")


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
        with open(temporary, "rb") as source, _sink(path) as sink:
            shutil.copyfileobj(source, sink)


def _sink(path: Path) -> BinaryIO:
    """A stream to write to; one of this process's own goes on where it is, as a file opened anew would be emptied."""
    found = re.fullmatch(r"/dev/(stdout|stderr|fd/(\d+))", str(path))
    if not found:
        return open(path, "wb")
    for shown in filter(None, (sys.stdout, sys.stderr)):
        shown.flush()
    number = {"stdout": 1, "stderr": 2}.get(found[1])
    return open(os.dup(int(found[2]) if number is None else number), "wb")


def _lock(file: TextIO) -> None:
    """Lock an open file, or raise an OSError at once."""
    if sys.platform == "win32":
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _beside(path: Path) -> Path:
    """A hidden name in the same folder, for one writer alone: processes on other machines may have the same number."""
    return path.with_name(f".{path.name[:NAME_SHOWN]}.{secrets.token_hex(6)}.tmp")
