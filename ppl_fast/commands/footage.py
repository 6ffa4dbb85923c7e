"""What commands share that look at labelled images, or at parts of images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppl_fast.options.footage import MOVING

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser

    from ppl_fast.data.sets import LabelledSet
    from ppl_fast.options.footage import Framing


def add_crop(parser: ArgumentParser) -> None:
    """Add the option that says where the boxes are."""
    parser.add_argument(
        "--crop",
        type=str | None,
        default=None,
        metavar="FILE",
        help="boxes to look into, CSV or COCO, or the word moving (default: as the run was trained)",
    )


def add_labels(parser: ArgumentParser) -> None:
    """Add the options that say which labels count, and how many of them must."""
    parser.add_argument("--labels", type=str | None, default=None, metavar="FILE", help="labels that lie elsewhere")
    parser.add_argument("--individual", type=str | None, default=None, metavar="NAME", help="whose joints, of several")
    parser.add_argument(
        "--max-missing-share", type=float, default=0.5, help="share of the labels that may name no image"
    )


def framing_for(options: Any, run: str | None = None) -> Framing:
    """What the model of a run sees of images: as in its training, but with boxes from another place where --crop says.

    Raises:
        ValueError: the run was trained on boxes from a file, and --crop names none for these images.
    """
    from ppl_fast.training import load_framing

    found = load_framing(run or options.run)
    if options.crop is not None:
        return replace(found, crop=options.crop, turn=found.turn and options.crop == MOVING)
    if found.crop not in (None, MOVING):
        raise ValueError(
            f"{run or options.run} was trained on boxes from the file {found.crop}; --crop names the file of those of "
            f"these images, or the word {MOVING}"
        )
    return found


def _project_around(spec: str) -> str:
    """What to say where a part of a project was given; "" where it is none."""
    for folder in [*Path(spec).resolve().parents][:2]:  # above labeled-data, and a folder in it
        if any(folder.glob("CollectedData*")) or (folder / "labeled-data").is_dir():
            return f"it is a part of the project {folder}: give that"
    return ""


def open_labelled(
    command: str, spec: str, image_size: int, options: Any, framing: Framing, split: str = "fit"
) -> LabelledSet:
    """The images of a folder, project or published data set that has labels.

    Raises:
        ValueError: it has none, or what `ppl_fast.data.open_set` raises.
    """
    from ppl_fast.data import open_set

    found = open_set(
        spec,
        image_size,
        split=split,
        framing=framing,
        labels=options.labels,
        individual=options.individual,
        max_bad_share=options.max_bad_share,
        max_pixels=options.max_pixels,
    )
    if found.labels is None:
        raise ValueError(
            f"{command}: expected labels (keypoints.npz or COCO keypoint JSON) in {spec}, got none, nor a project "
            f"of DeepLabCut, Lightning Pose or SLEAP; {_project_around(spec) or '--labels names a file elsewhere'}"
        )
    return found
