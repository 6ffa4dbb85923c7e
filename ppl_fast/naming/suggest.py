"""Which images to label next: those that what is labelled says least about."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ppl_fast.naming.forms import Array

SAME = 1e-6  # distance of poses, in units of their spread


def suggested(keypoints: Array, disagreement: Array, labelled: Array, count: int) -> NDArray[np.int64]:
    """Rows of `count` images, the most useful first.

    One after the other, the image whose pose is farthest from all that are labelled or were suggested before; an image
    counts up to twice as far, the more the predictors of its joints disagree.

    Args:
        keypoints: (n, N, 2) of the images to choose from.
        disagreement: (n,) of at least 0.
        labelled: (m, N, 2) keypoints of the labelled images.
        count: of rows; fewer where there are no more. An image whose pose is a labelled one's is never chosen.
    """
    poses, known = (each.reshape(len(each), -1) for each in (keypoints, labelled))
    spread = np.concatenate([poses, known]).std(axis=0).clip(1e-6)
    poses, known = poses / spread, known / spread
    nearest = np.full(len(poses), np.inf)
    for pose in known:
        nearest = np.minimum(nearest, np.linalg.norm(poses - pose, axis=1))
    if not len(known):
        nearest = np.linalg.norm(poses - poses.mean(axis=0), axis=1)
    unsure = 1 + disagreement / max(float(disagreement.max(initial=0)), 1e-9)
    chosen: list[int] = []
    while len(chosen) < count and nearest.max(initial=0) > SAME:
        chosen.append(int((nearest * unsure).argmax()))
        nearest = np.minimum(nearest, np.linalg.norm(poses - poses[chosen[-1]], axis=1))
    return np.array(chosen, dtype=np.int64)
