"""The published class in the published scripts: training, checkpoints, state dicts."""

import copy

import pytest
import torch
from model_cases import pictures
from published_cases import arguments, before_norms
from torch import nn
from torch.utils.data import DataLoader

from ppl_fast import PPL
from ppl_fast.models import perceptual
from ppl_fast.published import PosePriorLearner

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
pytestmark = pytest.mark.filterwarnings("ignore:PosePriorLearner. there is no CUDA device")


def small(**changed):
    torch.manual_seed(0)
    return arguments(**({"num_parts": 5, "img_size": 32, "block": 4} | changed))


@pytest.fixture(scope="module")
def vgg():
    """Random weights in torchvision's layout."""
    torch.manual_seed(1)
    loss = perceptual.PerceptualLoss("vgg16")
    layers = [layer for stage in loss.stages for layer in stage]
    return {
        f"features.{index}.{name}": torch.randn_like(value) * 0.05
        for index, layer in zip(loss.indices, layers, strict=True)
        for name, value in layer.named_parameters()
    }


@pytest.fixture
def workplace(tmp_path, monkeypatch, vgg):
    """A working directory with VGG16's weights where the published code keeps them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PPL_FAST_VGG", raising=False)
    monkeypatch.setattr(perceptual, "SIZE", 32)  # 224 takes seconds
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(vgg, tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth")
    return tmp_path


def train(args, frames, steps):
    """The course of the published train.py: model, Adam, loop with pictures now and then, whole-module checkpoint."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = PosePriorLearner(args).cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    loader = DataLoader([{"img": frame} for frame in frames], batch_size=2, shuffle=True, drop_last=True)
    history = []
    model.train()
    for step, batch in enumerate(loader, 1):
        optimizer.zero_grad()
        loss, values = model(batch["img"].to(device), step == steps)
        loss.backward()
        optimizer.step()
        history.append((loss.item(), {key: value.detach().cpu() for key, value in values.items()}))
        if step == steps:
            break
    torch.save(model, "checkpoint_latest.pth")
    return model, history


@pytest.mark.slow
def test_train_and_test_scripts(workplace):
    frames = pictures(4)
    model, history = train(small(), frames, steps=2)
    assert all(value == value and abs(value) < 1e6 for value, _ in history)
    (first, terms), (_, shown) = history
    assert first == pytest.approx(sum(term.item() for term in terms.values()), rel=1e-5)
    names = ["template", "reconstructed", "frame", "ref_frame", "transformed_template", "vq_transformed_template"]
    assert {key: tuple(shown[key].shape) for key in names} == {
        key: (1 if key == "template" else 2, 3, 32, 32) for key in names
    }
    assert list(terms) == ["boundary_loss", "recon_perceptual_loss", "consistency", "vq_loss"]
    assert set(shown) == {*terms, *names}
    dropped = (shown["ref_frame"] == 0).all(dim=1).view(2, 4, 8, 4, 8).transpose(2, 3).flatten(3).float().mean(dim=3)
    assert set(dropped.unique().tolist()) == {0.0, 1.0}

    loaded = torch.load("checkpoint_latest.pth", weights_only=False).cuda().eval()
    template = loaded.memory.get_template().unsqueeze(0).repeat(4, 1, 1)
    with torch.no_grad():
        affine = loaded.regressor(frames.to(DEVICE), template)
        aug = loaded.aug.unsqueeze(0).repeat(4, 1, 1)
        points = torch.matmul(affine, torch.cat([template, aug], dim=-1).unsqueeze(-1)).squeeze(-1)
    found = PPL.from_published("checkpoint_latest.pth").to(DEVICE)
    torch.testing.assert_close(found.estimate(frames.to(DEVICE)), points.flip(-1))
    assert torch.equal(loaded.memory.codebook, model.memory.codebook)


