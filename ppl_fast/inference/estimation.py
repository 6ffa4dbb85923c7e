"""A model over images: poses batch by batch, no sooner than they are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ppl_fast._console import no_bar
from ppl_fast._documents import MAX_PIXELS
from ppl_fast._extras import needing
from ppl_fast._options import integer
from ppl_fast.inference.confidence import Calibration
from ppl_fast.inference.frames import Frames
from ppl_fast.inference.keeping import Kept, job_of
from ppl_fast.inference.masks import PASSES, given_masks, open_masks
from ppl_fast.inference.media import Media, open_source
from ppl_fast.inference.poses import Naming, Origins, Poses
from ppl_fast.inference.posing import Posing
from ppl_fast.inference.schema import Schema, schema_of
from ppl_fast.inference.smoothing import smoothed, unfilled
from ppl_fast.inference.sources import Images, Source
from ppl_fast.inference.threads import Waits, ahead, timed

if TYPE_CHECKING:
    from typing_extensions import Self

    from ppl_fast.data.loading import Pictures
    from ppl_fast.data.video import Video
    from ppl_fast.inference.masks import Given
    from ppl_fast.models import KeypointModel
    from ppl_fast.options.footage import Framing


class Estimation(Iterator[Poses]):
    """Poses in order, batch by batch: what `estimate` gives.

    Attributes:
        media: what is estimated, and what of it was skipped so far.
        masks: what is hidden in it, and how much had nothing hidden so far; None where nothing is.
        waits: how long the model waited so far.
        depth: batches that are read ahead, and that `write` may be behind.
        begun: whether poses were taken already, or it was closed.
    """

    def __init__(
        self,
        posing: Posing,
        media: Media,
        *,
        batch_size: int,
        progress: bool,
        smooth: bool = False,
        depth: int = 0,
        kept: Kept | None = None,
    ):
        self.media, self.masks, self.waits, self.depth = media, posing.masks, Waits(), depth
        self.begun = False
        self._posing, self._batch_size, self._progress = posing, batch_size, progress

        def of(number: int, part: Source) -> Iterator[Poses]:
            poses = self._found(part) if kept is None else self._resumed(number, part, kept)
            if not smooth:
                return poses
            return smoothed(poses, part.image_size, batch_size) if isinstance(part, Frames) else map(unfilled, poses)

        self._batches = (poses for number, part in enumerate(media.parts) for poses in of(number, part))

    def _found(self, part: Source, start: int = 0) -> Generator[Poses, None, None]:
        """The poses of a source from its image `start` on."""
        batches = self._posing.batches(part, self._batch_size, start)
        with bar_of(part, self._progress, start) as advance, closing(ahead(batches, self.depth, self.waits)) as ready:
            for batch in ready:
                poses = self._posing(batch)
                del batch
                advance(len(poses))
                yield poses

    def _resumed(self, number: int, part: Source, kept: Kept) -> Iterator[Poses]:
        """The poses of a source: those that are kept, then the others."""
        end, done = 0, False
        for piece in kept.pieces(number, part):
            end, done = piece.end, piece.done
            part.resume(end, done, piece.skipped)
            if piece.poses is not None:
                yield piece.poses
        if not done:
            with closing(self._found(part, end)) as found, closing(kept.noting(number, part, end, found)) as noted:
                yield from noted

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Poses:
        self.begun = True
        with timed(self.waits, "taking"):
            return next(self._batches)

    def close(self) -> None:
        """End where it is: no more is read, and what was found is kept where it was to be."""
        self.begun = True
        self._batches.close()

    @cached_property
    def schema(self) -> Schema:
        """What all poses have in common, for those who write them."""
        videos = tuple(part.name for part in self.media.parts if isinstance(part, Frames))
        whole: dict[str, Any] = {name: getattr(self.media, name) for name in ("moving", "single", "several")}
        whole["videos"] = videos
        joints = self._posing.joints
        if joints is not None:
            bones = np.array(joints.skeleton, dtype=np.int64).reshape(-1, 2)
            return Schema(links=bones, weights=np.ones(len(bones)), names=joints.names, **whole)
        return schema_of(self._posing.model, **whole)


def estimate(
    model: KeypointModel,
    source: str | os.PathLike[str] | Video | Pictures,
    *,
    masks: Given | None = None,
    iterations: int | None = None,
    confidence: bool | Calibration = False,
    joints: Naming | None = None,
    smooth: bool = False,
    batch_size: int = 32,
    workers: int = 0,
    max_bad_share: float = 0.1,
    max_pixels: int = MAX_PIXELS,
    framing: Framing | None = None,
    progress: bool = False,
    depth: int = 0,
    keep: str | os.PathLike[str] | None = None,
) -> Estimation:
    """Estimate the poses of images and videos.

    The source is looked at now; images and frames are decoded and estimated batch by batch as the result is iterated,
    so that memory does not grow with their number. The poses of all at once: `collect(estimate(...))`.

    Args:
        model: a trained model, on the device that is to compute.
        source: the path of a folder of images and videos, searched recursively, or of one image or video; a
            `ppl_fast.data.video.Video`; a tensor (n, 3, S, S) in [-1, 1]; or a map-style data set of (3, S, S).
        masks: what is hidden in the originals, by the path of one mask image, white where hidden, for all images and
            frames; of a folder with a mask for each image or video, of the same relative name and any suffix of
            images; or by a colour (R, G, B), within `ppl_fast.inference.masks.TOLERANCE` in each channel. A pixel of
            a resized image is hidden where any hidden pixel of the original has a share in it.
        iterations: estimation passes, 1 more than rounds of iterative inference; by default 3 where masks are given
            and the model is iterative, else 1. Without masks each round imagines the whole image anew, which costs
            accuracy there.
        confidence: whether poses have it, which takes two more passes; by a calibration, such as
            `ppl_fast.inference.load_calibration` reads, likelihoods and expected errors, else a score that tells
            frames apart more than keypoints.
        joints: gives named joints in place of the keypoints, as `ppl_fast.naming.load_joints` reads them.
        smooth: whether tracks of videos are smoothed, and short gaps in them filled; see
            `ppl_fast.inference.smoothing.smooth`. Poses then have confidence, and a video is estimated whole before
            its first batch comes.
        batch_size: images or frames that go through the model at once.
        workers: processes that load images; 0 loads in the calling one.
        max_bad_share: a folder is refused where more than this share of its images and videos is unusable.
            Fewer are skipped, those too that prove damaged only when they are decoded; of such a video, the frames up
            to the damage stay. `media.skipped` names them.
        max_pixels: that an image or a frame of a file may decode to; see `ppl_fast.data.ImageFolder`.
        framing: what the model is to see of each image, as in its training: `ppl_fast.training.load_framing(run)`.
            None stretches the whole to the model's square. What shows nothing has a pose of NaN.
        progress: show a bar where there is a terminal.
        depth: batches that a thread decodes ahead of the model, and that `write` hands to a thread of its own, so that
            decoding, the model and writing go on at once; 0 does one after the other, and decodes none too soon.
        keep: a folder in which poses are kept as they are found. Where it has some, by the same model and options and
            of the same files, they come first, without their images, and estimation goes on behind them. It stays when
            all are found. See `ppl_fast.inference.keeping`.

    Returns:
        An iterator over `Poses`; no batch mixes images and frames, or frames of two videos.

    Raises:
        TypeError: no such source, masks or confidence; to keep poses of what is no file.
        ValueError: a number out of bounds; poses in `keep` of another job; nothing to estimate there, or too much that
            is unusable; masks that do not fit it. While iterating: an image, frame or mask does not decode that may not
            be skipped, and is named.
        ImportError: an extra is not installed.
    """
    if not isinstance(confidence, (bool, Calibration)):
        raise TypeError(f"estimate: confidence must be a bool or a Calibration, got {type(confidence).__name__}")
    if iterations is None:
        iterations = PASSES if masks is not None and model.iterative else 1
    iterations = integer("estimate", "iterations", iterations, low=1)
    batch_size = integer("estimate", "batch_size", batch_size, low=1)
    workers = integer("estimate", "workers", workers, low=0)
    depth = integer("estimate", "depth", depth, low=0)
    files = isinstance(source, (str, os.PathLike)) or not hasattr(source, "__getitem__")
    size = model.config["image_size"] if files else None  # tensors and data sets have theirs
    media = open_source(
        source, size, workers=workers, max_bad_share=max_bad_share, max_pixels=max_pixels, framing=framing
    )
    hidden = None if masks is None else open_masks(masks, media)
    posing = Posing(model, iterations, hidden, confidence or smooth, joints)
    kept = None
    if keep is not None:
        shown = {"framing": framing, "masks": given_masks(masks), "max pixels": max_pixels}
        kept = Kept(Path(keep), job_of(posing, media, batch_size, **shown))
    return Estimation(posing, media, batch_size=batch_size, progress=progress, smooth=smooth, depth=depth, kept=kept)


def predict(
    model: KeypointModel,
    images: Pictures,
    *,
    iterations: int = 1,
    batch_size: int = 64,
    workers: int = 0,
    description: str = "poses",
    progress: bool = True,
) -> NDArray[np.float64]:
    """Keypoints (n, N, 2) float64, xy in [-1, 1], of all images by `model.estimate`.

    Args:
        model: a trained model, on the device that is to compute.
        images: (n, 3, S, S) tensor in [-1, 1] or a map-style dataset of (3, S, S), at least one.
        iterations: estimation passes.
        batch_size: images that go through the model at once.
        workers: processes that load images.
        description: for the progress bar.
        progress: show it where there is a terminal.

    Raises:
        ValueError: a number out of bounds, or no images.
    """
    if not len(images):
        raise ValueError("predict: images must hold at least one, got none")
    iterations = integer("predict", "iterations", iterations, low=1)
    batch_size = integer("predict", "batch_size", batch_size, low=1)
    media = Media([Images(images, integer("predict", "workers", workers, low=0), description)])
    batches = Estimation(Posing(model, iterations), media, batch_size=batch_size, progress=progress)
    return np.concatenate([poses.normalised for poses in batches])


def read(source: Source, batch_size: int, progress: bool) -> Iterator[tuple[Origins, Tensor]]:
    """The batches of a source, with a progress bar where there is a terminal."""
    with bar_of(source, progress) as advance:
        for origins, pixels in source.read(batch_size):
            yield origins, pixels
            advance(len(origins))


@contextmanager
def bar_of(source: Source, progress: bool, start: int = 0) -> Iterator[Callable[[int], object]]:
    """A function that moves the progress bar of a source, which is shown where there is a terminal."""
    if not progress:
        yield lambda count: None
        return
    with needing("progress bars need", "data"):
        from tqdm.auto import tqdm
    with tqdm(total=source.length, initial=start, desc=source.name, unit=source.unit, disable=no_bar()) as shown:
        yield shown.update
