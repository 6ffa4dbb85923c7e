"""The images in a tar, as WebDataset writes them: which members they are, and by what name each goes."""

from __future__ import annotations

import tarfile
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from ppl_fast.data.image_file import UNREADABLE
from ppl_fast.data.kinds import IMAGE_SUFFIXES
from ppl_fast.data.shards.storage import BrokenOff, Shard

LARGEST_IMAGE = 1 << 28  # bytes


class Member(NamedTuple):
    """An image in a tar: its path there, and where its bytes begin; their number."""

    path: str
    start: int
    length: int


def members(shard: Shard) -> Iterator[tuple[Member, bytes]]:
    """The images of a tar with their bytes, in order; read once from beginning to end.

    Raises:
        BrokenOff: it is cut short, or damaged between its members; what came before is whole.
        ConnectionError, OSError: it cannot be read.
    """
    with shard.open() as file:
        try:
            tar = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115  # its file is closed, and it has nothing else
            while (entry := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]  # which would grow
                if not (entry.isreg() and not entry.issparse() and is_image(entry.name)):
                    continue
                file.seek(entry.offset_data)
                content = file.read(min(entry.size, LARGEST_IMAGE))
                yield Member(entry.name.removeprefix("./"), entry.offset_data, entry.size), content
        except (ConnectionError, MemoryError):
            raise
        except (tarfile.TarError, *UNREADABLE) as error:
            raise BrokenOff(f"no tar, or cut short: {error}") from error
        file.seek(tar.offset)  # behind the last member: tarfile takes a damaged header for the end
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise BrokenOff(f"cut short or damaged at byte {tar.offset}: no further member, and no end of a tar")


def is_image(path: str) -> bool:
    """Whether a member is an image by its suffix, and not hidden."""
    name = path.rpartition("/")[2].lower()
    return name.endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def keys(paths: list[str]) -> list[str | None]:
    """The name of each image of a tar; None for one that goes with another, or that a later one replaces.

    The key of a sample is its path up to the first dot. `0001.jpg` goes by its key. `0001.mask.png` beside it is no
    image of its own; without it, it goes by `0001.mask`. Two of one name go by their whole paths.
    """
    split = [_split(path) for path in paths]
    plain = {key for key, rest in split if "." not in rest}
    beside = ["." in rest and key in plain for key, rest in split]
    named = [None if other else path.rpartition(".")[0] for path, other in zip(paths, beside, strict=True)]
    count = Counter(named)
    whole = [path if name is not None and count[name] > 1 else name for path, name in zip(paths, named, strict=True)]
    last = {name: row for row, name in enumerate(whole)}
    return [name if last[name] == row else None for row, name in enumerate(whole)]


def _split(path: str) -> tuple[str, str]:
    """Key and extension, which may have dots."""
    folder, slash, name = path.rpartition("/")
    key, _, rest = name.partition(".")
    return folder + slash + key, rest
