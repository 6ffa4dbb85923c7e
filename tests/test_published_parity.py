"""The published model's outputs, losses, gradients and moving averages, from golden arrays of the published code.

Golden arrays order coordinates (row, column); `xy` brings them to ours.
"""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ppl_fast.models import PPL
from ppl_fast.models.perceptual import PerceptualLoss
from ppl_fast.models.published import AFFINE_ORDER, from_published_state_dict, published_options

GOLDEN = Path(__file__).resolve().parents[2] / "shared" / "golden"
pytestmark = [
    pytest.mark.skipif(not GOLDEN.is_dir(), reason=f"the published model's golden arrays are not at {GOLDEN}"),
    pytest.mark.filterwarnings("ignore:TF32 acceleration"),  # torch's own, on leaving mkldnn.flags
]


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "published_ppl_seed0.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.fixture(scope="module")
def state():
    sys.path.insert(0, str(GOLDEN))
    try:
        from weights import published_state_dict
    finally:
        sys.path.remove(str(GOLDEN))
    return {key: torch.from_numpy(np.asarray(value)) for key, value in published_state_dict("ppl").items()}


def build(state):
    model = PPL(thickness=1e-3, mask_ratio=0.0, **published_options(state))
    model.load_state_dict(from_published_state_dict(state))
    vgg = PerceptualLoss("vgg16")
    vgg.load_state(state)
    model._perceptual.append(vgg)
    return model


def xy(points):
    return points.flip(-1)


def agree(found, expected, tolerance):
    """Largest difference against the largest value of the array."""
    error = (found - expected).abs().max() / expected.abs().max().clamp_min(1e-12)
    assert error <= tolerance, f"relative error {error:.2e}"


@pytest.fixture(scope="module")
def evaluated(golden, state):
    model = build(state).eval()
    with torch.no_grad():
        return model, model(golden["images"])


def test_eval_keypoints(golden, evaluated):
    model, out = evaluated
    agree(out.prior.keypoints, xy(golden["prior_keypoints"]), 1e-4)
    agree(out.affine, golden["affine"].flatten(2)[..., AFFINE_ORDER].view(2, 16, 2, 3), 1e-4)
    agree(out.keypoints, xy(golden["keypoints"]), 1e-4)
    agree(out.recalled, xy(golden["memory_keypoints"]), 1e-4)


def test_eval_links_and_images(golden, evaluated):
    model, out = evaluated
    agree(out.prior.connectivity, golden["link_weights"], 1e-4)
    agree(out.link_heatmap, golden["link_heatmap"], 1e-4)
    agree(out.reconstruction, golden["reconstruction"], 1e-4)
    agree(out.losses["commitment"], golden["commitment"], 1e-4)


def test_eval_leaves_the_memory_alone(evaluated, state):
    model, _ = evaluated
    assert torch.equal(model.memory.codebook, state["memory.codebook"])


@pytest.fixture(scope="module")
def trained(golden, state):
    # The L1 between VGG features has kinks, so rounding moves these gradients: by 2e-4 of their size with plain float32
    # convolutions (the golden ones are 3e-4 from float64's), by 1e-3 and more with oneDNN's fast ones.
    model = build(state).train()
    with torch.backends.mkldnn.flags(enabled=False):
        out = model(golden["images"])
        out.loss.backward()
    return model, out


def test_training_losses(golden, trained):
    _, out = trained
    agree(out.losses["reconstruction"], golden["train_recon_perceptual_loss"], 1e-3)
    agree(out.losses["memory"], golden["train_consistency"], 1e-3)
    agree(out.losses["commitment"], golden["train_vq_loss"], 1e-3)
    # Published: |p| summed where |p| > 1; ours: |p| - 1. They differ by the count, averaged alike.
    outside = (out.keypoints.abs() > 1).sum(dim=1).float().mean()
    agree(out.losses["boundary"] + outside, golden["train_boundary_loss"], 1e-3)
    agree(out.loss + outside, golden["train_loss"], 1e-3)


def test_training_gradients(golden, trained):
    model, _ = trained
    i, j = model.links.T
    agree(model.link_parameters.grad, golden["grad_skeleton_scalar"][i, j], 1e-3)
    agree(model.regressor.affine[-1].weight.grad, golden["grad_affine_head"][AFFINE_ORDER], 1e-3)


def test_moving_averages_after_one_step(golden, trained):
    model, _ = trained
    agree(model.memory.sizes, golden["after_ema_cluster_size"], 1e-4)
    agree(model.memory.codebook[: len(golden["after_codebook"])], golden["after_codebook"], 1e-4)


def test_sizes_are_read_from_shapes(state):
    options = published_options(state)
    default = PPL().config
    assert options == {name: default[name] for name in options}
    with pytest.raises(ValueError, match="unexpected entry memory.surprise"):
        from_published_state_dict(state | {"memory.surprise": torch.zeros(1)})
