"""A whole training step never waits for the GPU, so that a CUDA graph can hold it; test_gpu_models.py captures one."""

import importlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import ppl_fast

operator = importlib.import_module("ppl_fast.ops.link_heatmap")  # the package's attribute is the function


EXTENDED = {
    "head": "position",
    "occlude_input": 0.5,
    "occlude_fill": True,
    "withhold": 0.5,
    "equivariance_weight": 1.0,
    "equivariance_ramp": 0.5,
    "foreground_weight": 1.0,
    "coverage_even": True,
    "separation_weight": 1.0,
    "plausibility_weight": 1.0,
    "prior_weight": 1.0,
    "reseed_after": 2,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options"),
    [(ppl_fast.PPL, {}), *((ppl_fast.ExtendedPPL, EXTENDED | {"occlude_view": view}) for view in (False, True))],
)
def test_a_training_step_reads_no_value(kind, options):
    """Fake tensors have none: whatever asks for a number, a truth value or a size that depends on one, raises."""
    with FakeTensorMode():
        model = kind(num_keypoints=4, image_size=32, width=0.25, reconstruction_loss="mse", **options)
        model.captured = True
        model.progressed(0.25)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        figure = {"figure": torch.rand(2, 1, 32, 32)} if options else {}
        out = model(torch.rand(2, 3, 32, 32) * 2 - 1, **figure)
        out.loss.backward()
        optimizer.step()
    assert out.reconstruction.shape == (2, 3, 32, 32)
    assert all(p.grad is not None for p in model.parameters())
