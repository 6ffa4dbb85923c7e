"""The pictures that a run refreshes as it goes."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from ppl_fast._extras import missing
from ppl_fast.data.box_files import write_boxes
from ppl_fast.data.image_set import ImageSet
from ppl_fast.data.loading import Pictures
from ppl_fast.models import KeypointModel
from ppl_fast.training.logging import RunLog

POSE_IMAGES, BOX_IMAGES = 15, 12  # that are shown


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

        chosen = _spread(len(dataset), BOX_IMAGES)
        images, originals = torch.stack([dataset[i] for i in chosen]), [dataset.original(i) for i in chosen]
        save_boxes(run / "boxes.png", originals, dataset.boxes[chosen], images, [dataset.paths[i] for i in chosen])


def keep_subjects(run: Path, dataset: ImageSet, figures: Pictures) -> None:
    """Draw masks.png, some images with what is taken for their subject.

    Args:
        run: the run's directory.
        dataset: the images.
        figures: where the subject of each is.
    """
    from ppl_fast.visualization import save_subjects

    chosen = _spread(len(dataset), BOX_IMAGES)
    images, masks = (torch.stack([each[i] for i in chosen]) for each in (dataset, figures))
    save_subjects(run / "masks.png", images, masks, [dataset.paths[i] for i in chosen])


def shown_images(dataset: ImageSet) -> torch.Tensor:
    """The images (B, 3, S, S) of poses.png, the same in every refresh."""
    return torch.stack([dataset[i] for i in _spread(len(dataset), POSE_IMAGES)])


def _spread(length: int, count: int) -> list[int]:
    return [int(i) for i in np.linspace(0, length - 1, min(count, length))]


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