@pytest.mark.slow
def test_training_moves_what_it_should_and_eval_does_not(workplace):
    args = small()
    before = PosePriorLearner(small()).state_dict()
    model, _ = train(args, pictures(2), steps=1)
    after = {key: value.cpu() for key, value in model.state_dict().items()}
    still = [key for key in before if torch.equal(before[key], after[key]) and "num_batches" not in key]
    assert set(still) == {"regressor.coord", *before_norms(before)}
    model.eval()
    model(pictures(2).to(DEVICE))
    assert all(torch.equal(value.cpu(), after[key]) for key, value in model.state_dict().items())


@pytest.mark.slow
def test_state_dict_has_vgg_once_it_is_loaded(workplace, vgg):
    model = PosePriorLearner(small())
    assert not any(key.startswith("vgg_loss.") for key in model.state_dict())
    images = pictures(2)
    assert model.vgg_loss(images, images) == 0
    state = model.state_dict()
    assert torch.equal(state["vgg_loss.blocks.1.7.bias"], vgg["features.7.bias"])
    (workplace / "hub/checkpoints/vgg16-397923af.pth").unlink()
    other = PosePriorLearner(small())
    other.load_state_dict(state)
    assert torch.equal(other.vgg_loss(images, -images), model.vgg_loss(images, -images))


def test_without_vgg_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PPL_FAST_VGG", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError, match="the perceptual loss needs pretrained vgg16 weights"):
        PosePriorLearner(small())(pictures(2))


@pytest.mark.slow
def test_state_dicts_load_into_each_other():
    model, other = PosePriorLearner(small()), PosePriorLearner(small(num_parts=5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1)
    assert str(other.load_state_dict(model.state_dict())) == "<All keys matched successfully>"
    a, b = model.state_dict(), other.state_dict()
    assert list(a) == list(b) and all(torch.equal(a[key], b[key]) for key in a)
    assert torch.equal(other.skeleton_scalar, model.skeleton_scalar)
    wrapped = nn.ModuleDict({"inner": other})
    assert wrapped.state_dict().keys() == {f"inner.{key}" for key in a}
    wrapped.load_state_dict({f"inner.{key}": value + 1 for key, value in a.items()})
    assert torch.equal(other.state_dict()["memory.ema_w"], a["memory.ema_w"] + 1)
    with pytest.raises(
        ValueError, match="PosePriorLearner.load_state_dict: not a state dict of the published PPL; miss"
    ):
        other.load_state_dict({key: value for key, value in a.items() if key != "memory.ema_w"})


def test_without_alpha():
    model = PosePriorLearner(small(use_alpha=False, alpha=0.5))
    assert model.alpha == 1 and not model.alpha.requires_grad and "alpha" not in model.state_dict()
    model.load_state_dict(model.state_dict())
    assert PosePriorLearner(small(alpha=0.5)).alpha == 0.5


def test_copies_are_independent():
    model = PosePriorLearner(small())
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin.model.link_parameters.add_(1)
    assert not torch.equal(twin.skeleton_scalar_matrix(), model.skeleton_scalar_matrix())
    assert twin.memory.get_template().shape == (5, 2)


def test_links_are_differentiable_and_symmetric():
    model = PosePriorLearner(small())
    matrix = model.skeleton_scalar_matrix()
    assert torch.equal(matrix, matrix.T) and not matrix.diagonal().any()
    model.rasterize(torch.rand(2, 5, 2) * 2 - 1, output_size=64).sum().backward()
    assert model.model.link_parameters.grad.any()
    assert model.skeleton_idx.tolist() == torch.triu_indices(5, 5, 1).tolist() and model.n_skeleton == 10


def test_rasterize_takes_rows_first():
    model = PosePriorLearner(small(num_parts=2, thick=1e-2))
    heatmap = model.rasterize(torch.tensor([[[-1.0, -1.0], [-1.0, 1.0]]]), output_size=32)[0, 0]  # along the top row
    assert (heatmap[0] > 0).all() and not heatmap[16].any()


def test_missing_arguments_are_named():
    args = small()
    del args.block, args.sklr
    with pytest.raises(TypeError, match="args must have num_parts, .*, got none of sklr, block"):
        PosePriorLearner(args)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_warns():
    with pytest.warns(UserWarning, match="no CUDA device; the model stays on the CPU"):
        assert PosePriorLearner(small()).cuda().alpha.device.type == "cpu"
