"""Draw the figures of docs/operators.md with the operators themselves: `python docs/site/figures.py [FOLDER]`."""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib
import torch

import ppl_fast

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

HERE = Path(__file__).parents[1] / "operators"
BLUE, ORANGE, GREY, SKY = "#0072b2", "#d55e00", "#9a9a9a", "#56b4e9"
BANK = torch.tensor([[-0.7, -0.4], [-0.1, 0.65], [0.15, -0.6], [0.6, 0.1], [0.8, 0.8]])


def link_heatmap(figure) -> None:
    """Five keypoints and four links of different weight, at two thicknesses, and the gradient of the sum."""
    keypoints = torch.tensor([[[-0.7, 0.7], [-0.1, 0.1], [0.7, 0.5], [0.1, -0.5], [-0.5, -0.7]]], requires_grad=True)
    links, weights = torch.tensor([[0, 1], [1, 2], [1, 3], [3, 4]]), torch.tensor([1.0, 0.75, 1.0, 0.45])
    for axes, thickness in zip(figure.subplots(1, 3), (1e-3, 2e-2, 2e-2), strict=True):
        heat = ppl_fast.link_heatmap(keypoints, weights, 128, thickness, links)
        axes.imshow(heat[0, 0].detach(), cmap="magma", vmin=0, vmax=1, extent=(-1, 1, 1, -1))
        axes.plot(*keypoints[0].detach().T, "o", color="white", markersize=3)
        axes.set_title(f"thickness {thickness:g}")
    (pull,) = torch.autograd.grad(heat.sum(), keypoints)
    x, y = keypoints[0].detach().T.numpy()
    reach = float(pull.norm(dim=-1).max()) / 0.6  # the longest arrow
    axes.quiver(x, y, *pull[0].T.numpy(), color=SKY, angles="xy", scale_units="xy", scale=reach, width=0.015)
    axes.set_title("gradient of the sum")


def memory_attention(figure) -> None:
    """One bank of five prototypes in the plane: what each token takes, nearest and softly mixed."""
    side = torch.linspace(-1, 1, 13)
    tokens = torch.cartesian_prod(side, side)[:, None]  # (B, 1, 2): every token is of the one bank
    for axes, temperature in zip(figure.subplots(1, 3), (None, 0.1, 1.0), strict=True):
        values, indices, _ = ppl_fast.memory_attention(tokens, BANK[None], temperature)
        start, step = tokens[:, 0], values[:, 0] - tokens[:, 0]
        axes.quiver(
            *start.T, *step.T, indices[:, 0], cmap="viridis", angles="xy", scale_units="xy", scale=1.6, width=0.005
        )
        axes.plot(*BANK.T, "o", color=ORANGE, markersize=7)
        axes.set_title("nearest" if temperature is None else f"temperature {temperature:g}")
        axes.set(aspect="equal", ylim=(1.1, -1.1))


def affine_warp(figure) -> None:
    """A template, and what two images' maps make of it."""
    template = torch.tensor([[0, -0.75], [0, -0.1], [-0.5, -0.3], [0.5, -0.3], [-0.3, 0.7], [0.3, 0.7]])
    links = [(0, 1), (1, 2), (1, 3), (1, 4), (1, 5)]
    turn, size = torch.tensor([-0.5, 0.35]), torch.tensor([0.8, 1.1])
    rows = [[size * turn.cos(), -size * turn.sin(), torch.tensor([0.1, 0.0])]]
    rows += [[size * turn.sin(), size * turn.cos(), torch.tensor([0.1, -0.1])]]
    affine = torch.stack([torch.stack(row, -1) for row in rows], -2)[:, None].repeat(1, len(template), 1, 1)
    affine[:, 2, :, 2] += torch.tensor([[0.0, -0.5], [0.2, 0.4]])  # each keypoint has a map of its own: an arm moves
    points = ppl_fast.affine_warp(template, affine)
    titles = ("template", "image 1", "image 2")
    for axes, pose, title in zip(figure.subplots(1, 3), (template, *points), titles, strict=True):
        for a, b in links:
            axes.plot(*template[[a, b]].T, color=GREY, linewidth=1, linestyle=":")
            axes.plot(*pose[[a, b]].T, color=BLUE, linewidth=2)
        axes.plot(*pose.T, "o", color=ORANGE, markersize=5)
        axes.set(xlim=(-1.1, 1.1), ylim=(1.1, -1.1), aspect="equal", title=title)


def draw(folder: Path) -> list[Path]:
    """Write a figure for each operator into a folder, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for make in (link_heatmap, memory_attention, affine_warp):
        figure = pyplot.figure(figsize=(7.5, 2.7), layout="constrained")
        make(figure)
        for axes in figure.axes:
            axes.tick_params(labelsize=6)
            axes.title.set_size(9)
        paths.append(folder / f"{make.__name__}.png")
        figure.savefig(paths[-1], dpi=110, metadata={"Software": None})
        pyplot.close(figure)
    return paths


if __name__ == "__main__":
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
