"""Poses of images and videos by a trained model, batch by batch, and the files that they are written to.

    from ppl_fast.inference import estimate, write

    for poses in estimate(model, "footage/"):
        poses.names, poses.keypoints                    # (n, N, 2) in pixels of the originals
    write(estimate(model, "walk.mp4"), csv="poses.csv", overlay="overlay.mp4")

Images and videos need the `data` and `video` extras, overlays `viz`; tensors need none.
"""

from ppl_fast.inference.confidence import Calibration, load_calibration
from ppl_fast.inference.estimation import Estimation, estimate, predict
from ppl_fast.inference.media import Media, open_source
from ppl_fast.inference.poses import Origins, Poses, collect
from ppl_fast.inference.schema import Schema
from ppl_fast.inference.sources import Source
from ppl_fast.inference.writers import FORMATS, write

__all__ = [
    "FORMATS",
    "Calibration",
    "Estimation",
    "Media",
    "Origins",
    "Poses",
    "Schema",
    "Source",
    "collect",
    "estimate",
    "load_calibration",
    "open_source",
    "predict",
    "write",
]
