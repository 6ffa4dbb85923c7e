"""What moves before the backgrounds that images agree on: where the subject of each image is, found without labels."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import NoReturn

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from tqdm import tqdm

from ppl_fast._console import no_bar
from ppl_fast.data.image_set import ImageSet
from ppl_fast.data.kinds import VIDEO_SUFFIXES
from ppl_fast.data.mask import shares_after_resizing
from ppl_fast.data.moving import BLUR, JOINED, SIDE, animal, usual
from ppl_fast.data.order import by_clip, video_of
from ppl_fast.data.pixels import levels
from ppl_fast.data.scenes import Scenes
from ppl_fast.data.subjects import UNKNOWN, NothingMovesError

LEAST_PART = 0.05  # of the heaviest part that moves: a paw that is seen apart from the body, or once more in a mirror
SMALL = 1 / 3  # of the image's side: a subject that reaches over less has too few pixels for its parts
LARGEST = 2 * SIDE  # pixels of the side of a whole image that crops are looked at in


class MovingSubjects(Dataset[torch.Tensor]):
    """What moves before backgrounds that images agree on, found without labels when the set is built.

    A clip is the frames of a video, or the images of one folder; each image is looked at before its own background
    (`ppl_fast.data.scenes`), as the model sees it, without its shadow (`ppl_fast.data.moving`). Crops move with the
    animal, and so what moves is looked for in the whole images around them. An image of which no background is known
    is looked at no further. The images of a folder of a video's name (as in a project of DeepLabCut) have the video's
    backgrounds.

    Args:
        images: the set.

    `subjects[i]` is as that of `SubjectMasks`; 0 and 1 alone, and `UNKNOWN` throughout where nothing was found.

    Attributes:
        report: what was found, in a few lines fit for printing.

    Raises:
        NothingMovesError: something is found in none of its images.
        OSError: there is no room for the whole images around crops.
        ImportError: scipy is not installed.
    """

    def __init__(self, images: ImageSet):
        self._size = images.image_size
        side = _side(images) if images.cropped else 0
        self._packed: list[np.ndarray | None] = [None] * len(images)
        found, reaches = dict[str, Scenes](), list[float]()
        row_of = {name: row for row, name in enumerate(images.paths)}
        clips = by_clip(images.paths)
        videos = [clip for clip in clips if PurePosixPath(clip).suffix.lower() in VIDEO_SUFFIXES]
        looks = len(images) * (1 + images.cropped)
        with tqdm(total=looks, desc="what moves", unit="", leave=False, disable=no_bar()) as bar:
            for clip in (*videos, *(clip for clip in clips if clip not in videos)):
                rows = [row_of[name] for name in clips[clip]]
                frames = _Around(images, rows, side, bar) if images.cropped else _Frames(images, rows)
                scenes = found.get(video_of(clip, videos) or "") or found.setdefault(clip, Scenes(frames))
                for place, all_moved in _moved(frames, scenes, bar):
                    moved = frames.seen(place, all_moved)
                    if not moved.any():
                        continue
                    self._packed[frames.rows[place]] = np.packbits(moved)
                    reaches.append(_reach(moved))
        self.known = len(reaches)
        if not self.known:
            raise NothingMovesError(f"MovingSubjects: nothing moves in {images.root} before what its images agree on")
        self.report = f"something moves in {self.known} of {len(images)} images, and draws links and keypoints"
        if (count := sum(map(len, found.values()))) > 1:
            self.report += f"; they have {count} backgrounds"
        if (reach := np.median(reaches)) < SMALL:
            then = "its boxes are too large" if images.cropped else "--crop moving lets the model see it large"
            self.report += (
                f"\nwhat moves reaches over {reach:.0%} of the image's side: if that is the whole subject, it is too "
                f"small to tell its parts apart, and {then}"
            )

    def __len__(self) -> int:
        return len(self._packed)

    def __getitem__(self, index: int) -> torch.Tensor:
        packed, shape = self._packed[index], (1, self._size, self._size)
        if packed is None:
            return torch.full(shape, UNKNOWN)
        return torch.from_numpy(np.unpackbits(packed, count=self._size**2).astype(np.float32)).view(shape)


class _Frames:
    """Some images of a set as the model sees them, uint8 (S, S, 3)."""

    def __init__(self, images: ImageSet, rows: list[int]):
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> np.ndarray:
        return levels(self.images[self.rows[place]]).permute(1, 2, 0).contiguous().numpy()

    def seen(self, place: int, mask: np.ndarray) -> np.ndarray:
        """What the model sees, (S, S), of a mask of such an image."""
        return mask


class _Around(_Frames):
    """The whole images around some crops, uint8 (side, side, 3).

    Beside them are their edges again, which the light changes as it does the image. They are decoded once, in order, to
    a temporary file.
    """

    def __init__(self, images: ImageSet, rows: list[int], side: int, bar: tqdm[NoReturn]):
        super().__init__(images, rows)
        self._boxes, self._side = np.asarray(images.boxes), side
        with tempfile.TemporaryFile() as file:
            for place, image in enumerate(images.originals(rows, side)):
                pixels = self._square(place, image)
                try:
                    file.write(pixels.tobytes())
                    file.flush()
                except OSError as error:
                    raise OSError(
                        f"the whole images around crops cannot be kept in {tempfile.gettempdir()}: {error.strerror}; "
                        "TMPDIR can name another place"
                    ) from error
                bar.update()
            self._pixels = np.memmap(file, np.uint8, "r", shape=(len(rows), side, side, 3))

    def __getitem__(self, place: int) -> np.ndarray:
        return np.array(self._pixels[place])

    def _square(self, place: int, image: Image.Image) -> np.ndarray:
        (left, top), (width, height) = self._placed(place)
        reduced = np.asarray(image.resize((int(width), int(height)), Image.Resampling.BILINEAR))
        beside = (top, self._side - height - top), (left, self._side - width - left), (0, 0)
        return np.pad(reduced, beside, mode="edge")

    def seen(self, place: int, mask: np.ndarray) -> np.ndarray:
        """The part of it in the crop, and in the image."""
        (left, top), (width, height) = self._placed(place)
        x, y, across, down, angle = self._boxes[self.rows[place]]
        scale = np.array([width, height]) / self.images.original_sizes[self.rows[place]]
        box = np.array([x * scale[0], y * scale[1], across * scale.max(), down * scale.max(), angle])
        shares = shares_after_resizing(mask[top : top + height, left : left + width], self.images.image_size, box)
        return np.asarray(shares[0] >= 0.5)

    def _placed(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """Where the image begins on the square, and its size there, both (x, y)."""
        size = np.array(self.images.original_sizes[self.rows[place]])
        reduced = np.maximum(1, np.round(size * self._side / size.max())).astype(int)
        return (self._side - reduced) // 2, reduced


def _side(images: ImageSet) -> int:
    """Of the squares that whole images around crops are laid on: crops have about as many pixels as the model sees."""
    shares = np.asarray(images.boxes)[:, 2:4].max(axis=1) / np.max(images.original_sizes, axis=1)
    return int(np.clip(images.image_size / np.median(shares), images.image_size, LARGEST))


def _moved(frames: _Frames, scenes: Scenes, bar: tqdm[NoReturn]) -> Iterator[tuple[int, np.ndarray]]:
    """The places of a clip at which something moves, of about the size of most, and its mask."""
    scale = min(1.0, frames.images.image_size / SIDE)  # by the model's pixels, in whole images around crops as well
    found: dict[int, np.ndarray] = {}
    for place in range(len(frames)):
        bar.update()
        if scenes and (still := scenes.behind(pixels := frames[place])):
            moved = animal(pixels, still, BLUR * scale, round(JOINED * scale), shadow=False, least_part=LEAST_PART)
            found |= {} if moved is None else {place: moved}
    kept = usual(np.array([moved.sum() for moved in found.values()], float))
    yield from (each for each, keep in zip(found.items(), kept, strict=True) if keep)


def _reach(mask: np.ndarray) -> float:
    """The longer side of the box around what is there, as a share of the image's."""
    return float(max(np.ptp(np.flatnonzero(mask.any(axis=axis))) + 1 for axis in (0, 1)) / len(mask))
