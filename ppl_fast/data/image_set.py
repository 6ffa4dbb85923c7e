"""What every data set of images here is: names, sizes, and tensors on demand."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset
from tqdm import tqdm

from ppl_fast._console import no_bar
from ppl_fast._digest import digest
from ppl_fast._documents import MAX_PIXELS
from ppl_fast._files import cache_folder, readable, stamp
from ppl_fast._messages import listed
from ppl_fast._options import integer
from ppl_fast.data.boxes import Box, seen
from ppl_fast.data.caches import DiskCache, MemoryCache, Outcome, Put
from ppl_fast.data.framing import Views
from ppl_fast.data.image_file import SMALLEST_SIDE, UNREADABLE
from ppl_fast.data.pixels import normalised, resized
from ppl_fast.options.footage import CACHES

AT_ONCE = 16  # images that a thread measures in a row, at least
MOST_JOBS = 4096  # that wait for a thread
KEPT = 1 << 29  # bytes of resized images that "auto" keeps in memory


class ImageSet(Dataset[torch.Tensor]):
    """Named images, each resized to a square: the part that is the same wherever they are stored.

    A subclass says by name how large an image is and how to get it, `_size` and `_picture`, and where there is a
    faster way to its resized form than by the whole image, `_load`.
    All images are measured when the set is built, and with a cache loaded; those that fail are skipped.

    Args:
        root: where the images are, for messages.
        names: one name an image, distinct, in order.
        image_size: S; `dataset[i]` is a float32 tensor (3, S, S) in [-1, 1].
        cache: where to keep the resized images, 3 * S * S bytes each: "no", nowhere; "memory"; "disk", in the folder
            images of `ppl_fast._files.cache_folder`, for all processes and for the next time; see
            `ppl_fast.data.caches`; or "auto", in memory from their first use on, where all are at most 512 MB.
        max_bad_share: above this share of unreadable images the set is refused.
        beside: videos that lie among the images, and count as files in that share.
        max_pixels: images that decode to more are unreadable; a JPEG is decoded at a reduced size where that will do.
        views: what of each image is seen (`ppl_fast.data.framing`); None for all of it, stretched to the square.

    Attributes:
        paths: the names that are used.
        original_sizes: (W, H) of each image.
        skipped: (name, reason) of images left out.
        kept: by number, the resized images that were used before, where "auto" keeps them; else None.
        ignored: names of files that are no images.
        clips: per image the number of the clip it is a frame of, or None where images stand alone.
        views: as given.
        boxes: (n, 5) of what is seen of each image, as `ppl_fast.data.boxes` has them; None for all of it.
        empty: names of images that show nothing, which are left out.

    Raises:
        ValueError: too many unreadable images, sizes out of range.
    """

    ignored: list[str] = []
    clips: list[int] | None = None

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        image_size: int,
        *,
        cache: str = "no",
        max_bad_share: float = 0.1,
        beside: int = 0,
        max_pixels: int = MAX_PIXELS,
        views: Views | None = None,
    ):
        kind = type(self).__name__
        self.max_pixels = integer(kind, "max_pixels", max_pixels, low=SMALLEST_SIDE**2)
        image_size = integer(kind, "image_size", image_size, low=SMALLEST_SIDE)
        if not 0 <= max_bad_share <= 1:
            raise ValueError(f"{kind}: max_bad_share must lie in [0, 1], got {max_bad_share}")
        self.root, self.image_size, self.views = root, image_size, views
        self.empty = [] if views is None else [name for name in names if not views.shows(name)]
        if views is not None and self.empty:
            names = self._some(names, [i for i, name in enumerate(names) if views.shows(name)])
        if self.empty and not names:
            raise ValueError(f"{kind}: none of the {len(self.empty)} images in {root} shows an animal")
        self._boxes: list[Box | None] = [None] * len(names)
        self.paths = names
        self._cache = self._new_cache(cache)
        fits = 3 * image_size**2 * len(names) <= KEPT
        self.kept: dict[int, torch.Tensor] | None = {} if cache == "auto" and fits else None
        outcomes = self._inspect_all(names, None) if self._cache is None else self._filled(self._cache)
        self.skipped = [(names[i], outcome) for i, outcome in enumerate(outcomes) if isinstance(outcome, str)]
        self.original_sizes = [outcome for outcome in outcomes if not isinstance(outcome, str)]
        if self.skipped:
            good = [i for i, outcome in enumerate(outcomes) if not isinstance(outcome, str)]
            self.paths, self._boxes = self._some(names, good), [self._boxes[i] for i in good]
            if self._cache is not None:
                self._cache.keep(good)
        self.boxes = None if views is None else np.array(self._boxes, np.float64)
        check_share(self.skipped, len(names), max_bad_share, f"images in {self.place()}", beside, f"{kind}: ")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        if self._cache is not None:
            pixels = self._cache[index]
        elif self.kept and index in self.kept:
            pixels = self.kept[index]
        else:
            try:
                pixels = self._pixels(self.paths[index], self._boxes[index])
            except ConnectionError:
                raise  # of a storage: the image may be whole
            except UNREADABLE as error:
                reason = " ".join(str(error).split())
                raise ValueError(
                    f"{type(self).__name__}: {self.place(self.paths[index])} could not be decoded ({reason}); "
                    "remove or replace it and start again"
                ) from error
            if self.kept is not None:
                self.kept[index] = pixels
        return normalised(pixels)

    @property
    def cropped(self) -> bool:
        """Whether parts of the images are seen alone."""
        return self.views is not None and self.views.rows is not None

    def original(self, index: int) -> Image.Image:
        """The image as it is stored, upright RGB at its original size; for overlays."""
        return self._picture(self.paths[index])

    def originals(self, rows: Sequence[int], size: int) -> Iterator[Image.Image]:
        """Images of one clip as `original` gives them, in order; frames of a video reduced to no less than `size`."""
        return map(self.original, rows)

    def place(self, name: str = "") -> str:
        """Where an image is, or all are, for messages."""
        return str(self.root / name)

    def stamps(self) -> Iterator[tuple[Any, ...]]:
        """Names of the files that are read, each with size and date."""
        if self.root.is_file():
            yield self.root.name, *stamp(self.root)
        else:
            yield from ((name, *stamp(self.root / name)) for name in self.paths)

    def report(self) -> str:
        """What was found, in a few lines fit for printing: used, skipped with reasons, ignored."""
        lines = [f"{len(self)} image{'s' * (len(self) != 1)} in {self.place()}"]
        if self.views is not None:
            lines += self.views.report
        if self.empty:
            lines.append(f"{len(self.empty)} more show no animal and are left out: {first_few(self.empty, 10)}")
        if self.skipped:
            lines.append(f"skipped {len(self.skipped)} unusable: {first_few(self.skipped, 10)}")
        if self.ignored:
            lines.append(f"ignored {len(self.ignored)} that are no images: {first_few(self.ignored, 10)}")
        return readable("\n".join(lines))

    def _some(self, names: Sequence[str], rows: Sequence[int]) -> Sequence[str]:
        """The names of these numbers, as what holds all of them."""
        return [names[i] for i in rows]

    def _size(self, name: str) -> tuple[int, int]:
        """Upright (W, H); raises one of `UNREADABLE` for an image that cannot be used."""
        raise NotImplementedError

    def _load(self, name: str) -> torch.Tensor:
        """The image as uint8 (3, S, S), upright RGB."""
        return resized(self._picture(name), self.image_size)

    def _pixels(self, name: str, box: Box | None) -> torch.Tensor:
        """What is seen of the image, as uint8 (3, S, S)."""
        return self._load(name) if box is None else seen(self._picture(name), box, self.image_size)

    def _picture(self, name: str) -> Image.Image:
        """The image as it is stored, upright RGB."""
        raise NotImplementedError

    def _new_cache(self, kind: str) -> MemoryCache | DiskCache | None:
        if kind not in CACHES:
            raise ValueError(f"{type(self).__name__}: cache must be one of {', '.join(CACHES)}, got {kind!r}")
        if kind == "memory":
            return MemoryCache(len(self.paths), self.image_size)
        if kind in ("no", "auto"):
            return None
        views = None if self.views is None else [self.views.fit, self.views.margin, self.views.rows is None]
        place = self.place() if "://" in self.place() else os.path.abspath(self.place())
        key = [type(self).__name__, place, self.image_size, views]
        path = cache_folder("images") / f"{digest(key)}.rgb"
        return DiskCache(path, self._state(), len(self.paths), self.image_size)

    def _state(self) -> str:
        """A digest of what the resized images depend on: files as they are, names, what is seen, and the decoder."""
        files = "\n".join(map(repr, chain(self.paths, self.stamps())))
        views = None if self.views is None else [self.views.fit, self.views.margin, self.views.rows]
        return digest([self.max_pixels, PIL.__version__, files, views])

    def _filled(self, cache: MemoryCache | DiskCache) -> list[Outcome]:
        """What came of each image, which is in the cache now."""
        names = self.paths
        outcomes = cache.filled(lambda put: self._inspect_all(names, put))
        if isinstance(cache, DiskCache) and not cache.usable:
            self._cache = None
        if self.views is not None:
            sizes = zip(names, outcomes, strict=True)
            self._boxes = [None if isinstance(size, str) else self.views.box(name, size) for name, size in sizes]
        return outcomes

    def _inspect_all(self, names: Sequence[str], put: Put | None) -> list[Outcome]:
        """Upright (W, H) of every readable image, or the reason as a string; each is put in the cache, if any."""
        known: dict[tuple[int, int], tuple[int, int]] = {}  # images of one size share one pair of numbers

        def inspect(i: int) -> Outcome:
            try:
                size = self._size(names[i])
                size = known.setdefault(size, size)
                if self.views is not None:
                    self._boxes[i] = self.views.box(names[i], size)
                pixels = None if put is None else self._pixels(names[i], self._boxes[i])
            except ConnectionError:
                raise
            except UNREADABLE as error:
                return _reason(error, self.place(names[i]))
            if put is not None and pixels is not None:
                put(i, pixels)
            return size

        with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
            # A job an image would take more memory than the answers; what is decoded is best read in order.
            together = AT_ONCE if put is not None else max(AT_ONCE, len(names) // MOST_JOBS)
            starts = range(0, len(names), together)
            jobs = pool.map(lambda start: [inspect(i) for i in range(len(names))[start : start + together]], starts)
            found = chain.from_iterable(jobs)
            return list(tqdm(found, total=len(names), desc="reading images", unit="", leave=False, disable=no_bar()))


def first_few(entries: Sequence[str | tuple[str, str]], count: int = 3) -> str:
    """The first names, or (name, reason) pairs, as text, and how many more there are."""
    shown = [entry if isinstance(entry, str) else f"{entry[0]} ({entry[1]})" for entry in entries]
    return readable(listed(shown, count))


def check_share(
    skipped: Sequence[tuple[str, str]], count: int, max_bad_share: float, kind: str, beside: int = 0, owner: str = ""
) -> None:
    """Raise a ValueError where more than a share of `count` images or videos was skipped, or all were.

    Files of the other kind `beside` them count as well; the message begins with `owner`.
    """
    files = count + beside
    if len(skipped) > max_bad_share * files or len(skipped) == files:
        among = f" among {files} files" if beside else ""
        raise ValueError(
            f"{owner}{len(skipped)} of {count} {kind}{among} are unusable, at most a share of {max_bad_share:g} may "
            f"be, and not all: {first_few(skipped)}"
        )


def _reason(error: Exception, path: str) -> str:
    """The error in a few words, without the path that Pillow repeats in it."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    return " ".join(str(error).replace(path, "the file").split())
