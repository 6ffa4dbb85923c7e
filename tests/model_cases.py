"""A small model and images for the model tests."""

import torch

from ppl_fast.models import ExtendedPPL

TINY = {
    "num_keypoints": 5,
    "image_size": 32,
    "thickness": 5e-3,
    "memory_banks": 3,
    "memory_prototypes": 4,
    "memory_width": 8,
    "memory_hidden": 8,
    "memory_layers": 1,
    "memory_start": "balanced",
    "regressor_base": 4,
    "translator": "light",
    "translator_base": 4,
    "translator_levels": 2,
    "mask_blocks": 4,
    "reconstruction_loss": "mse",
    "head": "residual",
    "link_factor": 100.0,
    "link_start": -2.5,
}


def tiny(seed=0, **options) -> ExtendedPPL:
    torch.manual_seed(seed)
    return ExtendedPPL(**(TINY | options))


def pictures(batch=2, seed=1, size=32) -> torch.Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def inputs_of(module):
    """The list that every later forward's positional arguments are appended to."""
    seen = []
    module.register_forward_pre_hook(lambda _, args: seen.append(args))
    return seen


def losses_of_steps(model, images, steps=30, lr=3e-3) -> list[float]:
    """The losses of that many optimizer steps on the same images."""
    optimizer, losses = torch.optim.Adam(model.parameters(), lr), []
    for _ in range(steps):
        optimizer.zero_grad()
        out = model(images)
        out.loss.backward()
        optimizer.step()
        losses.append(out.loss.item())
    return losses
