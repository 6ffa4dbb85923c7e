"""A whole training step never waits for the GPU, so that a CUDA graph can hold it; test_gpu.py captures one."""

import importlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import ppl_fast

operator = importlib.import_module("ppl_fast.ops.link_heatmap")  # the package's attribute is the function


@pytest.mark.slow
def test_a_training_step_reads_no_value(monkeypatch):
    """Fake tensors have none: whatever asks for a number, a truth value or a size that depends on one, raises."""
    # What is looked at on the CPU alone.
    monkeypatch.setattr(ppl_fast.PPL, "checked", lambda self, images, reference=None: (images, reference))
    monkeypatch.setattr(operator, "_check_links", lambda links, *_: links)
    with FakeTensorMode():
        model = ppl_fast.PPL(num_keypoints=4, image_size=32, width=0.25, reconstruction_loss="mse")
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        out = model(torch.rand(2, 3, 32, 32) * 2 - 1)
        out.loss.backward()
        optimizer.step()
    assert out.reconstruction.shape == (2, 3, 32, 32)
    assert all(p.grad is not None for p in model.parameters())
