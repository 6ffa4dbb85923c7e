"""The option `recompute`: less is kept for the backward, and nothing else changes."""

import sys
from pathlib import Path

import pytest
import torch
from model_cases import TINY, pictures
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ppl_fast.models import PPL, AutoLink, ExtendedPPL, resizing
from ppl_fast.models.recompute import Block

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))

from alive import Alive  # noqa: E402

UNET = {"translator": "unet", "translator_base": 8, "regressor_base": 8}


def built(what: str, model_class=ExtendedPPL, **options):
    torch.manual_seed(0)
    options = {name: value for name, value in (TINY | UNET | options).items() if hasattr(model_class.Config, name)}
    return model_class(**options, recompute=what).train()


def steps(model, precision: str, count: int = 2):
    """What two steps give and leave behind, and the state of the generator of random numbers."""
    optimizer, found = torch.optim.SGD(model.parameters(), 0.1), []
    torch.manual_seed(1)
    for number in range(count):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            out = model(pictures(seed=number))
        out.loss.backward()
        found += [out.keypoints.detach(), out.loss.detach()]
        found += [parameter.grad.clone() for parameter in model.parameters()]
        optimizer.step()
        optimizer.zero_grad()
    return [*found, *model.state_dict().values(), torch.get_rng_state()]


@pytest.mark.parametrize("what", ["layers", "blocks"])
@pytest.mark.parametrize(
    "model_class,precision", [(PPL, "float32"), (ExtendedPPL, "float32"), (AutoLink, "float32"), (PPL, "bfloat16")]
)
def test_steps_are_the_same(model_class, precision, what):
    """Gradients, parameters, BatchNorm's running averages and what is drawn by chance, to the bit."""
    options = {"occlude_input": 1.0, "occlude_fill": True, "equivariance_weight": 1.0, "detector_size": 32}
    plain, spared = (steps(built(each, model_class, **options), precision) for each in ("nothing", what))
    assert len(plain) > 100 and all(map(torch.equal, plain, spared))


def test_less_is_kept_and_less_is_held():
    kept, most = [], []
    for what in ("nothing", "layers", "blocks"):
        model, images = built(what, image_size=64), pictures(4, size=64)
        with Alive(*model.parameters(), *model.buffers()) as alive:
            out = model(images)
            kept.append(alive.now)
            out.loss.backward()
            most.append(alive.most)
    assert kept[1] < 0.65 * kept[0] and kept[2] < 0.25 * kept[0]
    assert most[1] < 0.85 * most[0] and most[2] < 0.65 * most[1]


class Calls(TorchDispatchMode):
    """The names of the operations that run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("what,again,norms", [("nothing", 0, 0), ("layers", 0, 10), ("blocks", 18, 18)])
def test_convolutions_are_computed_again_in_blocks_alone(what, again, norms, monkeypatch):
    monkeypatch.setattr(resizing, "WIDE", 1000)  # else some are matrix products, as a backward has of its own
    out = built(what)(pictures())
    with Calls() as calls:
        out.loss.backward()
    assert calls.names.count("aten.convolution.default") == again
    assert calls.names.count("aten.native_batch_norm.default") == norms


def test_nothing_is_recomputed_without_gradient_and_inside_of_transforms():
    block = Block(nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2))
    block.recompute = "blocks"
    x = torch.randn(3, 2, 5, 5)
    with torch.no_grad():
        block(x)
    norm = block[1]
    assert norm.num_batches_tracked == 1
    block.eval()
    gradient = torch.func.grad(lambda x: block(x).square().sum())
    expected = torch.autograd.functional.jacobian(lambda x: block(x).square().sum(), x)
    torch.testing.assert_close(gradient(x), expected)
