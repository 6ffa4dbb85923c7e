"""Poses with the pictures that they were found in, so many and so small that the page stays light."""

from __future__ import annotations

import base64
import io
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from ppl_fast._files import readable
from ppl_fast.data.boxes import seen
from ppl_fast.data.image_set import ImageSet
from ppl_fast.data.pixels import normalised
from ppl_fast.data.video import Frame, Video
from ppl_fast.inference import Estimation, Media, Poses, Source
from ppl_fast.inference.frames import Frames
from ppl_fast.inference.posing import Posing, device_of
from ppl_fast.inference.sources import Images
from ppl_fast.models import KeypointModel
from ppl_fast.page.memory import memory_of, recall
from ppl_fast.page.named import CONFIDENCE, Noting, Sureness
from ppl_fast.page.numbers import rounded

# (longer side in pixels, quality of JPEG), tried in this order until a picture fits into its share of the page.
LADDER = ((512, 85), (448, 80), (384, 80), (320, 75), (256, 70), (208, 65), (160, 60), (128, 50))
IN_TEXT = 4 / 3  # bytes of base64 for a byte
# What tells plausible poses from others, beside confidence: in each picture's `measures` one number a keypoint.
MEMORY_MEASURE = {
    "key": "memory",
    "label": "Distance to the memory",
    "unit": "of the image size",
    "better": "low",
    "about": "How far each keypoint lies from its place in the pose as the memory holds it. Large: a pose unlike those "
    "of the training images, or a wrong one.",
}


class Shown(NamedTuple):
    """Pictures with their poses, as the page's data, and some of them as the model takes them."""

    data: dict[str, Any]
    images: torch.Tensor  # (n, 3, S, S) in [-1, 1]
    names: list[str]  # of those
    skipped: list[tuple[str, str]]  # (name, reason) of what does not decode, or shows nothing


