"""Taichi-HD: videos to learn from, and single frames with 18 joints to measure on (Siarohin et al., 2020)."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from ppl_fast.data.clips import ClipFolder
from ppl_fast.data.images import ImageFolder
from ppl_fast.data.labels import Labels
from ppl_fast.data.sets.layout import LayoutError, Published, joints
from ppl_fast.data.sets.pickles import read_table

SIDE = 256  # of the labelled frames, whose pixels the labels count
HIDDEN = -1  # coordinates of a joint that was not found
TREE = """train/<video>.mp4/<frame>.png
eval_images/taichi-256/{train,test}/<image>.png
landmark/taichi_{train,test}_gt.pkl"""
# The order of OpenPose's COCO model, which found them.
JOINTS = [
    "nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist",
    "right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle", "right eye", "left eye",
    "right ear", "left ear",
]  # fmt: skip
BONES = [
    (0, 1), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13),
    (0, 14), (14, 16), (0, 15), (15, 17),
]  # fmt: skip


class TaichiVideos(Published, ClipFolder):
    """The training videos, as folders of frames or as video files; each is a clip. They have no labels.

    The arguments are those of `ClipFolder`; `root` holds the folder train.
    """

    name = "taichi"
    tree = TREE

    def __init__(self, root: str | os.PathLike[str], image_size: int, split: str, **options: Any):
        folder = Path(root) / split
        if not folder.is_dir():
            raise LayoutError(self.name, Path(root), TREE, f"no folder {split}")
        super().__init__(folder, image_size, **options)


class TaichiFrames(Published, ImageFolder):
    """The labelled frames, to fit and to measure the regression on.

    Args:
        root: the folder that holds eval_images and landmark.
        image_size, cache, max_bad_share: those of `ImageFolder`.
        split: train or test.

    Raises:
        LayoutError: the frames or their labels are missing.
    """

    name = "taichi"
    tree = TREE
    # The sum over joints of |dx| + |dy| in pixels at 256, of a regression with an intercept.
    protocol = {"summed_at": SIDE, "intercept": True, "norm": "l1"}

    def __init__(self, root: str | os.PathLike[str], image_size: int, split: str, **options: Any):
        folder, self._table = f"eval_images/taichi-256/{split}", Path(root) / "landmark" / f"taichi_{split}_gt.pkl"
        if not (Path(root) / folder).is_dir():
            raise LayoutError(self.name, Path(root), TREE, f"no folder {folder}")
        if not self._table.is_file():
            raise LayoutError(self.name, Path(root), TREE, f"no file landmark/{self._table.name}")
        super().__init__(Path(root) / folder, image_size, **options)

    def read_labels(self) -> Labels:
        """The 18 joints of the frames that the table names, as far as they were found.

        Raises:
            ValueError: a table that cannot be read or holds other joints, or frames of another size.
        """
        table = read_table(self._table, ("file_name", "value"))
        where = str(self._table)
        if not table["value"]:
            raise ValueError(f"{where}: expected a row for each labelled frame, got none")
        points = np.stack([joints(value, len(JOINTS), where, "each value") for value in table["value"]])
        if not np.isfinite(points).all():
            raise ValueError(f"{where}: each value must be finite, got NaN or infinity")
        if any(size != (SIDE, SIDE) for size in self.original_sizes):
            other = next(size for size in self.original_sizes if size != (SIDE, SIDE))
            raise ValueError(f"{self.root}: labelled frames must be of {SIDE} x {SIDE} pixels, got {other}")
        visible = (points != HIDDEN).all(-1)
        return Labels(table["file_name"], points, visible, JOINTS, BONES)
