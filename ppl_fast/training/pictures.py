"""The pictures that a run refreshes as it goes."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ppl_fast._extras import missing
from ppl_fast.data.box_files import write_boxes
from ppl_fast.data.image_set import ImageSet
from ppl_fast.models import KeypointModel
from ppl_fast.training.logging import RunLog

SHOWN_BOXES = 12


def check_drawing() -> None:
    """Raise an ImportError where pictures cannot be drawn, before hours of training end in one."""
    for module in ("PIL", "matplotlib"):
        if find_spec(module) is None:
            raise missing(module, "training pictures need", "viz", otherwise="set picture_every to 0")


def keep_boxes(run: Path, dataset: ImageSet, draw: bool) -> None:
    """Write boxes.csv, the boxes around the animal as `--crop` reads them, and boxes.png, which shows some.

    Args:
        run: the run's directory.
        dataset: the images, of which parts are seen.
        draw: whether to draw them.
    """
    if dataset.views is None or dataset.views.rows is None or dataset.boxes is None:
        return
    write_boxes(run / "boxes.csv", dataset.views.rows)
    if draw:
        from ppl_fast.visualization import save_boxes

        chosen = [int(i) for i in np.linspace(0, len(dataset) - 1, min(SHOWN_BOXES, len(dataset)))]
        images, originals = torch.stack([dataset[i] for i in chosen]), [dataset.original(i) for i in chosen]
        save_boxes(run / "boxes.png", originals, dataset.boxes[chosen], images, [dataset.paths[i] for i in chosen])


def draw_pictures(run: Path, model: KeypointModel, images: torch.Tensor, log: RunLog) -> None:
    """Refresh poses.png, training.png and, where the model has a prior, prior.png.

    Args:
        run: the run's directory.
        model: the model.
        images: float32 (B, 3, S, S) in [-1, 1] on the model's device, the ones shown with their poses.
        log: records of losses and priors so far.
    """
    from ppl_fast.visualization import save_poses, save_prior, save_training

    save_poses(
        run / "poses.png", images, model.estimate(images), model.links, model.link_weights().detach(), legend=True
    )
    if log.priors:
        save_prior(run / "prior.png", [(r["step"], r["keypoints"], r["connectivity"]) for r in log.priors], legend=True)
    save_training(run / "training.png", log.records)
