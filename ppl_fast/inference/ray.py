"""Bulk inference on Ray: the stages of `ppl_fast.inference.estimate` as one of Ray Data (the `ray` extra).

    poses = estimate(model, "/shared/footage", actors=8)
    poses.write_parquet("/shared/poses")

Tasks decode images, or frames of videos, to the model's size; actors, each with the model on a device of its own,
estimate them; Ray carries blocks between them, holds tasks back where blocks pile up, and does again what a lost worker
has not handed on. All must see the files under the same path.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ppl_fast._documents import MAX_PIXELS
from ppl_fast._extras import needing
from ppl_fast._options import integer
from ppl_fast.inference.confidence import Calibration
from ppl_fast.inference.frames import Frames
from ppl_fast.inference.poses import Origins
from ppl_fast.inference.posing import Batch, Posing
from ppl_fast.inference.schema import Schema, schema_of
from ppl_fast.inference.sources import Images, Losses, Source
from ppl_fast.inference.tables import table_of

with needing("ppl_fast.inference.ray needs", "ray"):
    import ray
    import ray.data

if TYPE_CHECKING:
    import pyarrow

    from ppl_fast.models import KeypointModel

Row = dict[str, Any]
LOG = logging.getLogger(__name__)
LISTS = ("names", "frames", "times", "durations", "end")  # of `Origins`, that are no arrays


def estimate(
    model: KeypointModel,
    source: str | os.PathLike[str],
    *,
    iterations: int = 1,
    confidence: bool | Calibration = False,
    batch_size: int = 32,
    actors: int = 1,
    gpus: float | None = None,
    frames: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> ray.data.Dataset:
    """The poses of images and videos as a data set of Ray, which computes them when it is asked for rows.

    Its columns are those of `--format parquet`: `file`; of videos `frame` and `time`; `NAME_x`, `NAME_y` and the like.
    Each image and frame has one row, in any order, equal to that of `ppl_fast.inference.estimate` with the same
    `batch_size`; where files are damaged, and batches another company, but for rounding. These have no rows; each is
    told to the log of its worker. Poses are neither smoothed nor of masked images, and the model sees the whole of each
    image, stretched to its square, also one that was trained on crops.

    Args:
        model: a trained model on the CPU; each actor moves a copy to its device.
        source: the path of a folder of images and videos, searched recursively, or of one of them.
        iterations: estimation passes.
        confidence: see `ppl_fast.inference.estimate`.
        batch_size: images or frames that go through the model at once.
        actors: copies of the model.
        gpus: that each of them takes; None for 1 where Ray has any, else 0.
        frames: of a video, that a task reads at most, a multiple of `batch_size`; those before them it decodes, too.
            None reads a video by one task.
        max_pixels: that an image or a frame may decode to; others count as damaged.

    Raises:
        ValueError: a number out of bounds, or nothing to estimate.
        ImportError: an extra is not installed.
    """
    from ppl_fast.data.clips import find_media
    from ppl_fast.data.images import folder_of

    batch_size = integer("estimate", "batch_size", batch_size, low=1)
    actors = integer("estimate", "actors", actors, low=1)
    if frames is not None and (frames < 1 or frames % batch_size):
        raise ValueError(f"estimate: frames must be a multiple of the batch size {batch_size}, got {frames}")
    root = Path(source)
    images, videos, _ = find_media(root)
    schema = schema_of(model, moving=bool(videos))
    if gpus is None:
        gpus = 1.0 if ray.cluster_resources().get("GPU") else 0.0  # type: ignore[no-untyped-call]
    items = [{"names": images[i : i + batch_size], "start": 0} for i in range(0, len(images), batch_size)]
    items += [item for name, path in videos.items() for item in _parts_of(name, path, frames, max_pixels)]
    reader = _Reader(folder_of(root), model.config["image_size"], batch_size, max_pixels, frames)
    posing = {"iterations": integer("estimate", "iterations", iterations, low=1), "confidence": confidence}
    return (
        ray.data.from_items([{"item": json.dumps(item)} for item in items], override_num_blocks=len(items))
        .flat_map(reader)
        .map_batches(
            _Estimator,
            fn_constructor_args=(ray.put(model), schema, posing),
            batch_size=1,
            batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_gpus=gpus or None,
        )
    )


def _parts_of(name: str, path: Path, frames: int | None, max_pixels: int) -> list[Row]:
    """What tasks read of a video; the last one to the end, wherever that is."""
    starts = [0]
    if frames is not None:
        from ppl_fast.data.video_frames import open_videos

        length = next((video.length for video in open_videos({name: path}, max_pixels)[0].values()), None)
        starts = [*range(0, length or 1, frames)]
    return [{"video": str(path), "names": [name], "start": start, "last": start == starts[-1]} for start in starts]


class _Told(Losses):
    """Losses that stop nothing: a task sees too few files to tell whether they are too many."""

    def check(self) -> None:
        """Nothing."""


class _Reader:
    """Decodes what an item names, batch by batch."""

    def __init__(self, root: Path, image_size: int, batch_size: int, max_pixels: int, frames: int | None):
        self.root, self.image_size, self.batch_size, self.frames = root, image_size, batch_size, frames
        self.max_pixels = max_pixels

    def __call__(self, row: Row) -> Iterator[Row]:
        from ppl_fast.data.pixels import levels

        item = json.loads(row["item"])
        losses = _Told("files", len(item["names"]), 1.0)
        source = self._open(item, losses)
        if source is not None:
            stop = None if self.frames is None or item.get("last", True) else item["start"] + self.frames
            for origins, pixels in source.read(self.batch_size, item["start"]):
                about = {name: getattr(origins, name) for name in LISTS}
                # As bytes, which `normalised` turns into the same numbers: a quarter to carry.
                yield {"pixels": levels(pixels).numpy(), "sizes": origins.sizes, "about": json.dumps(about)}
                if stop is not None and origins.end >= stop:
                    break
        for name, reason in losses.skipped:
            LOG.warning("skipped %s: %s", name, reason)

    def _open(self, item: Row, losses: Losses) -> Source | None:
        """The source; None where nothing in it opens."""
        from ppl_fast.data.images import ImageFiles
        from ppl_fast.data.video_frames import open_videos

        names = item["names"]
        if "video" in item:
            opened, skipped = open_videos({names[0]: Path(item["video"])}, self.max_pixels)
            losses.skipped += skipped
            return Frames(opened[names[0]], self.image_size, names[0], losses) if opened else None
        try:
            images = ImageFiles(self.root, names, self.image_size, max_bad_share=1.0, max_pixels=self.max_pixels)
        except ValueError as error:
            losses.skipped += [(name, str(error)) for name in names]
            return None
        losses.skipped += images.skipped
        return Images(images, losses=losses)


class _Estimator:
    """The model on a device of its own."""

    def __init__(self, model: ray.ObjectRef[KeypointModel], schema: Schema, posing: Row):
        from ppl_fast.models import optimize

        device = "cuda" if ray.get_gpu_ids() else "cpu"
        self.schema = schema
        self.posing = Posing(optimize(ray.get(model).to(device).eval()), **posing)

    def __call__(self, rows: Row) -> pyarrow.Table:
        from ppl_fast.data.pixels import normalised

        about = json.loads(str(rows["about"][0]))
        origins = Origins(sizes=np.array(rows["sizes"][0]), **about)
        pixels = normalised(torch.from_numpy(np.array(rows["pixels"][0])))
        return table_of(self.posing(Batch(origins, pixels, None)), self.schema)
