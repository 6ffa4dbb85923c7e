"""Shards: images by the thousand in tars, as WebDataset writes them, and in Parquet, as Hugging Face's `datasets` does.

They may lie anywhere that fsspec reaches. See `ppl_fast.data.shards.index` for how they are read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ppl_fast._console import no_bar
from ppl_fast._documents import MAX_PIXELS
from ppl_fast.data.framing import views_of
from ppl_fast.data.image_file import load_resized, load_upright, upright_size
from ppl_fast.data.image_set import ImageSet, check_share
from ppl_fast.data.shards.index import index_of
from ppl_fast.data.shards.names import Names, Some
from ppl_fast.data.shards.storage import Shard, find_shards
from ppl_fast.data.shards.tables import Tables
from ppl_fast.data.shards.tars import LARGEST_IMAGE
from ppl_fast.options.footage import MOVING, Framing

__all__ = ["Shard", "ShardedImages", "find_shards"]

AT_ONCE = 16  # shards that are read at once for their indices


class ShardedImages(ImageSet):
    """The images in shards, by names as `train-0000.tar/000012`: the shard, and the key of the sample in it.

    Images of tables go by the number of their row. They are read as by `ppl_fast.data.images.ImageFiles`, in the order
    of the shards and of the images in each. A shard is read once for its index, which is kept for the next time; see
    `ppl_fast.data.shards.index`.

    Args:
        shards: as `find_shards` gives them.
        image_size, cache, max_bad_share, max_pixels: those of `ImageSet`; the share is of images, and of shards that
            are cut short, whose images up to there are used.
        spec: what names the shards, for messages.
        framing: what is seen of each image, without boxes that are looked for; None for all of it.
        keep: keep what shows nothing, for a pose that is NaN.

    Raises:
        ValueError: no images, too many that are unusable, or shards that are none.
        OSError: a shard cannot be read.
        ImportError: a package is not installed that the shards need.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        image_size: int,
        *,
        spec: str,
        framing: Framing | None = None,
        keep: bool = False,
        **options: Any,
    ):
        self.shards, self.spec = list(shards), spec
        if framing is not None and framing.crop == MOVING:
            raise ValueError(f"what moves cannot be looked for in the single images of {spec}; name a file of boxes")
        with ThreadPoolExecutor(min(AT_ONCE, 4 * (os.cpu_count() or 1))) as pool:
            found = pool.map(index_of, self.shards)
            hidden = no_bar() or (True if len(self.shards) == 1 else None)
            bar = tqdm(found, total=len(self.shards), desc="reading shards", unit="", leave=False, disable=hidden)
            indices = list(bar)
        counts, lengths = [len(each.ends) for each in indices], [len(each.keys) for each in indices]
        if not sum(counts):
            broken = next((f": {each.broken}" for each in indices if each.broken), "")
            raise ValueError(f"expected images in the shards of {spec}, got none{broken}")
        before = np.cumsum([0, *lengths])
        ends = np.concatenate([each.ends + start for each, start in zip(indices, before, strict=False)])
        names = Names([each.name for each in self.shards], counts, b"".join(each.keys for each in indices), ends)
        self._all, self._fetched = names, dict[int, bytes]()
        self._starts, self._lengths, self._sizes = (
            np.concatenate([getattr(each, what) for each in indices]) for what in ("starts", "lengths", "sizes")
        )
        self._tables = Tables(self.shards)
        views = views_of(framing, Path(spec), names, {}, options.get("max_pixels", MAX_PIXELS), keep=keep)
        super().__init__(Path(spec), names, image_size, views=views, **options)
        cut = [(shard.name, each.broken) for shard, each in zip(self.shards, indices, strict=True) if each.broken]
        check_share(cut, len(self.shards), options.get("max_bad_share", 0.1), f"shards of {spec}")
        self.skipped += [(name, f"{reason}; the images up to there are used") for name, reason in cut]

    def place(self, name: str = "") -> str:
        """Where an image is, or all are, for messages."""
        if not name:
            return f"{self.spec} ({len(self.shards)} shard{'s' * (len(self.shards) != 1)})"
        number = self._all.shard(self._all.row(name))
        return f"{self.shards[number].address}{name.removeprefix(self.shards[number].name)}"

    def stamps(self) -> Iterator[tuple[str, str]]:
        """Name of each shard, and what tells its state from another."""
        yield from ((shard.name, shard.stamp()) for shard in self.shards)

    def _some(self, names: Sequence[str], rows: Sequence[int]) -> Sequence[str]:
        return Some(names, rows)

    def _size(self, name: str) -> tuple[int, int]:
        width, height = map(int, self._sizes[self._all.row(name)])
        if width and width * height <= self.max_pixels:
            return width, height
        return upright_size(self._content(name), self.image_size, self.max_pixels)

    def _load(self, name: str) -> torch.Tensor:
        return load_resized(self._content(name), self.image_size, self.max_pixels)

    def _picture(self, name: str) -> Image.Image:
        return load_upright(self._content(name), self.max_pixels)

    def fetch(self, rows: Sequence[int]) -> None:
        """Ask for the files of some images at once where storage is far, to be there when each is loaded."""
        if self._cache is not None:
            return
        wanted = {}
        for row in {self._all.row(self.paths[i]) for i in rows if i not in (self.kept or ())}:
            shard = self.shards[self._all.shard(row)]
            if shard.is_far and not shard.is_table and self._lengths[row] <= LARGEST_IMAGE:
                wanted[row] = shard, int(self._starts[row]), int(self._lengths[row])
        if wanted:
            found = next(iter(wanted.values()))[0].together([*wanted.values()])
            whole = zip(wanted, found, strict=True)
            self._fetched = {row: each for row, each in whole if each is not None and len(each) == wanted[row][2]}

    def _content(self, name: str) -> bytes:
        """The image file."""
        row = self._all.row(name)
        if (fetched := self._fetched.get(row)) is not None:
            return fetched
        number, start, length = self._all.shard(row), int(self._starts[row]), int(self._lengths[row])
        if self.shards[number].is_table:
            return self._tables.row(number, start)
        if length > LARGEST_IMAGE:
            raise ValueError(f"{length} bytes long; expected at most {LARGEST_IMAGE}")
        content = self.shards[number].read(start, length)
        if len(content) < length:
            raise ValueError(f"{len(content)} of its {length} bytes are there")
        return content
