"""The pictures that a run refreshes as it goes."""

from pathlib import Path

import torch

from .logging import RunLog


def draw_pictures(run: Path, model, images: torch.Tensor, log: RunLog) -> None:
    """Refresh poses.png, prior.png and training.png.

    Args:
        run: the run's directory.
        model: a PPL, left in the mode it came in.
        images: float32 (B, 3, S, S) in [-1, 1] on the model's device, the ones shown with their poses.
        log: records of losses and priors so far.
    """
    from ppl_fast.visualization import save_poses, save_prior, save_training

    training = model.training
    keypoints = model.estimate(images)
    model.train(training)
    save_poses(run / "poses.png", images, keypoints, model.links, model.link_weights().detach())
    priors = [(r["step"], torch.tensor(r["keypoints"]), torch.tensor(r["connectivity"])) for r in log.priors]
    save_prior(run / "prior.png", priors)
    save_training(run / "training.png", log.records)
