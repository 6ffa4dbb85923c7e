"""What all poses of an estimation have in common, and what the formats that they are written in are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ppl_fast.inference.poses import Poses

if TYPE_CHECKING:
    from ppl_fast.models import KeypointModel


@dataclass(frozen=True, eq=False, kw_only=True)
class Schema:
    """What all poses of an estimation have in common.

    Attributes:
        names: of the N keypoints; None numbers them.
        links: (E, 2) int64, the keypoints that each link joins.
        weights: (E,) float64, of the links, at least 0.
        moving: whether there are frames of videos.
        single: whether they are those of one video by itself.
        several: whether there are several videos, or images beside one.
        videos: their names.
    """

    links: NDArray[np.int64]
    weights: NDArray[np.float64]
    names: list[str] | None = None
    moving: bool = False
    single: bool = False
    several: bool = False
    videos: tuple[str, ...] = ()

    def titles(self, count: int) -> list[str]:
        """The names of so many keypoints, or numbered ones."""
        from ppl_fast.data.predictions import numbered

        return numbered(count) if self.names is None else self.names


def schema_of(model: KeypointModel, **whole: Any) -> Schema:
    """The schema of a model's keypoints."""
    weights = model.link_weights().detach().cpu().double().numpy()
    return Schema(links=model.links.cpu().numpy().astype(np.int64), weights=weights, **whole)


Write = Callable[[Poses], None]
Format = Callable[[Path, Schema], AbstractContextManager[Write]]