class _Some:
    """Some images of a set, with their names, sizes and originals."""

    def __init__(self, images: ImageSet, rows: Sequence[int]):
        self.images, self.rows = images, rows
        self.paths = [images.paths[i] for i in rows]
        self.original_sizes = [images.original_sizes[i] for i in rows]
        self.boxes = None if images.boxes is None else images.boxes[rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[self.rows[index]]

    def original(self, index: int) -> Image.Image:
        return self.images.original(self.rows[index])


class _Thinned(Video):
    """A video of which every `every`-th frame counts, and of those the first `most`."""

    def __init__(self, video: Video, every: int, most: int):
        vars(self).update(vars(video))  # which has looked at the file
        self.every, self.most = every, most
        self.length = min(most, math.ceil(self.length / every)) if self.length else None

    def frames(
        self, every: int = 1, wanted: Callable[[int], bool] | None = None, size: int | None = None
    ) -> Iterator[Frame]:
        """See `Video.frames`."""
        for _, frame in zip(range(self.most), super().frames(every * self.every, wanted, size), strict=False):
            yield frame


def thinned(media: Media, most: int) -> tuple[Media, list[dict[str, Any]]]:
    """About `most` images and frames, at least one of each part, spread evenly over the parts and within each.

    Returns:
        The source, and of each of its parts {"name", "moving", "every": of a video, the distance of its frames, "of":
        how many there are in all, None where a video does not tell}.
    """
    lengths = [part.length for part in media.parts]
    share = min(1.0, most / max(1, sum(length or most for length in lengths)))
    parts: list[Source] = []
    clips = []
    for part, length in zip(media.parts, lengths, strict=True):
        wanted = max(1, round(share * (length or most)))
        if isinstance(part, Frames):
            every = math.ceil((length or 1) / wanted)
            video = _Thinned(part.video, every, wanted)
            parts.append(Frames(video, part.image_size, part.name, part.losses, part.views))
            clips.append({"name": readable(part.name), "moving": True, "every": every, "of": length})
        else:
            assert isinstance(part, Images) and isinstance(part.images, ImageSet)
            rows = np.linspace(0, len(part.images) - 1, wanted).round().astype(int).tolist()
            parts.append(Images(_Some(part.images, rows), part.workers, part.name, part.losses))
            clips.append({"name": "images", "moving": False, "every": 1, "of": length})
    return Media(parts, media.losses, media.report, media.root), clips


def pictures(
    model: KeypointModel,
    media: Media,
    sure: Sureness,
    *,
    most: int,
    some: int,
    budget: float,
    iterations: int,
    batch_size: int,
    progress: bool,
) -> Shown:
    """The poses of files, each with its picture; what shows the model nothing is left out.

    Args:
        model: a trained model.
        media: folder, images or videos, as `open_source` finds them.
        sure: the named joints, and whether there is confidence.
        most: images and frames to show, about.
        some: of them to give as the model takes them, spread evenly.
        budget: bytes that the pictures may take up in the page, about.
        iterations: as `ppl_fast.inference.estimate` has it.
        batch_size: likewise.
        progress: likewise.

    Raises:
        ValueError, OSError, ImportError: see `ppl_fast.inference.estimate`.
    """
    size = model.settings.image_size
    media, clips = thinned(media, most)
    posing = Posing(model, iterations, confidence=sure.confidence, joints=sure.joints)
    batches = Estimation(posing, media, batch_size=batch_size, progress=progress)
    total = sum(part.length or most for part in media.parts)
    wanted = set(np.linspace(0, total - 1, min(some, total)).round().astype(int).tolist())
    encoder = Encoder(budget / max(total, 1))
    shown: list[dict[str, Any]] = []
    kept: dict[str, torch.Tensor] = {}
    empty: Counter[str] = Counter()
    for batch in batches:
        clip = _clip_of(batch, clips)
        for row, entry in enumerate(_entries(model, batch, sure.joints)):
            if any(None in point for point in entry["points"]):
                empty[clips[clip]["name"]] += 1
                continue
            picture = batch.image(row)
            if len(shown) in wanted:
                box = None if batch.boxes is None else batch.boxes[row]
                kept[readable(batch.unique_names[row])] = normalised(seen(picture, box, size))
            shown.append(entry | {"clip": clip, "image": encoder(picture)})
    measures = [*sure.measures(), *([MEMORY_MEASURE] if memory_of(model) is not None else [])]
    images = torch.stack(list(kept.values())) if kept else torch.zeros(0, 3, size, size)
    data = {"clips": clips, "measures": measures, "pictures": shown, "iterations": iterations}
    nothing = [(name, f"{count} of what was chosen of it show no animal") for name, count in empty.items()]
    return Shown(data, images, list(kept), media.skipped + nothing)


def _entries(model: KeypointModel, poses: Poses, joints: Noting | None) -> list[dict[str, Any]]:
    """Of each pose of a batch what the page shows; where there is a memory, also what it makes of the pose."""
    if joints is not None:
        return _named(_entries(model, _keypoints_of(joints, poses, model.settings.image_size), None), poses)
    memory = memory_of(model)
    entries: list[dict[str, Any]] = [
        {
            "name": readable(name),
            "frame": poses.frames[row],
            "time": poses.times[row],
            "size": poses.sizes[row].tolist(),
            "points": rounded(poses.keypoints[row], 2),
            "measures": {} if poses.confidence is None else {CONFIDENCE["key"]: rounded(poses.confidence[row], 4)},
        }
        for row, name in enumerate(poses.names)
    ]
    if memory is not None:
        found = torch.from_numpy(np.nan_to_num(poses.normalised))
        held = recall(memory, found.to(device_of(model), model.dtype))
        places = poses.in_pixels(held.keypoints.double().cpu().numpy(), model.settings.image_size)
        for row, entry in enumerate(entries):
            entry["recalled"] = rounded(places[row], 2)
            entry["codes"] = held.codes[row].tolist()
            entry["measures"][MEMORY_MEASURE["key"]] = rounded(held.distances[row], 5)
    return entries


def _keypoints_of(joints: Noting, poses: Poses, image_size: int) -> Poses:
    """The poses of keypoints that joints were made of."""
    normalised = joints.keypoints
    if poses.boxes is not None:
        nothing = np.isnan(poses.boxes).any(axis=1).reshape(-1, 1, 1)
        normalised = np.where(nothing, np.nan, normalised)
    return replace(
        poses,
        keypoints=poses.in_pixels(normalised, image_size),
        normalised=normalised,
        confidence=joints.confidence,
    )


def _named(entries: list[dict[str, Any]], poses: Poses) -> list[dict[str, Any]]:
    """Entries with the joints beside the keypoints."""
    for row, entry in enumerate(entries):
        sure = {} if poses.confidence is None else {CONFIDENCE["key"]: rounded(poses.confidence[row], 4)}
        entry["joints"] = {"points": rounded(poses.keypoints[row], 2), "measures": sure}
    return entries


def _clip_of(poses: Poses, clips: list[dict[str, Any]]) -> int:
    """The number of the part that a batch is of: no batch mixes images and frames, or frames of two videos."""
    moving, name = poses.video is not None, readable(poses.names[0])
    parts = [i for i, clip in enumerate(clips) if clip["moving"] == moving and (not moving or clip["name"] == name)]
    return parts[0]


class Encoder:
    """Pictures as data URIs of JPEGs, each within its share of bytes where the ladder reaches so far down.

    Once a picture has needed a step down, those that follow begin there: frames of a video are to look alike.
    """

    def __init__(self, share: float):
        self.share, self.step = share, 0

    def __call__(self, picture: Image.Image) -> str:
        """The picture, at most as large as it is."""
        while True:
            side, quality = LADDER[self.step]
            raw = jpeg(picture, side, quality)
            if len(raw) * IN_TEXT <= self.share or self.step + 1 == len(LADDER):
                return data_uri(raw)
            self.step += 1


def jpeg(picture: Image.Image, side: int, quality: int) -> bytes:
    """A picture whose longer side has at most `side` pixels, as a JPEG."""
    factor = min(1.0, side / max(picture.size))
    if factor < 1:
        width, height = (max(1, round(factor * length)) for length in picture.size)
        picture = picture.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    written = io.BytesIO()
    picture.convert("RGB").save(written, "JPEG", quality=quality, optimize=True)
    return written.getvalue()


def data_uri(raw: bytes) -> str:
    """A JPEG as a URI that holds it."""
    return "data:image/jpeg;base64," + base64.b64encode(raw).decode()
