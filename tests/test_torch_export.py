"""`torch.export` of the models' own forward, as somebody does who has a loop of their own."""

import io

import pytest
import torch
from test_wrappers import MODELS, built, pictures

pytestmark = pytest.mark.slow  # each is traced for seconds
BATCH = torch.export.Dim("batch")


def written(program):
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    return torch.export.load(file).module()


@MODELS
def test_a_forward_is_exported_for_any_batch_and_read_back(name):
    model = built(name).eval()
    program = torch.export.export(
        model, (pictures(),), {"losses": False}, dynamic_shapes={"images": {0: BATCH}, "losses": None}
    )
    assert "autocast" not in str(program.graph)
    found, expected = written(program)(pictures(5), losses=False), model(pictures(5), losses=False)
    assert type(found) is type(expected) and found.losses == {} and found.loss is None
    for value, wanted in zip(found, expected, strict=True):
        if isinstance(wanted, torch.Tensor):
            torch.testing.assert_close(value, wanted)


@pytest.mark.parametrize("name", ["PPL", "AutoLink"])
def test_a_training_step_is_exported_and_moves_the_memory(name):
    model = built(name, mask_ratio=0.0).train()
    step = written(torch.export.export(model, (pictures(),), dynamic_shapes={"images": {0: BATCH}}))
    losses = [module(pictures(3)).loss for module in (step, model)]
    torch.testing.assert_close(*losses)
    losses[0].backward()
    assert all(parameter.grad is not None for name, parameter in step.named_parameters() if "translator" in name)
    for key, value in model.named_buffers():
        if key in ("memory.codebook", "memory.sizes"):
            torch.testing.assert_close(step.get_buffer(key), value)
